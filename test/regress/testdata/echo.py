"""An echo server in many shapes: PORT [NAME]. Each answer is preceded by NAME.
Prints the listening socket's fd number."""
import socket
import sys
import threading


def serve(conn, name):
    with conn:
        while data := conn.recv(65536):
            conn.sendall(name + data)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
name = sys.argv[2].encode() if len(sys.argv) > 2 else b""
print("listening on fd", listener.fileno(), flush=True)
while True:
    conn, _ = listener.accept()
    threading.Thread(target=serve, args=(conn, name), daemon=True).start()
