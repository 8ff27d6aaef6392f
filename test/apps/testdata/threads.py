"""socketserver with a thread per connection: "server PORT" answers each line in
capitals with the client's name; "client PORT" has 40 threads speak."""
import socket
import socketserver
import sys
import threading


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%s:%d %s" % (self.client_address[0].encode(), self.client_address[1], line.upper()))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def server(port):
    with Server(("127.0.0.1", port), Handler) as s:
        print("listening", flush=True)
        s.serve_forever()


def speak(port, who, right):
    with socket.create_connection(("127.0.0.1", port), 30) as s, s.makefile("rwb") as f:
        name = b"%s:%d" % (s.getsockname()[0].encode(), s.getsockname()[1])
        for i in range(50):
            f.write(b"line %d of %d\n" % (i, who))
            f.flush()
            assert f.readline() == name + b" LINE %d OF %d\n" % (i, who)
    right.append(name)


def client(port):
    right = []
    threads = [threading.Thread(target=speak, args=(port, i, right)) for i in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(f"{len(right)} threads right, {len(set(right))} names")


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
