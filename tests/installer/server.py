"""A release server on loopback: it serves the files of releases as the project's page does, well or badly.

It knows nothing of the installer. A case adds releases, and may give a path a misbehaviour: a list of answers that are
used up one after the other before the ordinary one is given. Times are seconds, sizes bytes.
"""

import hashlib
import http.server
import threading
import time

SYSTEMS = [f"{system}-{machine}" for system in ("linux", "darwin") for machine in ("amd64", "arm64")]


def agent(version, extra="", name="sindri-agent"):
    """A program that stands for the agent: all the installer knows of it is that it prints its version."""
    return f'#!/bin/sh\n{extra}\necho "{name} {version} (0123abc)"\n# {"x" * 20000}\n'.encode()


def checksum(content, name):
    return f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode()


class Server:
    """`files` maps paths to contents, `moved` to other addresses, `faults` to answers that come first."""

    def __init__(self):
        self.files, self.moved, self.faults, self.requests = {}, {}, {}, []
        self.news = threading.Condition()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with owner.news:
                    owner.requests.append(self.path)
                    owner.news.notify_all()
                pending = owner.faults.get(self.path)
                if pending:
                    fault = pending[0] if pending[0] is ALWAYS else pending.pop(0)
                    (pending[1] if fault is ALWAYS else fault)(self, owner.files.get(self.path, b""))
                elif self.path in owner.moved:
                    answer(self, 302, b"", [("Location", owner.moved[self.path])])
                elif self.path in owner.files:
                    answer(self, 200, owner.files[self.path])
                else:
                    answer(self, 404, b"not found\n")

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def release(self, version, content=None, name="sindri-agent"):
        """Publishes a version of a program for every system, and makes it the latest."""
        for asset in (f"{name}-{system}" for system in SYSTEMS):
            body = agent(version, name=name) if content is None else content
            self.files[f"/releases/download/v{version}/{asset}"] = body
            self.files[f"/releases/download/v{version}/{asset}.sha256"] = checksum(body, asset)
        self.files[f"/releases/tag/v{version}"] = b"<html>the page of the release</html>"
        self.moved["/releases/latest"] = f"{self.url}/releases/tag/v{version}"

    def asked(self, path, deadline_seconds):
        """Waits for a request; False when none came in time."""
        with self.news:
            return self.news.wait_for(lambda: path in self.requests, deadline_seconds)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


ALWAYS = object()


def answer(handler, status, body, headers=()):
    try:
        handler.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
    except OSError:
        pass  # who asked has gone


def status(number):
    return lambda handler, _: answer(handler, number, b"an error page\n")


def truncated(handler, body):
    """Half of what the header promised, and then the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def slow(handler, body):
    """A link of a few KB a second: everything arrives, in forty pieces."""
    dripping(handler, body, pieces=40, pause=0.03)


def stalled(handler, body):
    """The first piece, and then nothing while the client waits."""
    dripping(handler, body, pieces=2, pause=60)


def dripping(handler, body, pieces, pause):
    try:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        step = len(body) // pieces + 1
        for start in range(0, len(body), step):
            handler.wfile.write(body[start : start + step])
            handler.wfile.flush()
            time.sleep(pause)  # the pause is the slow link itself, no synchronisation
    except OSError:
        pass
