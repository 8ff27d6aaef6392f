# client.py [ADDRESS]: sockets by name, told on standard input what to do; each line is
# answered with one that begins with the same words.
import errno
import socket
import sys

sockets = {}
host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"


def act(what, name, *args):
    if what == "socket":
        sockets[name] = socket.socket()
        sockets[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return "ok"
    if what == "many":  # connections to a port: how many came about, and all errors
        sockets[name] = many = []
        errors = set()
        for _ in range(int(args[1])):
            try:
                s = socket.create_connection(("127.0.0.1", int(args[0])), 15)
                many.append(s)
            except OSError as e:
                errors.add(errno.errorcode.get(e.errno, "timeout"))
        return "%d %s" % (len(many), ",".join(sorted(errors)) or "-")
    if what == "drop":
        for s in sockets.pop(name):
            s.close()
        return "ok"
    s = sockets[name]
    if what == "bind":
        s.bind(("127.0.0.1", int(args[0])))
    elif what == "connect":
        s.connect((host, int(args[0])))
    elif what == "echo":
        s.sendall(args[0].encode())
        got = b""
        while len(got) < len(args[0]):
            data = s.recv(4096)
            if not data:
                return "eof"
            got += data
        return got.decode()
    elif what == "recv":
        return "eof" if not s.recv(1) else "data"
    elif what == "nodelay":
        return str(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    elif what == "name":
        return "%s:%d" % s.getsockname()
    elif what == "peer":
        return "%s:%d" % s.getpeername()
    elif what == "close":
        s.close()
    return "ok"


print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        said = act(*words)
    except OSError as e:
        said = errno.errorcode.get(e.errno, str(e.errno))
    print(line.strip(), "=", said, flush=True)
