"""What the suites of the conformance board share: programs followed line by line, the agent, a foreign console.

Every wait has a deadline and ends with the event that it waits for; no wait sleeps. A suite reports each case to its
`Suite`, which holds what the table shows.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PYTHON = sys.executable
KEY = "drp_test_conformance_51c7e2aa"
INSTANCE = "conformance"

# Seconds. The longest wait for an event: the agent notices a silent console within 20 s, and retries within 30 s.
WAIT_MAX = 60
# Seconds. The drain ends 4 s after SIGTERM at the latest; the rest is for a loaded machine.
DRAIN_MAX = 10


class NotInstalled(Exception):
    """A suite cannot run on this machine; the text says what is missing."""


class Failed(Exception):
    """A case did not end as it should."""


class Suite:
    """One row of the table, with the cases behind it."""

    def __init__(self, name, version):
        self.name, self.version = name, version
        self.passed, self.failed, self.excused = [], {}, {}
        self.missing = None

    @contextlib.contextmanager
    def case(self, name):
        """Passed where the block ends, failed where it raises."""
        try:
            yield
        except Exception as error:  # pylint: disable=broad-exception-caught
            self.failed[name] = "".join(traceback.format_exception(error))
        else:
            self.passed.append(name)


def need(*programs):
    """The paths of these programs."""
    found = [shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") for program in programs]
    missing = [program for program, path in zip(programs, found) if path is None]
    if missing:
        raise NotInstalled(f"{', '.join(missing)} not installed")
    return found


def version_of(*command):
    """The first number with a dot that a program prints about itself."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(?<![\w.])\d+\.\d[\w.+~-]*", done.stdout + done.stderr)
    return found.group() if found else "?"


