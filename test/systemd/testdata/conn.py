# conn.py PORT WORD [SECONDS]: one exchange, and its answer. With SECONDS the
# connection stays open as long, and then the exchange is made once more.
import socket
import sys
import time

port, word = int(sys.argv[1]), sys.argv[2].encode()
with socket.create_connection(("127.0.0.1", port), 20) as s:
    s.settimeout(20)
    s.sendall(word + b"\n")
    print(s.recv(4096).decode().strip(), flush=True)
    if len(sys.argv) > 3:
        time.sleep(float(sys.argv[3]))
        s.sendall(word + b"\n")
        print(s.recv(4096).decode().strip() or "end of file", flush=True)
