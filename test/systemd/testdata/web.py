# web.py PORT: answers every line with it and how many connections there were.
import os
import socket
import sys
import threading

count = 0


def serve(conn):
    with conn:
        try:
            while line := conn.recv(4096):
                conn.sendall(b"%d " % count + line)
        except OSError:
            pass


s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1])))
s.listen()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as n:
    n.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
    n.send(b"READY=1\nSTATUS=" + open("/proc/self/cmdline", "rb").read().split(b"\0")[0])
while True:
    conn, _ = s.accept()
    count += 1
    threading.Thread(target=serve, args=(conn,), daemon=True).start()