def version_of_package(name):
    """The version of a package of Debian."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", name]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout or "?"
    return "?"


def free_port():
    """A port that was free a moment ago, for programs that do not accept port 0."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port, process=None):
    """Waits until something listens on this port of loopback."""
    end = time.monotonic() + WAIT_MAX
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise Failed(f"{process.args[0]} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)  # nothing reports a listening socket
    raise Failed(f"nothing listens on port {port}")


class Server:
    """A program between agent and console, with a free port and a folder of its own. A subclass sets its command."""

    command: list[str]

    def __init__(self, mode):
        self.port, self.place = free_port(), pathlib.Path(tempfile.mkdtemp(prefix="draupnir-server-"))
        self.place.chmod(mode)  # its workers are not root

    def start(self):
        """Starts it, in a group of its own, and waits until it listens."""
        with open(self.place / "output", "ab") as output:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "HOME": str(self.place)},
            )
        try:
            wait_for_port(self.port, self.process)
        except Exception as error:
            raise RuntimeError((self.place / "output").read_text() + self.errors()) from error

    def errors(self):
        """What it wrote to its own log."""
        log = self.place / "error.log"
        return log.read_text() if log.exists() else ""

    def kill(self):
        """Ends it and all its workers at once, as a machine that dies does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        (self.place / "pid").unlink(missing_ok=True)

    def restart(self):
        """Kills it and starts it again."""
        self.kill()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)


class Lines:
    """The lines that a program prints, each one JSON object; other lines are kept as text."""

    def __init__(self, stream):
        self.lines, self.changed, self.is_over = [], threading.Condition(), False
        threading.Thread(target=self._follow, args=(stream,), daemon=True).start()

    def _follow(self, stream):
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            with self.changed:
                self.lines.append(line if isinstance(line, dict) else {"text": text.rstrip("\n")})
                self.changed.notify_all()
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def wait(self, is_it, what, seconds=WAIT_MAX, after=0):
        """The first line from number `after` on for which `is_it` holds."""
        end, seen = time.monotonic() + seconds, after
        with self.changed:
            while True:
                for line in self.lines[seen:]:
                    seen += 1
                    if is_it(line):
                        return line
                left = end - time.monotonic()
                if left <= 0 or (self.is_over and seen == len(self.lines)):
                    raise Failed(f"no {what}; the last lines:\n{self.text(12)}")
                self.changed.wait(left)

    def count(self, is_it):
        """How many lines there are so far for which `is_it` holds."""
        with self.changed:
            return sum(1 for line in self.lines if is_it(line))

    def text(self, last=0):
        """The lines as text, or the last of them."""
        return "\n".join(json.dumps(line)[:400] for line in self.lines[-last:])


def end(process, kind=signal.SIGKILL):
    """Ends a program and waits for it."""
    if process.poll() is None:
        process.send_signal(kind)
    try:
        return process.wait(DRAIN_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise Failed(f"{process.args[0]} does not end") from None


class Agent:
    """The real agent with a clean environment and its own home; it is killed when its block ends."""

    def __init__(self, url, prefix=(), home=None, program=None, **environment):
        self.home = home or tempfile.mkdtemp(prefix="draupnir-conformance-")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": self.home,
            "SINDRI_AGENT_STATE_DIR": f"{self.home}/state",
            "SINDRI_CONSOLE_URL": url,
            "SINDRI_CONSOLE_API_KEY": KEY,
            "SINDRI_INSTANCE_ID": INSTANCE,
            "SINDRI_AGENT_HEARTBEAT": "0.2",
            "SINDRI_LLM_ADAPTER": "none",
            "SINDRI_LOG_LEVEL": "debug",
            **{name: value for name, value in os.environ.items() if name in ("ASAN_OPTIONS", "TSAN_OPTIONS")},
            **environment,
        }
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*prefix, program or os.environ["DRAUPNIR_AGENT"]],
            env=self.environment,
            cwd=self.home,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.log = Lines(self.process.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)
        shutil.rmtree(self.home, ignore_errors=True)

    def wait_log(self, *words, seconds=WAIT_MAX, after=0):
        """The first log line whose fields contain all of these words."""

        def holds(line):
            text = json.dumps(line, ensure_ascii=False)
            return all(word in text for word in words)

        return self.log.wait(holds, f"log line with {words}", seconds, after)

    def drain(self):
        """SIGTERM, and exit status 0 within the time of the drain. The key is in no log line."""
        status = end(self.process, signal.SIGTERM)
        if status != 0:
            raise Failed(f"exit status {status}")
        if KEY in self.log.text():
            raise Failed("the log holds the key")


class Console:
    """A console in a process of its own that speaks JSON lines (tests/foreign/console.py says which)."""

    def __init__(self, command, port=None, env=None):
        self.command, self.env = command, env
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [*command, *([str(port)] if port else [])],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.lines = Lines(self.process.stdout)
        self.port = self.wait("listening")["port"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def wait(self, what, seconds=WAIT_MAX, **fields):
        """The first line of this kind with these fields."""

        def is_it(line):
            return line.get("is") == what and all(line.get(name) == value for name, value in fields.items())

        return self.lines.wait(is_it, f"{what} {fields}", seconds)

    def frame(self, connection, kind, seconds=WAIT_MAX, **payload):
        """The payload of the first frame of this type on this connection whose payload has these fields."""

        def is_it(line):
            frame = line.get("frame", {})
            fields = frame.get("payload", {})
            is_kind = line.get("connection") == connection and frame.get("type") == kind
            return is_kind and all(fields.get(name) == value for name, value in payload.items())

        return self.lines.wait(is_it, f"{kind} on connection {connection}", seconds)["frame"]["payload"]

    def order(self, what, **fields):
        """Gives an order."""
        self.process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
        self.process.stdin.flush()

    def send(self, kind, payload, **fields):
        """Sends a frame on the newest connection."""
        self.order("send", frame={"protocol_version": "1.0", "type": kind, **fields, "payload": payload})

    def connections(self):
        """How many WebSockets there were."""
        return self.lines.count(lambda line: line.get("is") == "upgrade")

    def run(self, command, connection, identity):
        """Runs a command, and returns its result as it came on this connection."""
        self.send("command:dispatch", {"command_id": identity, "command": command})
        return self.frame(connection, "command:result", command_id=identity)


def check(is_so, what):
    """Fails the case unless it is so."""
    if not is_so:
        raise Failed(str(what))


def same(found, expected, what):
    """Fails the case unless both are equal."""
    if found != expected:
        raise Failed(f"{what}: {found!r}, expected {expected!r}")
