"""Runs the agent for minutes or hours under random faults: nothing is lost, every cut is reported, nothing grows.

    soak.py --minutes N [--seed S]

Between two samples there is a round: commands, terminals and lines of a log, then a cut, a close, a silence, a
hand-over, or a kill of the agent. Work that the agent has received before the fault must come to its end after it:
a command with its result, a shell with its process and every byte, a log with every line in order. A kill ends
commands and shells; the log goes on.
"""

import argparse
import base64
import os
import pathlib
import random
import re
import signal
import statistics
import sys
import tempfile
import time

import story
from rig import HERE, PYTHON, Agent, Console, check, same

# KiB that the median of the last third of the samples may lie above that of the second third. Pages that the allocator
# keeps for the next burst move by some hundred KiB; a leak of a hundred bytes a message exceeds this within hours.
GROWTH_MAX_KIB = 1024

# So many samples and no more are of an agent whose results of past commands still fill their bounded memory, and whose
# C library still adds to its arenas: glibc's rose by 2.8 MiB in 22 samples.
WARM_UP_SAMPLES = 60
WARM_UP_MAX_KIB = 4096

# Samples: enough for three thirds with a median each.
SAMPLES_MIN = 9

# How far the number of descriptors or threads may rise between the same thirds: a look-up or a file that was just open.
RISE_MAX = 2

# Faults by how often they come. A silence takes 20 s.
FAULTS = {"cut": 8, "close": 4, "silence": 1, "hand_over": 4, "kill": 2}

# One round of so many renames the log, as logrotate does.
ROUNDS_TO_ROTATION = 10

LOG_LINES_MAX = 200


class Received:
    """What the console has had so far: nothing may change when it comes again, and nothing may be missing."""

    def __init__(self):
        self.results, self.ends, self.log_line, self.repeats = {}, {}, 0, 0

    def take(self, lines):
        """Takes what came in a round out of these lines."""
        with lines.changed:
            frames = [line["frame"] for line in lines.lines if "frame" in line]
            lines.lines[:] = [line for line in lines.lines if "frame" not in line]
        for frame in frames:
            kinds = {"command:result": self.result, "terminal:output": self.output, "log:batch": self.batch}
            kinds.get(frame["type"], lambda payload: None)(frame["payload"])

    def result(self, payload):
        """A result is sent again where the link broke before a Pong acknowledged it."""
        identity, result = payload["command_id"], (payload.get("exit_code"), hash(payload.get("stdout")))
        self.repeats += identity in self.results
        same(result, self.results.setdefault(identity, result), f"{identity}, which came again")

    def output(self, payload):
        """So are bytes of a terminal."""
        session, offset = payload["session_id"], payload["offset"]
        end = self.ends.get(session, 0)
        check(offset <= end, f"{session} lacks the bytes from {end} to {offset}")
        self.repeats += offset < end
        self.ends[session] = max(end, offset + len(base64.b64decode(payload["data"])))

    def batch(self, payload):
        """And lines of the log."""
        for line in payload["lines"]:
            number = int(line["line"].split()[1])
            check(number <= self.log_line + 1, f"the log lacks the lines from {self.log_line + 1} to {number - 1}")
            self.repeats += number <= self.log_line
            self.log_line = max(self.log_line, number)


