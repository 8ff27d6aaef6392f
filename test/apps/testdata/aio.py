"""asyncio streams: "server PORT" echoes; "client PORT" has 50 conversations at
once, each of 100 lines, and one of 8 MiB with write_eof."""
import asyncio
import hashlib
import sys


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(port):
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


async def talk(port, who):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for i in range(100):
        line = b"%d says %d\n" % (who, i)
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
    writer.close()
    await writer.wait_closed()


async def bulk(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = hashlib.shake_128(b"poem").digest(8 << 20)

    async def send():
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    got = await reader.read(-1)
    await sending
    assert got == data, f"{len(got)} bytes came back"
    writer.close()


async def client(port):
    await asyncio.gather(bulk(port), *(talk(port, i) for i in range(50)))
    print("51 conversations right")


asyncio.run({"server": serve, "client": client}[sys.argv[1]](int(sys.argv[2])))
