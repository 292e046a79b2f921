"""Runs the agent for minutes or hours under random faults: nothing is lost, every cut is reported, nothing grows.

    soak.py --minutes N [--seed S]

Between two samples there is a round: commands and terminals, then a cut, a close, a silence, or a kill of the agent.
Work that the agent has received before the fault must come to its end after it.
"""

import argparse
import os
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import time

import story
from rig import HERE, PYTHON, Agent, Console, Failed, check, same

# KiB that the median of the last third of the samples may lie above that of the second third. Pages that the allocator
# keeps for the next burst move by some hundred KiB; a leak of a hundred bytes a message exceeds this within hours.
GROWTH_MAX_KIB = 1024

# So many samples and no more are of an agent whose results of past commands still fill their bounded memory, and whose
# C library still adds to its arenas: glibc's rose by 2.8 MiB in 22 samples.
WARM_UP_SAMPLES = 60
WARM_UP_MAX_KIB = 4096

# How far the number of descriptors or threads may rise between the same thirds: a look-up or a file that was just open.
RISE_MAX = 2

# Faults by how often they come. A silence takes 20 s.
FAULTS = {"cut": 8, "close": 4, "silence": 1, "kill": 2}


class Soak:
    """One agent after another at one console."""

    def __init__(self, console, home, seed):
        self.console, self.home, self.random = console, home, random.Random(seed)
        self.number = self.connection = self.cuts = self.kills = self.works = 0
        self.samples, self.results, self.repeats = [], {}, 0
        self.start()

    def start(self):
        """Starts an agent on the state of the one before."""
        self.agent = Agent(f"http://127.0.0.1:{self.console.port}", home=self.home)
        self.connected()

    def connected(self):
        """Waits for the next connection."""
        self.connection += 1
        self.console.wait("upgrade", connection=self.connection)
        self.console.frame(self.connection, "heartbeat")

    def round(self):
        """Work, with a fault in its middle."""
        self.number += 1
        name = f"r{self.number}"
        long = f"while [ ! -e {self.home}/{name} ]; do sleep 0.1; done; echo {name}"
        fault = self.random.choices(list(FAULTS), list(FAULTS.values()))[0]
        for part in range(self.random.randrange(1, 5)):
            size = self.random.choice([1, 1000, 200_000])
            result = self.console.run(f"head -c {size} /dev/zero | tr '\\0' x", self.connection, f"{name}-{part}")
            same(len(result["stdout"]), size, "the length of a result")
            self.works += 1
        session = f"{name}-terminal"
        story.terminal(self.console, self.connection, session, "seq 2000; exit 4\r", b"\r\n2000\r\n", 4)
        if fault != "kill":
            self.console.send("command:dispatch", {"command_id": name, "command": long})
        self.console.run("true", self.connection, f"{name}-received")
        getattr(self, fault)()
        pathlib.Path(self.home, name).touch()
        if fault != "kill":
            same(self.console.frame(self.connection, "command:result", command_id=name)["stdout"], f"{name}\n", name)
            pathlib.Path(self.home, name).unlink()
        self.works += 3
        self.sample()

    def cut(self):
        """The link breaks."""
        self.console.order("cut")
        self.lost()

    def close(self):
        """The console closes the link."""
        self.console.order("close", code=1012, reason="restart")
        self.lost()

    def silence(self):
        """The console stands still until the agent has noticed."""
        before = len(self.agent.log.lines)
        os.kill(self.console.process.pid, signal.SIGSTOP)
        try:
            self.agent.wait_log("PongTimeout", after=before)
        finally:
            os.kill(self.console.process.pid, signal.SIGCONT)
        self.lost()

    def lost(self):
        """Connected again, and the console gets the cause of the loss."""
        self.cuts += 1
        self.connected()
        event = self.console.frame(self.connection, "event", event_type="disconnect")
        check(event["metadata"].get("cause"), event)

    def kill(self):
        """The agent dies and is started again; all samples are of the last agent."""
        self.kills += 1
        self.agent.process.kill()
        self.agent.process.wait()
        self.samples.clear()
        self.start()

    def sample(self):
        """What the agent holds: memory in KiB, descriptors, threads."""
        place = pathlib.Path("/proc", str(self.agent.process.pid))
        fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        memory, threads = int(fields["VmRSS"].split()[0]), int(fields["Threads"])
        self.samples.append((memory, len(list((place / "fd").iterdir())), threads))

    def judge(self):
        """What came again was the same, and nothing has grown."""
        for line in self.console.lines.lines:
            frame = line.get("frame", {})
            if frame.get("type") == "command:result":
                # A result is sent again where the link broke before a Pong acknowledged it.
                payload = frame["payload"]
                first = self.results.setdefault(payload["command_id"], payload)
                same(payload["stdout"], first["stdout"], "a result that came again")
                self.repeats += first is not payload
        third = len(self.samples) // 3
        growth = GROWTH_MAX_KIB if len(self.samples) > WARM_UP_SAMPLES else WARM_UP_MAX_KIB
        if third == 0:
            raise Failed("too few rounds since the last kill to see a slope")
        for column, (what, allowed) in enumerate(
            [("memory", growth), ("descriptors", RISE_MAX), ("threads", RISE_MAX)]
        ):
            values = [sample[column] for sample in self.samples]
            before, after = (statistics.median(part) for part in (values[third : 2 * third], values[2 * third :]))
            print(f"{what}: {before:.0f}, then {after:.0f}, most {max(values)} in {len(values)} samples")
            check(after - before <= allowed, f"{what} rose from {before} to {after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    stop = time.monotonic() + 60 * options.minutes
    with Console([PYTHON, str(HERE / "console.py"), "websockets"]) as console:
        soak = Soak(console, tempfile.mkdtemp(prefix="draupnir-soak-"), options.seed)
        try:
            # The last third runs without a kill, so that a slope shows.
            while time.monotonic() < stop or len(soak.samples) < 9:
                is_late = stop - time.monotonic() < 20 * options.minutes
                FAULTS["kill"] = 0 if is_late else 2
                soak.round()
            soak.agent.drain()
            soak.judge()
            figures = f"{soak.number} rounds, {soak.works} works, {soak.cuts} cuts, {soak.kills} kills"
            print(f"{figures}, {soak.repeats} repeats, 0 lost")
        finally:
            soak.agent.__exit__()
    return 0


if __name__ == "__main__":
    sys.exit(main())
