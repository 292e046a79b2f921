"""A console on a sans-I/O WebSocket library: the same JSON lines as tests/foreign/console.py, by another library.

    console.py websockets|wsproto [PORT]

HTTP is h11's. It judges nothing and keeps nothing; the suite that starts it does.
"""

import asyncio
import json
import sys

import h11
import websockets.frames
import websockets.http11
import websockets.protocol
import websockets.server
import wsproto
import wsproto.events

# Bytes: the longest message that an agent sends.
MESSAGE_BYTES_MAX = 100 << 20
GREETING = {"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": ["*"]}}


def say(what, **fields):
    """One line for the suite."""
    print(json.dumps({"is": what, **fields}), flush=True)


class Wsproto:
    """A connection by wsproto."""

    def __init__(self, head):
        self.connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self.text, self.path, self.headers = "", "", {}
        self.out = b""
        for kind, value in self.receive(head):
            if kind == "request":
                self.path, self.headers = value
        self.out = self.connection.send(wsproto.events.AcceptConnection())

    def receive(self, data):
        """What these bytes mean."""
        self.connection.receive_data(data)
        for event in self.connection.events():
            if isinstance(event, wsproto.events.Request):
                headers = {"Host": event.host}
                headers.update({name.decode(): value.decode() for name, value in event.extra_headers})
                yield "request", (event.target, headers)
            elif isinstance(event, wsproto.events.TextMessage):
                self.text += event.data
                if event.message_finished:
                    yield "text", self.text
                    self.text = ""
            elif isinstance(event, wsproto.events.BytesMessage):
                yield "binary", len(event.data)
            elif isinstance(event, wsproto.events.Ping):
                self.out += self.connection.send(event.response())
            elif isinstance(event, wsproto.events.CloseConnection):
                if self.connection.state is not wsproto.ConnectionState.CLOSED:
                    self.out += self.connection.send(event.response())
                yield "closed", event.code

    def send(self, text):
        """Queues a text message."""
        self.out += self.connection.send(wsproto.events.TextMessage(text))

    def close(self, code, reason):
        """Queues a close frame."""
        self.out += self.connection.send(wsproto.events.CloseConnection(code, reason))

    def take(self):
        """What must be written."""
        out, self.out = self.out, b""
        return out


class Websockets:
    """A connection by websockets."""

    def __init__(self, head):
        self.connection = websockets.server.ServerProtocol(max_size=MESSAGE_BYTES_MAX)
        self.connection.receive_data(head)
        request = next(iter(self.connection.events_received()))
        self.path, self.headers = request.path, dict(request.headers.raw_items())
        self.text = b""
        self.connection.send_response(self.connection.accept(request))

    def receive(self, data):
        """What these bytes mean."""
        self.connection.receive_data(data)
        for frame in self.connection.events_received():
            opcode = frame.opcode
            if opcode in (websockets.frames.Opcode.TEXT, websockets.frames.Opcode.CONT):
                self.text += frame.data
                if frame.fin:
                    yield "text", self.text.decode()
                    self.text = b""
            elif opcode is websockets.frames.Opcode.BINARY:
                yield "binary", len(frame.data)
            elif opcode is websockets.frames.Opcode.CLOSE:
                yield "closed", websockets.frames.Close.parse(frame.data).code

    def send(self, text):
        """Queues a text message."""
        self.connection.send_text(text.encode())

    def close(self, code, reason):
        """Queues a close frame."""
        self.connection.send_close(code, reason)

    def take(self):
        """What must be written."""
        return b"".join(self.connection.data_to_send())


class Console:
    """Registers agents and keeps their sockets."""

    def __init__(self, library):
        self.library = library
        self.links = []

    async def serve(self, reader, writer):
        """One connection: a registration, or a WebSocket."""
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            if head.startswith(b"POST "):
                await self.register(head, reader, writer)
            else:
                await self.connect(head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the agent, or an order, has cut it
        finally:
            writer.close()

    async def register(self, head, reader, writer):
        """Gives out an id of its own, as the production console does."""
        http = h11.Connection(h11.SERVER)
        http.receive_data(head)
        request = http.next_event()
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        headers = {name.decode(): value.decode() for name, value in request.headers.raw_items()}
        say("registration", path=request.target.decode(), headers=headers, body=body.decode())
        name = json.loads(body)["instance_id"]
        answer = json.dumps({"id": f"foreign-{name}", "name": name, "provider": "ssh"}).encode()
        fields = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
        writer.write(http.send(h11.Response(status_code=201, headers=fields)))
        writer.write(http.send(h11.Data(data=answer)) + http.send(h11.EndOfMessage()))
        await writer.drain()

    async def connect(self, head, reader, writer):
        """One WebSocket, until it is closed by either side."""
        link = self.library(head)
        self.links.append((link, writer))
        number = len(self.links)
        say("upgrade", connection=number, path=link.path, headers=link.headers)
        link.send(json.dumps(GREETING))
        writer.write(link.take())
        while data := await reader.read(65536):
            for kind, value in link.receive(data):
                if kind == "text":
                    say("text", connection=number, frame=json.loads(value))
                elif kind == "binary":
                    say("binary", connection=number, bytes=value)
                else:
                    say("closed", connection=number, code=value)
            writer.write(link.take())
            await writer.drain()

    async def obey(self, reader):
        """Carries out orders until there are no more."""
        while line := await reader.readline():
            order = json.loads(line)
            if order["do"] == "quit":
                return
            link, writer = self.links[-1]
            if order["do"] == "send":
                link.send(json.dumps(order["frame"]))
            elif order["do"] == "close":
                link.close(order["code"], order["reason"])
            elif order["do"] == "cut":
                writer.transport.abort()
                continue
            writer.write(link.take())


async def main(library, port):
    console = Console({"websockets": Websockets, "wsproto": Wsproto}[library])
    server = await asyncio.start_server(console.serve, "127.0.0.1", port)
    say("listening", port=server.sockets[0].getsockname()[1])
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await console.obey(reader)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
