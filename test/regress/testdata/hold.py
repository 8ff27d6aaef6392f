"""PORT: a connection to echo.py; says "before", and then each line of its
standard input, and prints the answers."""
import itertools
import socket
import sys

conn = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
for line in itertools.chain(["before\n"], iter(sys.stdin.readline, "")):
    conn.sendall(line.encode())
    print(conn.recv(100).decode(), end="", flush=True)
