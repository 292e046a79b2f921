"""Plays Sindri's part on an instance: installs the extension, starts, checks, stops and removes the agent.

As observed in 2026-05: the service framework runs `bash -c COMMAND` and keeps PID and log; the registry's hook starts
the agent by one nohup line; a stop is SIGTERM and, 10 s later, SIGKILL; the registry's removal knows the name
`draupnir` alone. The home directory is a temporary one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import psutil

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "installer"))
from server import Server  # noqa: E402

# How often something that must happen soon is looked for.
POLL_SECONDS = 0.02

HOOK = "nohup ~/.local/bin/draupnir > ~/.sindri/logs/draupnir.log 2>&1 & echo $! > ~/.sindri/draupnir.pid"


def alive(pid):
    """Whether a process runs; one that only waits for its parent to notice its end does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def within(seconds, happened):
    """Whether `happened()` becomes true in this time."""
    deadline = time.monotonic() + seconds
    while not (result := happened()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return result


class Instance:
    """One instance; `pids` are all processes that were noted in the pidfile."""

    def __init__(self, program, version, **variables):
        self.home = tempfile.mkdtemp(prefix="instance-")
        self.pids, self.started = [], []
        self.server = Server()
        with open(program, "rb") as file:
            self.server.release(version, file.read())
        with open(os.path.join(TOP, "extension", "install.sh"), "rb") as file:
            self.server.files["/extension/install.sh"] = file.read()
        for folder in (".sindri/logs", ".local/bin"):
            os.makedirs(os.path.join(self.home, folder))
        path = f"{self.home}/.local/bin:{os.environ['PATH']}"
        self.environment = {"HOME": self.home, "PATH": path, "DRAUPNIR_BASE_URL": self.server.url, **variables}

    def close(self):
        for pid in self.pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        for process in self.started:
            process.wait()
        self.server.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.home, name)

    def shell(self, command, cwd=None):
        """What `bash -c` answers, with the output of both kinds."""
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    def log(self):
        with open(self.path(".sindri/logs/draupnir.log"), encoding="utf-8") as file:
            return file.read()

    def noted_pid(self):
        with open(self.path(".sindri/draupnir.pid"), encoding="ascii") as file:
            pid = int(file.read())
        self.pids.append(pid)
        return pid

    # --- what Sindri does

    def install(self, version):
        """The registry's script: the one of the branch `main`, piped into bash, the version in the environment."""
        script = f"curl -fsSL {self.server.url}/extension/install.sh | bash"
        return self.shell(f"set -euo pipefail; export DRAUPNIR_VERSION={version}; {script}")

    def configure(self, settings, port):
        """The extension's variables for the whole instance, where their conditions hold; `port` stands for theirs."""
        for variable in settings["environment"]:
            name, unwanted = re.fullmatch(r"\{\{ env\.(\w+) != '(\w+)' \}\}", variable["condition"]).groups()
            if self.environment.get(name) != unwanted:
                self.environment[variable["key"]] = variable["value"].replace(":9090/", f":{port}/")

    def start_service(self, service):
        """The service framework at a boot; the PID, or None where a variable is missing."""
        if any(not self.environment.get(name) for name in service["requires-env"]):
            return None
        start = service["start"]
        with open(os.path.expanduser(start["logfile"]).replace(os.path.expanduser("~"), self.home), "ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", start["command"]],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        with open(self.path(".sindri/draupnir.pid"), "w", encoding="ascii") as file:
            file.write(str(process.pid))
        self.started.append(process)
        return self.noted_pid()

    def ready(self, service):
        readiness = service["readiness"]
        return within(readiness["timeout"], lambda: self.shell(readiness["check"])[0] == 0)

    def run_hook(self):
        """The registry's hook; the PID that it noted."""
        status, output = self.shell(HOOK)
        assert status == 0, output
        return self.noted_pid()

    def stop(self, timeout_seconds=10):
        """SIGTERM, and SIGKILL where that does not help in time; whether SIGTERM was enough."""
        pid = self.noted_pid()
        os.kill(pid, signal.SIGTERM)
        in_time = within(timeout_seconds, lambda: not alive(pid))
        if not in_time:
            os.kill(pid, signal.SIGKILL)
        os.remove(self.path(".sindri/draupnir.pid"))
        return in_time

    def remove_as_registry(self):
        """The registry's removal: a stop by the pidfile, and the files that it knows of."""
        in_time = self.stop()
        for name in (".local/bin/draupnir", ".sindri/logs/draupnir.log"):
            os.remove(self.path(name))
        return in_time
