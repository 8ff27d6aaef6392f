"""A server that listens and never accepts.

server PORT         sleeps until it is killed
client PORT COUNT   connects, sends, waits for what comes; prints how it ended
"""
import errno
import signal
import socket
import sys


def server(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    print("listening", listener.fileno(), flush=True)
    signal.pause()


def client(port, count):
    conns = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(count)]
    for c in conns:
        c.sendall(b"hello")
    print("all sent", flush=True)
    for c in conns:
        try:
            print("got", c.recv(10), flush=True)
        except OSError as e:
            print("got", errno.errorcode.get(e.errno, e), flush=True)


if sys.argv[1] == "server":
    server(int(sys.argv[2]))
else:
    client(int(sys.argv[2]), int(sys.argv[3]))
