# talk.py PORT TIMES: exchanges of random lengths with server.py, all compared.
import random
import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as s:
    for _ in range(int(sys.argv[2])):
        sent = random.randbytes(random.randint(1, 60000))
        s.sendall(sent)
        got = b""
        while len(got) < len(sent):
            data = s.recv(65536)
            if not data:
                sys.exit("end of file in the middle")
            got += data
        if got != sent:
            sys.exit("other bytes came back")
print("right")
