"""Stores 1,000 keys over four connections and reads them back by multi-get."""
import hashlib
import socket
import sys

KEYS = 1000


def value(i):
    return hashlib.sha256(str(i).encode()).hexdigest().encode() * (i % 60 + 1)


def main(port):
    conns = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(4)]
    files = [c.makefile("rwb") for c in conns]
    for i in range(KEYS):
        v = value(i)
        files[i % 4].write(b"set key%d 0 0 %d\r\n%s\r\n" % (i, len(v), v))
    for f in files:
        f.flush()
    stored = sum(files[i % 4].readline() == b"STORED\r\n" for i in range(KEYS))

    right = 0
    for n, f in enumerate(files):
        # Each connection asks for a quarter, of what another one stored.
        mine = [i for i in range(KEYS) if (i + 1) % 4 == n]
        f.write(b"get " + b" ".join(b"key%d" % i for i in mine) + b"\r\n")
        f.flush()
        for i in mine:
            size = int(f.readline().split()[3])
            right += f.read(size) == value(i)
            f.readline()
        assert f.readline() == b"END\r\n"

    files[0].write(b"stats\r\n")
    files[0].flush()
    items = next(l for l in iter(files[0].readline, b"END\r\n") if b" curr_items " in l)
    print(f"{stored} keys stored, {right} keys right, curr_items {int(items.split()[2])}")


main(int(sys.argv[1]))
