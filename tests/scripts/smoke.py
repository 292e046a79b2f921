"""Tries a finished program: it registers, sends heartbeats and metrics, opens a terminal, runs a command, and drains.

    smoke.py PROGRAM [WORD…]            as it is; the words go before it (an emulator)
    smoke.py --empty-root PROGRAM       in a root with nothing but the program, /proc, /dev and resolv.conf, as root

In the empty root it resolves a name by a server of this script and speaks TLS. Without a shell there it must say so;
then the same again with a shell and nothing else. The last line is `N passed, N failed`, alone.
"""

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback

from loopback import KEY, Console, certificate

DRAIN_SECONDS = 6
NAME = "console.test"
RESOLVER = "127.9.9.9"


class Resolver:
    """A name server on loopback: every name is 127.0.0.1, and has no address of version 6."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The one before may linger for a moment in a child that has not closed what it inherited.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((RESOLVER, 53))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        # The thread is waiting for a query: this one, which has no name, ends it.
        self.socket.sendto(b"", (RESOLVER, 53))
        self.thread.join()
        self.socket.close()

    def serve(self):
        while True:
            query, asker = self.socket.recvfrom(512)
            if not query:
                return
            with contextlib.suppress(ValueError, OSError):
                end = query.index(b"\0", 12) + 5
                wanted = query[end - 4 : end - 2] == b"\0\1"
                header = query[:2] + b"\x85\x80\0\1" + (b"\0\1" if wanted else b"\0\0") + b"\0\0\0\0"
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\4\x7f\0\0\1" if wanted else b""
                self.socket.sendto(header + query[12:end] + answer, asker)


class Agent:
    """The program, running with a home of its own."""

    def __init__(self, command, url, folder, **variables):
        self.log = open(os.path.join(folder, "agent.log"), "w+", encoding="utf-8")
        environment = {
            "HOME": folder,
            "PATH": os.environ["PATH"],
            "SINDRI_CONSOLE_URL": url,
            "SINDRI_CONSOLE_API_KEY": KEY,
            "SINDRI_INSTANCE_ID": "smoke",
            "SINDRI_AGENT_HEARTBEAT": "1",
            "SINDRI_AGENT_METRICS": "1",
            **variables,
        }
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=self.log)

    def drain(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DRAIN_SECONDS)
        assert status == 0, f"exit status {status}"

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        assert KEY not in text, "the key is in the log"
        return text


def architecture(program):
    """What the program was made for, from its ELF header: it must say the same of itself."""
    with open(program, "rb") as file:
        return {0x3E: "amd64", 0xB7: "arm64"}[int.from_bytes(file.read(20)[18:], "little")]


async def story(console, agent, arch, shell):
    """What every build must be able to do; `shell` says whether there is one."""
    await console.wait("registration", lambda: console.registrations)
    registration = await console.frame("registration")
    assert registration["arch"] == arch, registration
    await console.frame("heartbeat")
    metrics = await console.frame("metrics")
    assert metrics["memory"]["total_bytes"] > 0, metrics
    await console.wait("second heartbeat", lambda: len(console.payloads("heartbeat")) >= 2)

    await console.send("terminal:create", session_id="smoke-1", cols=80, rows=24, shell="/bin/sh")
    if shell:
        line = base64.b64encode(b"echo one-$((40+2))-two; exit 7\n").decode()
        await console.send("terminal:input", session_id="smoke-1", data=line)
    closed = await console.frame("terminal:closed", session_id="smoke-1")
    output = b"".join(base64.b64decode(payload["data"]) for payload in console.payloads("terminal:output"))
    if shell:
        assert b"one-42-two" in output, output
        assert closed["exit_code"] == 7, closed
    else:
        assert closed["exit_code"] in (126, 127) and closed.get("reason") and b"/bin/sh" in output, (closed, output)

    await console.send("command:dispatch", command_id="smoke-2", command="echo $((6*7)); exit 3", timeout_ms=10000)
    result = await console.frame("command:result", command_id="smoke-2")
    if shell:
        assert (result["stdout"], result["exit_code"]) == ("42\n", 3), result
    else:
        assert result["exit_code"] in (126, 127) and result["stderr"], result

    await asyncio.to_thread(agent.drain)
    await console.wait("close", lambda: console.closed)
    assert console.closed[-1] == 1000, console.closed


async def run_story(command, arch, shell, certificate_paths=None, host="127.0.0.1", folder=None, **variables):
    console = Console()
    await console.start(certificate_paths)
    scheme = "https" if certificate_paths else "http"
    agent = Agent(command, f"{scheme}://{host}:{console.port}", folder, **variables)
    try:
        await story(console, agent, arch, shell)
    except Exception:
        print(f"--- the agent's log\n{agent.close()}\n---")
        raise
    finally:
        agent.process.poll() is None and agent.process.kill()
        await console.stop()
    agent.close()


def plain(command):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_story(command, architecture(command[-1]), shell=True, folder=folder))


def version(command):
    printed = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.match(r"sindri-agent \d+\.\d+\.\d+( \([0-9a-f]{12}\))?\n$", printed), printed


def empty_root(program, shell):
    """A mount namespace of its own, whose root holds what is named here."""
    with tempfile.TemporaryDirectory() as folder, Resolver():
        paths = certificate(folder, [f"DNS:{NAME}"])
        root = os.path.join(folder, "root")
        for name in ("proc", "dev", "etc"):
            os.makedirs(os.path.join(root, name))
        shutil.copy(program, os.path.join(root, "sindri-agent"))
        shutil.copy(paths[0], os.path.join(root, "etc", "authority.pem"))
        with open(os.path.join(root, "etc", "resolv.conf"), "w", encoding="utf-8") as file:
            file.write(f"nameserver {RESOLVER}\n")
        if shell:
            copy_with_libraries(shutil.which("dash"), root, "bin/sh")
        script = 'mount --rbind /proc "$0/proc"; mount --rbind /dev "$0/dev"; exec chroot "$0" /sindri-agent "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, root]
        variables = {"SINDRI_AGENT_CA_FILE": "/etc/authority.pem", "HOME": "/", "SHELL": ""}
        asyncio.run(run_story(command, architecture(program), shell, paths, host=NAME, folder=folder, **variables))


def copy_with_libraries(program, root, name):
    os.makedirs(os.path.dirname(os.path.join(root, name)))
    shutil.copy(program, os.path.join(root, name))
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        os.makedirs(root + os.path.dirname(library), exist_ok=True)
        shutil.copy(library, root + library)


def main(arguments):
    if arguments[:1] == ["--empty-root"]:
        program = arguments[1]
        cases = {
            "empty root, no shell": lambda: empty_root(program, shell=False),
            "empty root, a shell": lambda: empty_root(program, shell=True),
        }
    else:
        program, *words = arguments
        command = [*words, program]
        cases = {"version": lambda: version(command), "story": lambda: plain(command)}
    failed = 0
    for name, case in cases.items():
        try:
            case()
            print(f"ok      {name}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
