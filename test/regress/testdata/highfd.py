"""Sockets on high fd numbers.

server PORT ABOVE   listens and accepts there, echoes with poll and epoll
client PORT ABOVE   connects there, blocking and not
"""
import os
import resource
import select
import socket
import sys

resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
role, port, above = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
null = os.open("/dev/null", os.O_RDONLY)
while os.dup(null) < above:
    pass


def server():
    listener = socket.create_server(("127.0.0.1", port))
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    print("listening", listener.fileno() > above, flush=True)
    while poll.poll():
        conn, _ = listener.accept()
        print("accepted", conn.fileno() > above, flush=True)
        epoll = select.epoll()
        epoll.register(conn, select.EPOLLIN)
        while epoll.poll():
            data = conn.recv(65536)
            if not data:
                break
            conn.sendall(data)
        conn.close()
        epoll.close()


def client():
    for blocking in (True, False):
        conn = socket.socket()
        conn.setblocking(blocking)
        try:
            conn.connect(("127.0.0.1", port))
        except BlockingIOError:
            poll = select.poll()
            poll.register(conn, select.POLLOUT)
            poll.poll(10000)
            assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        conn.setblocking(True)
        conn.sendall(b"high")
        print(conn.fileno() > above, conn.getpeername()[1] == port, conn.recv(100))


server() if role == "server" else client()
