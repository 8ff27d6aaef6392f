"""TLS on sockets that are wrapped before they are anything: the listening
socket before bind and accept, the client's before connect.

"server PORT CERT KEY" echoes; "client PORT CERT" sends 4 MiB and compares."""
import hashlib
import socket
import ssl
import sys
import threading


def echo(conn):
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


def server(port, cert, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = context.wrap_socket(socket.socket(), server_side=True)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    print("listening", flush=True)
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=echo, args=(conn,), daemon=True).start()


def client(port, cert):
    context = ssl.create_default_context(cafile=cert)
    data = hashlib.shake_128(b"tls").digest(4 << 20)
    for blocking in (True, False):
        conn = context.wrap_socket(socket.socket(), server_hostname="localhost")
        conn.settimeout(None if blocking else 30)  # a timeout makes it non-blocking underneath
        conn.connect(("127.0.0.1", port))
        sender = threading.Thread(target=conn.sendall, args=(data,)) if blocking else None
        if sender:
            sender.start()
        else:
            conn.sendall(data[:16384])
        want = data if blocking else data[:16384]
        got = bytearray()
        while len(got) < len(want):
            piece = conn.recv(65536)
            assert piece, f"ended after {len(got)} bytes"
            got += piece
        if sender:
            sender.join()
        assert got == want
        print(conn.version(), len(got), "bytes right")
        conn.close()


{"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
