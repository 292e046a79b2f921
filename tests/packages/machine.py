"""A Debian machine that systemd boots in a container, for the tests of packages.

The base is made once by debootstrap, in target/packages, and is never changed: what a machine writes is lost at its
end. It shares the network of this machine, so that it reaches a console on loopback.
"""

import os
import shutil
import subprocess
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BASE = os.path.join(TOP, "target", "packages", "bookworm")
MIRROR = "http://deb.debian.org/debian"

# Longer than a boot takes on a busy machine, in seconds; it takes one.
BOOT_SECONDS = 120
# Between two looks at a machine that boots, in seconds.
LOOK_SECONDS = 0.1
# Longer than any step of a test takes, in seconds: the start, drain and stop of a service, or dpkg.
STEP_SECONDS = 120


class Unbootable(Exception):
    """No machine can be booted here; its text says why."""


def base():
    """The folder of the base; debootstrap makes it where it is missing."""
    if not os.path.exists(f"{BASE}/complete"):
        shutil.rmtree(BASE, ignore_errors=True)
        os.makedirs(BASE)
        command = ["debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus,man-db"]
        with open(f"{BASE}.log", "w", encoding="utf-8") as log:
            done = subprocess.run([*command, "bookworm", BASE, MIRROR], stdout=log, stderr=log, check=False)
        if done.returncode:
            raise Unbootable(f"debootstrap failed; see {BASE}.log")
        with open(f"{BASE}/complete", "w", encoding="utf-8"):
            pass
    return BASE


class Machine:
    """Boots at `with`; `shared` is a folder that the machine sees as /shared."""

    def __init__(self, shared, log):
        self.shared, self.log = shared, log

    def __enter__(self):
        if os.geteuid() or not shutil.which("systemd-nspawn") or not shutil.which("debootstrap"):
            raise Unbootable("only root can boot one, with debootstrap and systemd-nspawn")
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--volatile=overlay", "--boot"]
        command += ["--directory", base(), f"--bind-ro={self.shared}:/shared", "--machine=draupnir-packages"]
        with open(self.log, "w", encoding="utf-8") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self.container = subprocess.Popen(command, **options)
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.is_up():
            if self.container.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise Unbootable(f"no container of systemd can be booted here; see {self.log}")
            time.sleep(LOOK_SECONDS)
        return self

    def __exit__(self, *_):
        self.container.terminate()  # the machine halts
        try:
            self.container.wait(BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            self.container.kill()
            self.container.wait()

    def is_up(self):
        try:
            with open(f"/proc/{self.container.pid}/task/{self.container.pid}/children", encoding="ascii") as file:
                children = file.read().split()
        except FileNotFoundError:
            return False
        if not children:
            return False
        self.init = children[-1]
        return self.run("systemctl is-system-running --wait")[1].strip() in ("running", "degraded")

    def run(self, script):
        """Runs a script of bash as root in the machine; its exit status, and what it printed of both kinds."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["nsenter", "--target", self.init, "--all", "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=STEP_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout
