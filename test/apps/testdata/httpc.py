"""http.server and http.client: "server PORT DIR" serves files from threads;
"client PORT FILE SHA256" fetches one 20 times over one connection, and once
each over four new ones."""
import functools
import hashlib
import http.client
import http.server
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"


def server(port, directory):
    handler = functools.partial(Handler, directory=directory)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as s:
        print("listening", flush=True)
        s.serve_forever()


def get(conn, name, want):
    conn.request("GET", "/" + name)
    got = hashlib.sha256(conn.getresponse().read()).hexdigest()
    assert got == want, got


def client(port, name, want):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    conn.connect()
    sock = conn.sock
    for _ in range(20):
        get(conn, name, want)
    assert conn.sock is sock, "the connection did not last"
    for _ in range(4):
        get(http.client.HTTPConnection("127.0.0.1", port, timeout=30), name, want)
    print("24 bodies right")


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