class Soak:
    """One agent after another at one console."""

    def __init__(self, console, home, seed):
        self.console, self.home, self.random = console, home, random.Random(seed)
        self.number = self.connection = self.works = self.log_line = self.rotations = 0
        self.log = pathlib.Path(home, ".sindri/logs/soak/out.log")
        self.log.parent.mkdir(parents=True)
        self.memory, self.handles, self.received, self.faults = [], [], Received(), dict.fromkeys(FAULTS, 0)
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
        self.faults[fault] += 1
        for part in range(self.random.randrange(1, 5)):
            size = self.random.choice([1, 1000, 200_000])
            result = self.console.run(f"head -c {size} /dev/zero | tr '\\0' x", self.connection, f"{name}-{part}")
            same(len(result["stdout"]), size, "the length of a result")
            self.works += 1
        session = f"{name}-terminal"
        story.terminal(self.console, self.connection, session, "seq 2000; exit 4\r", b"\r\n2000\r\n", 4)
        self.write_log()
        shell = None if fault == "kill" else self.open_shell(f"{name}-shell")
        if shell:
            # A silence and the wait for the next connection may take longer than a command is given by default.
            fields = {"command_id": name, "command": long, "timeout_ms": 600_000}
            self.console.send("command:dispatch", fields)
        self.console.run("true", self.connection, f"{name}-received")
        getattr(self, fault)()
        self.write_log()
        pathlib.Path(self.home, name).touch()
        if shell:
            same(self.console.frame(self.connection, "command:result", command_id=name)["stdout"], f"{name}\n", name)
            self.end_shell(f"{name}-shell", shell)
        pathlib.Path(self.home, name).unlink()
        self.works += 4
        self.read_log()
        self.received.take(self.console.lines)
        self.sample()

    def write_log(self):
        """Some lines more, sometimes in a new file under the same name."""
        if self.random.randrange(2 * ROUNDS_TO_ROTATION) == 0 and self.log.exists():
            self.log.rename(self.log.with_name("out.log.1"))
            self.rotations += 1
        count = self.random.randrange(1, LOG_LINES_MAX)
        with open(self.log, "a", encoding="ascii") as log:
            log.write("".join(f"line {self.log_line + number} of the log\n" for number in range(1, count + 1)))
        self.log_line += count

    def read_log(self):
        """Waits for the last line."""
        last = f"line {self.log_line} of the log"

        def is_it(line):
            frame = line.get("frame", {})
            return frame.get("type") == "log:batch" and any(one["line"] == last for one in frame["payload"]["lines"])

        self.console.lines.wait(is_it, last)

    def open_shell(self, session):
        """A shell that lives through the fault; returns its process id."""
        self.console.send("terminal:create", {"session_id": session, "cols": 80, "rows": 24, "shell": "/bin/sh"})
        self.console.frame(self.connection, "terminal:output", session_id=session)
        return self.shell_says(session, "pid", "$$")

    def end_shell(self, session, process):
        """It is still the same process, and ends."""
        same(self.shell_says(session, "again", "$$"), process, "the process of a shell")
        self.type(session, "exit 6\r")
        same(self.console.frame(self.connection, "terminal:closed", session_id=session)["exit_code"], 6, session)

    def shell_says(self, session, word, what):
        """What a shell makes of an expression."""
        self.type(session, f"echo {word}={what}=\r")
        answer = re.compile(f"\n{word}=([^=$]*)=".encode())

        def is_it(_):
            return answer.search(story.printed(self.console, session))

        self.console.lines.wait(is_it, f"{word} of {session}")
        return is_it(None).group(1)

    def type(self, session, keys):
        """Types into a terminal."""
        data = base64.b64encode(keys.encode()).decode()
        self.console.send("terminal:input", {"session_id": session, "data": data}, session_id=session)

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
        self.connected()
        event = self.console.frame(self.connection, "event", event_type="disconnect")
        check(event["metadata"].get("cause"), event)

    def hand_over(self):
        """The program at the agent's path takes over, in the same process, and says so in the close frame."""
        self.agent.process.send_signal(signal.SIGUSR2)
        same(self.console.wait("closed", connection=self.connection)["code"], 1012, "the close code of a hand-over")
        self.connected()
        self.memory.clear()

    def kill(self):
        """The agent dies and is started again."""
        self.agent.process.kill()
        self.agent.process.wait()
        self.memory.clear()
        self.handles.clear()
        self.start()

    def sample(self):
        """What the agent holds: memory in KiB since the last program began, descriptors and threads since the last
        process did."""
        place = pathlib.Path("/proc", str(self.agent.process.pid))
        fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        self.memory.append(int(fields["VmRSS"].split()[0]))
        self.handles.append((len(list((place / "fd").iterdir())), int(fields["Threads"])))

    def judge(self):
        """Nothing has grown."""
        growth = GROWTH_MAX_KIB if len(self.memory) > WARM_UP_SAMPLES else WARM_UP_MAX_KIB
        descriptors, threads = zip(*self.handles)
        for what, values, allowed in [
            ("memory", self.memory, growth),
            ("descriptors", descriptors, RISE_MAX),
            ("threads", threads, RISE_MAX),
        ]:
            third = len(values) // 3
            before, after = (statistics.median(part) for part in (values[third : 2 * third], values[2 * third :]))
            print(f"{what}: {before:.0f}, then {after:.0f}, most {max(values)} in {len(values)} samples")
            check(after - before <= allowed, f"{what} rose from {before} to {after}")

    def figures(self):
        """What it was."""
        faults = ", ".join(f"{count} {fault.replace('_', '-')}s" for fault, count in self.faults.items())
        work = f"{self.works} works, {self.log_line} lines of a log with {self.rotations} rotations"
        return f"{self.number} rounds, {work}; {faults}; {self.received.repeats} repeats, 0 lost"


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
            # Only the first third has kills, and the last third no hand-overs either, so that slopes show.
            while (left := stop - time.monotonic()) > 0 or len(soak.memory) < SAMPLES_MIN:
                if left < 40 * options.minutes:
                    FAULTS["kill"] = 0
                if left < 20 * options.minutes:
                    FAULTS["hand_over"] = 0
                soak.round()
            soak.agent.drain()
            soak.judge()
            print(soak.figures())
        finally:
            soak.agent.__exit__()
    return 0


if __name__ == "__main__":
    sys.exit(main())
