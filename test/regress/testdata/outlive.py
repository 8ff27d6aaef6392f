"""Established connections live on when their listener is closed.

server PORT   accepts three, closes the listener, echoes a round; opens a new
              listener on the same port while they live, accepts one more, and
              echoes another round to all four
client PORT   the other side
"""
import socket
import sys


def echo(conns):
    for c in conns:
        c.sendall(c.recv(100, socket.MSG_WAITALL).upper())


def server(port):
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", flush=True)
    conns = [listener.accept()[0] for _ in range(3)]
    listener.close()
    print("closed", flush=True)
    echo(conns)
    sys.stdin.readline()
    listener = socket.create_server(("127.0.0.1", port))
    print("again", flush=True)
    conns.append(listener.accept()[0])
    listener.close()
    echo(conns)


def round(conns, word):
    for c in conns:
        c.sendall(word.ljust(100).encode())
    return [c.recv(100, socket.MSG_WAITALL).decode().strip() for c in conns]


def client(port):
    address = ("127.0.0.1", port)
    conns = [socket.create_connection(address, 20) for _ in range(3)]
    print(round(conns, "first"), flush=True)
    try:
        socket.create_connection(address, 20)
        print("connected to a closed listener", flush=True)
    except ConnectionRefusedError:
        print("refused", flush=True)
    sys.stdin.readline()
    conns.append(socket.create_connection(address, 20))
    print(round(conns, "second"), flush=True)
    print([c.recv(1) for c in conns], flush=True)


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
