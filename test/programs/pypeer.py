#!/usr/bin/env python3
"""Python programs for the end-to-end tests: blocking sockets, and asyncio,
which registers with epoll only after connect.

pypeer.py listen-blocking HOST PORT      echo one connection, then exit
pypeer.py listen-asyncio HOST PORT       the same
pypeer.py connect-blocking HOST PORT N   send N bytes to an echo and compare
pypeer.py connect-asyncio HOST PORT N    the same
pypeer.py refused HOST PORT              tell how connect fails, twice
pypeer.py flood HOST PORT N              write without blocking until it stalls
pypeer.py listen-order HOST PORT N       accept N connections and tell their order
pypeer.py connect-order HOST PORT N      make N connections, each after the other
"""

import asyncio
import errno
import hashlib
import select
import socket
import sys
import threading
import time

CHUNK = 64 << 10


def payload(n):
    """Return n bytes that are the same in every run."""
    return hashlib.shake_128(b"poemq").digest(n)


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def listen_blocking(host, port):
    with socket.create_server((host, port), family=family(host)) as listener:
        conn, _ = listener.accept()
        with conn:
            while data := conn.recv(CHUNK):
                conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)


def connect_blocking(host, port, n):
    data = payload(n)
    with socket.create_connection((host, port)) as conn:

        def send():
            conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = b"".join(iter(lambda: conn.recv(CHUNK), b""))
        sender.join()
    compare(data, back)


async def listen_asyncio(host, port):
    ended = asyncio.Event()

    async def echo(reader, writer):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(echo, host, port):
        await ended.wait()


async def connect_asyncio(host, port, n):
    data = payload(n)
    reader, writer = await asyncio.open_connection(host, port)

    async def send():
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    back, _ = await asyncio.gather(reader.read(-1), send())
    writer.close()
    await writer.wait_closed()
    compare(data, back)


def compare(sent, back):
    if sent != back:
        sys.exit(f"sent {len(sent)} bytes, {len(back)} others came back")
    print("echoed", len(back))


def refused(host, port):
    """Print 'WAY ERRNO MILLISECONDS' for a blocking and a non-blocking connect."""
    with socket.socket(family(host), socket.SOCK_STREAM) as conn:
        start = time.monotonic()
        code = conn.connect_ex((host, port))
        tell("blocking", code, start)
    with socket.socket(family(host), socket.SOCK_STREAM) as conn:
        conn.setblocking(False)
        start = time.monotonic()
        code = conn.connect_ex((host, port))
        if code == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(conn, select.POLLOUT)
            if not poll.poll(10_000):
                sys.exit("the connect is still in progress after 10 s")
            code = conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        tell("nonblocking", code, start)


def tell(way, code, start):
    took = int((time.monotonic() - start) * 1000)
    print(way, errno.errorcode.get(code, code), took, flush=True)


def flood(host, port, limit):
    """Write without blocking, up to limit bytes or until nothing is taken for
    two seconds; then wait on standard input, and close."""
    block = payload(CHUNK)
    total, digest = 0, hashlib.sha256()
    with socket.create_connection((host, port)) as conn:
        conn.setblocking(False)
        poll = select.poll()
        poll.register(conn, select.POLLOUT)
        while total < limit and poll.poll(2000):
            try:
                sent = conn.send(block)
            except BlockingIOError:
                continue
            digest.update(block[:sent])
            total += sent
        print("accepted", total, digest.hexdigest(), flush=True)
        sys.stdin.readline()


def listen_order(host, port, n):
    """Each connection brings its number."""
    with socket.create_server((host, port), family=family(host), backlog=n) as listener:
        conns = [listener.accept()[0] for _ in range(n)]
        order = [int.from_bytes(conn.recv(4, socket.MSG_WAITALL), "big") for conn in conns]
        print("in order" if order == list(range(n)) else f"in the order {order}", flush=True)


def connect_order(host, port, n):
    conns = []
    for i in range(n):
        conns.append(socket.create_connection((host, port)))
        conns[-1].sendall(i.to_bytes(4, "big"))
    for conn in conns:
        conn.recv(1)  # it is closed when all have been accepted


def main():
    action, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    extra = [int(n) for n in sys.argv[4:]]
    act = globals()[action.replace("-", "_")]
    result = act(host, port, *extra)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


if __name__ == "__main__":
    main()
