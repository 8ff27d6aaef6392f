"""Many connections at once, each with a port of its own.

server PORT          echoes from one loop; at "end" prints how many it has held
client PORT COUNT    opens all, keeps them, has each echo its own number, and
                     compares the ports both sides see
"""
import resource
import select
import socket
import sys

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def server(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    conns, most = {}, 0
    print("listening", flush=True)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                conn, peer = listener.accept()
                conns[conn.fileno()] = conn, peer
                most = max(most, len(conns))
                poll.register(conn, select.EPOLLIN)
                continue
            conn, peer = conns[fd]
            data = conn.recv(4096)
            if data == b"end":
                print("held", most, "at once", flush=True)
            elif data:
                conn.sendall(b"%d %s" % (peer[1], data))
            else:
                del conns[fd]
                conn.close()


def client(port, count):
    conns = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(count)]
    for i, c in enumerate(conns):
        c.sendall(b"number %d" % i)
    ports, right = set(), 0
    for i, c in enumerate(conns):
        mine = c.getsockname()[1]
        ports.add(mine)
        right += c.recv(4096) == b"%d number %d" % (mine, i)
    print(right, "right,", len(ports), "ports", flush=True)
    conns[0].sendall(b"end")
    sys.stdin.readline()


if sys.argv[1] == "server":
    server(int(sys.argv[2]))
else:
    client(int(sys.argv[2]), int(sys.argv[3]))
