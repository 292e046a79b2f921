"""A console on aiohttp, which shares no code with the agent: it answers, greets, and writes down what comes.

It judges nothing and keeps nothing; the test that starts it does. Every line on standard output is one JSON object with
the key `is`: `listening`, `registration`, `upgrade`, `text`, `binary`, `closed`. Lines on standard input are orders:

    {"do": "send", "frame": {...}}                      to the newest connection
    {"do": "close", "code": 1012, "reason": "restart"}  the newest connection
    {"do": "cut"}                                       the newest connection, without a close frame
    {"do": "quit"}

The end of standard input is the same as `quit`.
"""

import asyncio
import json
import sys

from aiohttp import WSMsgType, web

MESSAGE_BYTES_MAX = 100 << 20
GREETING = {"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": ["*"]}}


def say(what, **fields):
    """One line for the test."""
    print(json.dumps({"is": what, **fields}), flush=True)


class Console:
    def __init__(self):
        self.sockets = []
        self.transports = []

    async def register(self, request):
        """Gives out an id of its own, as the production console does."""
        body = await request.text()
        say("registration", path=request.path, headers=dict(request.headers), body=body)
        name = json.loads(body)["instance_id"]
        return web.json_response({"id": f"foreign-{name}", "name": name, "provider": "ssh"}, status=201)

    async def connect(self, request):
        """One WebSocket, until it is closed by either side."""
        number = len(self.sockets) + 1
        say("upgrade", connection=number, path=request.path, headers=dict(request.headers))
        socket = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX)
        await socket.prepare(request)
        self.sockets.append(socket)
        self.transports.append(request.transport)
        await socket.send_json(GREETING)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                say("text", connection=number, frame=json.loads(message.data))
            elif message.type == WSMsgType.BINARY:
                say("binary", connection=number, bytes=len(message.data))
        say("closed", connection=number, code=socket.close_code)
        return socket

    async def obey(self, reader):
        """Carries out orders until there are no more."""
        while line := await reader.readline():
            order = json.loads(line)
            if order["do"] == "send":
                await self.sockets[-1].send_json(order["frame"])
            elif order["do"] == "close":
                await self.sockets[-1].close(code=order["code"], message=order["reason"].encode())
            elif order["do"] == "cut":
                self.transports[-1].abort()
            else:
                return


async def main():
    console = Console()
    app = web.Application()
    app.router.add_post("/api/v1/instances/register", console.register)
    app.router.add_get("/ws/agent", console.connect)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    # A port to come back on, where one is given.
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    await web.TCPSite(runner, "127.0.0.1", port).start()
    say("listening", port=runner.addresses[0][1])
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await console.obey(reader)
    await runner.cleanup()


asyncio.run(main())
