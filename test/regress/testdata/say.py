"""PORT COUNT: COUNT connections one after the other, each says something and
prints the answer."""
import socket
import sys

for i in range(int(sys.argv[2])):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as s:
        s.sendall(b"hello %d" % i)
        print(s.recv(100).decode())
