"""Write and close at once: what was written must arrive, whole.

server PORT [hold]        a line "up SIZE" is answered by nothing, the data that
                          follows is counted; "down SIZE" is answered with SIZE
                          bytes and a close. With hold it accepts only after a
                          line on its standard input.
client PORT up|down SIZE  the other side; up exits as soon as it has closed.
"""
import hashlib
import socket
import sys


def data(size):
    return hashlib.shake_128(b"close").digest(size)


def count(conn):
    """Reads to the end; an error is not an end and ends the program."""
    got, hash = 0, hashlib.sha256()
    while piece := conn.recv(1 << 16):
        got += len(piece)
        hash.update(piece)
    return got, hash.hexdigest()


def verdict(way, size, got):
    whole = got == (size, hashlib.sha256(data(size)).hexdigest())
    print(way, size, "whole" if whole else f"damaged: {got[0]} bytes", flush=True)


def server(port, hold=""):
    listener = socket.create_server(("127.0.0.1", int(port)))
    print("listening", flush=True)
    if hold:
        sys.stdin.readline()
    while True:
        conn, _ = listener.accept()
        way, size = conn.recv(32, socket.MSG_WAITALL).split()
        if way == b"up":
            verdict("up", int(size), count(conn))
        else:
            conn.sendall(data(int(size)))
        conn.close()


def client(port, way, size):
    size = int(size)
    content = data(size)
    conn = socket.create_connection(("127.0.0.1", int(port)))
    conn.sendall(f"{way} {size}".ljust(32).encode())
    if way == "up":
        conn.sendall(content)
        conn.close()
    else:
        verdict("down", size, count(conn))


{"server": server, "client": client}[sys.argv[1]](*sys.argv[2:])
