"""PORT SECONDS: a connection to echo.py that is idle for so long, and is then
used."""
import socket
import sys

a = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
a.sendall(b"before")
print(a.recv(100).decode())
# A close or an error would end the wait early.
a.settimeout(float(sys.argv[2]))
try:
    print("woken by", a.recv(100))
except TimeoutError:
    pass
a.settimeout(10)
a.sendall(b"after")
print(a.recv(100).decode())
