"""A console on aiohttp in the caller's own process, over plain TCP or TLS, for the scripts that try a finished program.

It shares no code with the agent. It registers every agent, sends a first message, answers heartbeats as the
production console does, and keeps what arrives; the scripts check it. It never sleeps: a wait ends with its event or
at its deadline.
"""

import asyncio
import json
import os
import ssl
import subprocess
import time

from aiohttp import WSMsgType, web

GREETING = {"protocol_version": "1.0", "type": "log:subscribe", "payload": {"paths": ["*"]}}
KEY = "drp_loopback_2f9c41"
WAIT_SECONDS = 20


def certificate(folder, names):
    """An authority and a certificate for these names, good for a day; the paths of authority, certificate and key."""
    paths = [os.path.join(folder, name) for name in ("authority.pem", "certificate.pem", "key.pem")]
    authority_key, request = (os.path.join(folder, name) for name in ("authority.key", "request.pem"))
    extensions = os.path.join(folder, "extensions")
    with open(extensions, "w", encoding="utf-8") as file:
        file.write(f"subjectAltName={','.join(names)}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *curve, "-days", "1", "-subj", "/CN=loopback authority", "-keyout", authority_key, "-out", paths[0]],
        ["req", *curve, "-subj", "/CN=loopback console", "-keyout", paths[2], "-out", request],
        ["x509", "-req", "-in", request, "-CA", paths[0], "-CAkey", authority_key, "-CAcreateserial"]
        + ["-days", "1", "-extfile", extensions, "-out", paths[1]],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return paths


class Console:
    """`messages` holds (seconds, frame) in the order of arrival; `upgraded_at` the times of the connections."""

    def __init__(self):
        self.messages, self.registrations, self.upgraded_at, self.closed = [], [], [], []
        self.socket = None
        self.news = asyncio.Condition()

    async def start(self, certificate_paths=None, host="127.0.0.1"):
        app = web.Application()
        app.router.add_post("/api/v1/instances/register", self.register)
        app.router.add_get("/ws/agent", self.connect)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self.runner.setup()
        context = None
        if certificate_paths:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate_paths[1], certificate_paths[2])
        await web.TCPSite(self.runner, host, 0, ssl_context=context).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self):
        await self.runner.cleanup()

    async def register(self, request):
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        body = await request.json()
        async with self.news:
            self.registrations.append(body)
            self.news.notify_all()
        return web.json_response({"id": body["instance_id"], "name": body["instance_id"]}, status=201)

    async def connect(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.socket = socket
        async with self.news:
            self.upgraded_at.append(time.monotonic())
            self.news.notify_all()
        await socket.send_json(GREETING)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await self.hear(json.loads(message.data))
        async with self.news:
            self.closed.append(socket.close_code)
            self.news.notify_all()
        return socket

    async def hear(self, frame):
        if frame["type"] == "heartbeat":
            pong = {"protocolVersion": "1.0", "channel": "heartbeat", "type": "heartbeat:pong", "data": {"ok": True}}
            await self.socket.send_json({**pong, "ts": int(time.time() * 1000), "instanceId": frame["payload"]["instance_id"]})
        async with self.news:
            self.messages.append((time.monotonic(), frame))
            self.news.notify_all()

    async def send(self, kind, **payload):
        frame = {"protocol_version": "1.0", "type": kind, "payload": payload}
        if "session_id" in payload:
            frame["session_id"] = payload["session_id"]
        await self.socket.send_json(frame)

    async def wait(self, what, happened, seconds=WAIT_SECONDS):
        """Waits until `happened()` gives something, and returns it."""

        async def until():
            async with self.news:
                while not (result := happened()):
                    await self.news.wait()
                return result

        try:
            return await asyncio.wait_for(until(), seconds)
        except TimeoutError:
            raise AssertionError(f"no {what} within {seconds} s") from None

    def payloads(self, kind, **fields):
        """The payloads of the frames of this type that have these fields."""
        return [
            frame["payload"]
            for _, frame in self.messages
            if frame["type"] == kind and all(frame["payload"].get(name) == value for name, value in fields.items())
        ]

    async def frame(self, kind, **fields):
        """The first frame of this type with these fields; waits for it."""
        return (await self.wait(f"{kind} {fields}", lambda: self.payloads(kind, **fields)))[0]
