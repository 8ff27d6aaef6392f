# server.py HOW PORT [ADDRESS]: an echo server that tells of each connection. HOW is
# "blocking" (accept in threads that wait) or "epoll".
import errno
import selectors
import socket
import sys
import threading
import time

how, port = sys.argv[1], int(sys.argv[2])


def say(*words):
    print(*words, flush=True)


def serve(conn):
    with conn:
        try:
            while data := conn.recv(65536):
                conn.sendall(data)
            say("ended eof")
        except OSError as e:
            say("ended", e.errno, e.strerror)


def accepts(listener):
    while True:
        conn, _ = listener.accept()
        say("accepted")
        threading.Thread(target=serve, args=(conn,), daemon=True).start()


s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1", port))
s.listen(64)
say("listening")
if how == "blocking":
    for _ in range(3):
        threading.Thread(target=accepts, args=(s,), daemon=True).start()
    accepts(s)
s.setblocking(False)
sel = selectors.EpollSelector()
sel.register(s, selectors.EVENT_READ)
while True:
    sel.select()
    while True:
        try:
            conn, _ = s.accept()
        except BlockingIOError:
            break
        except OSError as e:
            if e.errno != errno.ENFILE:
                raise
            time.sleep(0.1)  # as servers do that have met a limit
            break
        conn.setblocking(True)
        say("accepted")
        threading.Thread(target=serve, args=(conn,), daemon=True).start()
