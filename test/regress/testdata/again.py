"""EAGAIN stays EAGAIN, in every call that can give it.

server PORT   accepts (in the end) and neither reads nor writes
client PORT   the calls of a non-blocking and of a timed socket
"""
import errno
import select
import socket
import struct
import sys


def result(what, call):
    try:
        print(what, "ok", call(), flush=True)
    except OSError as e:
        print(what, errno.errorcode[e.errno], flush=True)


def timed(option, conn):
    conn.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, 200000))


def server(port):
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    result("accept", listener.accept)
    listener.setblocking(True)
    timed(socket.SO_RCVTIMEO, listener)
    result("accept SO_RCVTIMEO", listener.accept)
    print("listening", flush=True)
    select.select([listener], [], [])
    conn, _ = listener.accept()
    sys.stdin.readline()


def client(port):
    conn = socket.create_connection(("127.0.0.1", port))
    timed(socket.SO_RCVTIMEO, conn)
    timed(socket.SO_SNDTIMEO, conn)
    result("recv SO_RCVTIMEO", lambda: conn.recv(1))
    conn.setblocking(False)
    result("recv", lambda: conn.recv(1))
    result("recvmsg", lambda: conn.recvmsg(1))
    result("recv MSG_PEEK", lambda: conn.recv(1, socket.MSG_PEEK))
    piece = bytes(1 << 16)
    # Full is what does not become writable and still refuses: the kernel has
    # room left while it does not report POLLOUT.
    waited = False
    while True:
        try:
            conn.send(piece)
            waited = False
        except BlockingIOError:
            if waited:
                break
            waited = not select.select([], [conn], [], 1)[1]
    result("send", lambda: conn.send(piece))
    result("sendmsg", lambda: conn.sendmsg([piece, piece]))
    conn.setblocking(True)
    result("send MSG_DONTWAIT", lambda: conn.send(piece, socket.MSG_DONTWAIT))
    result("send SO_SNDTIMEO", lambda: conn.send(piece))


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]))
