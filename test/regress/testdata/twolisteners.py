"""Two listeners in one process, each with a thread blocked in accept.

server PORT PORT   answers with the port it accepted on
client PORT PORT   connects in both orders, many times
"""
import socket
import sys
import threading

ports = [int(p) for p in sys.argv[2:]]


def accept(listener):
    while True:
        conn, _ = listener.accept()
        conn.sendall(b"%d" % conn.getsockname()[1])
        conn.close()


def server():
    listeners = [socket.create_server(("127.0.0.1", p)) for p in ports]
    threads = [threading.Thread(target=accept, args=(l,)) for l in listeners]
    for t in threads:
        t.start()
    print("listening", flush=True)


def client():
    right = 0
    for order in (ports[::-1], ports) * 10:
        for port in order:
            with socket.create_connection(("127.0.0.1", port), 10) as s:
                right += s.recv(100) == b"%d" % port
    print(right, "right")


{"server": server, "client": client}[sys.argv[1]]()
