"""A place of its own for one run of the installer: a home, a PATH with nothing but what the case grants, a server.

It does not judge: it runs and returns what happened; the cases judge.
"""

import os
import shutil
import signal
import stat
import subprocess
import tempfile

from server import Server

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "extension", "install.sh")
DEADLINE_SECONDS = 60
ORDINARY = 65534

# All that the installer may use besides its shell, a downloader and a program for checksums.
TOOLS = """awk cat chmod cp dirname env grep head id ln ls mkdir mktemp mv od readlink rm sed sleep tail timeout tr
uname""".split()

# Under busybox everything else is busybox too, as on Alpine.
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}


class Outcome:
    def __init__(self, status, output):
        self.status, self.output = status, output


class Bench:
    def __init__(self, shell):
        self.shell = shell
        self.root = tempfile.mkdtemp(prefix="installer-")
        os.chmod(self.root, 0o755)
        self.home, self.bin, self.tools = (os.path.join(self.root, name) for name in ("home", "home/.local/bin", "tools"))
        os.makedirs(self.home)
        os.makedirs(self.tools)
        self.grant(*TOOLS, "sha256sum", "curl")
        self.fake("uname", 'case ${1:-} in -m) echo x86_64 ;; *) echo Linux ;; esac')
        self.server = Server()

    def close(self):
        self.server.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- what the run may use

    def grant(self, *names):
        """Puts real tools into the PATH of the run."""
        for name in names:
            own = self.shell == "busybox" and name not in ("bash", "curl", "openssl", "shasum", "perl")
            path = shutil.which("busybox" if own else name)
            if path is None:
                raise Missing(f"{name} is not installed")
            link = os.path.join(self.tools, name)
            if os.path.lexists(link):
                os.remove(link)
            os.symlink(path, link)

    def revoke(self, *names):
        for name in names:
            os.remove(os.path.join(self.tools, name))

    def fake(self, name, script):
        """Puts a shell script of ours into the PATH of the run."""
        path = os.path.join(self.tools, name)
        if os.path.lexists(path):
            os.remove(path)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)

    # --- the run

    def start(self, *arguments, piped=False, user=None, script=SCRIPT, under=(), **variables):
        """Starts the installer without a terminal, in a session of its own, under the shell with `set -u`.

        `under` is a command that starts the rest of its arguments.
        """
        environment = {"HOME": self.home, "PATH": self.tools, "TMPDIR": self.root, "DRAUPNIR_BASE_URL": self.server.url}
        environment.update(variables)
        environment = {name: value for name, value in environment.items() if value is not None}
        first, *rest = SHELLS[self.shell]
        program = shutil.which(first)
        if program is None:
            raise Missing(f"{first} is not installed")
        source = open(script, "rb") if piped else None
        command = [*under, program, *rest, "-u", *(["-s", "--"] if piped else [script]), *arguments]
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=source or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.root,
            start_new_session=True,
            user=user,
            text=True,
        )
        if source:
            source.close()
        return process

    def run(self, *arguments, **options):
        process = self.start(*arguments, **options)
        try:
            output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            return Outcome("timeout", output)
        return Outcome(process.returncode, output)

    def ordinary_user(self):
        """A user who is not root and may write into the home, None for this one; and what a run as that user needs."""
        if os.getuid() != 0:
            return None, {}
        for folder in ("home", "home/.sindri", "home/.local", "home/.local/bin"):
            path = os.path.join(self.root, folder)
            os.makedirs(path, exist_ok=True)
            os.chown(path, ORDINARY, ORDINARY)
        return ORDINARY, {"user": ORDINARY, "TMPDIR": self.home}

    def wait_for_request(self, path):
        """Returns when the server has been asked for this path."""
        if not self.server.asked(path, DEADLINE_SECONDS):
            raise AssertionError(f"no request came for {path}")

    # --- what is there afterwards

    def installed(self, name="sindri-agent"):
        """The content of an installed file; None if it is not there."""
        try:
            with open(os.path.join(self.bin, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def mode(self, path):
        return stat.S_IMODE(os.stat(path).st_mode)

    def leftovers(self):
        """Whatever lies about that is neither the program nor the version before it."""
        found = []
        for folder in (self.bin, self.root):
            if os.path.isdir(folder):
                found += [name for name in os.listdir(folder) if name not in KNOWN]
        return found


KNOWN = {"sindri-agent", "sindri-agent.previous", "draupnir", "draupnir.previous", "home", "tools", "root", "elsewhere"}


class Missing(Exception):
    """This machine lacks what the case needs."""
