"""A refused connect: PORT has no listener. Prints errno and whether it came
within a second; then the program must be able to go on, to port OTHER."""
import errno
import select
import socket
import sys
import time

port, other = map(int, sys.argv[1:])


def report(what, begun, code):
    quick = time.monotonic() - begun < 1
    print(what, errno.errorcode.get(code, code), "at once" if quick else f"after {time.monotonic() - begun:.1f} s", flush=True)


for _ in range(2):
    s, begun = socket.socket(), time.monotonic()
    report("blocking", begun, s.connect_ex(("127.0.0.1", port)))
    s.close()

    s, begun = socket.socket(), time.monotonic()
    s.setblocking(False)
    code = s.connect_ex(("127.0.0.1", port))
    if code == errno.EINPROGRESS:
        assert select.select([], [s], [], 10)[1], "never writable"
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    report("non-blocking", begun, code)
    s.close()

s = socket.create_connection(("127.0.0.1", other), 5)
s.sendall(b"still here\n")
print("echo", s.recv(100))
