"""SHUT_WR, and then a reply: the other direction stays open and whole.

server PORT   reads to the end, then answers with SHA-256 and 1 MB
client PORT   sends 1 MB, shuts down, reads all of it; twice, the second time
              with the server shutting down first
"""
import hashlib
import socket
import sys

DATA = hashlib.shake_128(b"half").digest(1_000_000)


def read_all(conn):
    return b"".join(iter(lambda: conn.recv(65536), b""))


def server(port):
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", flush=True)
    conn, _ = listener.accept()
    conn.sendall(hashlib.sha256(read_all(conn)).digest() + DATA)
    conn.close()
    conn, _ = listener.accept()
    conn.sendall(DATA)
    conn.shutdown(socket.SHUT_WR)
    print("second", hashlib.sha256(read_all(conn)).hexdigest() == hashlib.sha256(DATA).hexdigest(), flush=True)


def client(port):
    conn = socket.create_connection(("127.0.0.1", port))
    conn.sendall(DATA)
    conn.shutdown(socket.SHUT_WR)
    try:
        conn.send(b"more")
        print("a write after SHUT_WR went through")
    except BrokenPipeError:
        print("EPIPE after SHUT_WR")
    print("first", read_all(conn) == hashlib.sha256(DATA).digest() + DATA)
    conn = socket.create_connection(("127.0.0.1", port))
    print("end seen", read_all(conn) == DATA)
    conn.sendall(DATA)
    conn.close()


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
