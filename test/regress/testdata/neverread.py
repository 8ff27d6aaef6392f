"""A writer of up to 1 GB to a peer that does not read.

server PORT   accepts and reads nothing until a line comes in on its standard
              input; then reads to the end and prints count and checksum
client PORT   writes without blocking until nothing went in for two seconds,
              prints how much did; then once blocking with a send timeout; then
              waits for a line on its standard input, and ends
"""
import errno
import hashlib
import select
import socket
import struct
import sys

LIMIT = 1 << 30
PIECE = hashlib.shake_128(b"never").digest(1 << 16)


def server(port):
    listener = socket.create_server(("127.0.0.1", port))
    print("listening", flush=True)
    conn, _ = listener.accept()
    sys.stdin.readline()
    got, hash = 0, hashlib.sha256()
    while piece := conn.recv(1 << 16):
        got += len(piece)
        hash.update(piece)
    print("read", got, hash.hexdigest(), flush=True)


def client(port):
    conn = socket.create_connection(("127.0.0.1", port))
    conn.setblocking(False)
    sent, hash = 0, hashlib.sha256()
    waited = False  # not writable for long; the kernel may have some room yet
    while sent < LIMIT:
        try:
            n = conn.send(PIECE)
        except BlockingIOError as e:
            assert e.errno == errno.EAGAIN, e
            if waited:
                break
            waited = not select.select([], [conn], [], 2)[1]
            continue
        waited = False
        sent += n
        hash.update(PIECE[:n])
    conn.setblocking(True)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
    try:
        n = conn.send(PIECE)
        sent += n
        hash.update(PIECE[:n])
        name = "went in"
    except OSError as e:
        name = errno.errorcode[e.errno]
    print("sent", sent, hash.hexdigest(), "then", name, flush=True)
    sys.stdin.readline()
    conn.close()


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
