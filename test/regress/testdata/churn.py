"""Connections opened, used and closed, one after the other.

PORT: for each line "N" on standard input makes N of them to echo.py and prints
"done N". One process, so that what stays behind adds up.
"""
import socket
import sys

for line in iter(sys.stdin.readline, ""):
    for i in range(int(line)):
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as s:
            word = b"connection %d" % i
            s.sendall(word)
            assert s.recv(100) == word
            s.shutdown(socket.SHUT_WR)
            assert s.recv(100) == b""
    print("done", line.strip(), flush=True)
