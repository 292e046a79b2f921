"""The basic story, and what interrupts it: the same for every console, and for every server in front of one."""

import base64
import json

from rig import INSTANCE, KEY, check, same

# Bytes: more than any buffer on the way.
LARGE = 300_000


def basic(console, connection=1, large=LARGE):
    """Registered, connected, measured; a command and a terminal."""
    registration = console.wait("registration")
    same(lower(registration["headers"])["authorization"], f"Bearer {KEY}", "the key of the registration")
    same(json.loads(registration["body"])["instance_id"], INSTANCE, "the name of the instance")
    upgrade = console.wait("upgrade", connection=connection)
    same(lower(upgrade["headers"])["x-instance-id"], f"foreign-{INSTANCE}", "the id of the upgrade")
    check(console.frame(connection, "heartbeat")["uptime_seconds"] >= 0, "a heartbeat has an uptime")
    check(console.frame(connection, "metrics")["memory"]["total_bytes"] > 0, "metrics have memory")
    work(console, connection, large)


def work(console, connection, large=LARGE):
    """A command whose result is larger than any buffer on the way, and a terminal from its start to its end."""
    result = console.run("printf 'a b' | wc -c", connection, f"c{connection}")
    same((result["exit_code"], result["stdout"].strip()), (0, "3"), "the command's result")
    result = console.run(f"head -c {large} /dev/zero | tr '\\0' x", connection, f"large{connection}")
    same(len(result["stdout"]), large, "the large result")
    terminal(console, connection, f"s{connection}", "echo $((6*7)); exit 5\r", b"42\r\n", 5)


def terminal(console, connection, session, keys, expected, status):
    """Opens a terminal, types, and waits until it has ended; returns what it printed."""
    size = {"session_id": session, "cols": 80, "rows": 24}
    console.send("terminal:create", {**size, "shell": "/bin/sh"}, session_id=session)
    console.frame(connection, "terminal:output", session_id=session)
    data = base64.b64encode(keys.encode()).decode()
    console.send("terminal:input", {"session_id": session, "data": data}, session_id=session)
    closed = console.frame(connection, "terminal:closed", session_id=session)
    same(closed.get("exit_code"), status, "the shell's exit status")
    check(expected in printed(console, session), f"the terminal printed {expected!r}")


def printed(console, session):
    """What a terminal has printed so far."""
    return b"".join(
        base64.b64decode(line["frame"]["payload"]["data"])
        for line in list(console.lines.lines)
        if line.get("frame", {}).get("type") == "terminal:output" and line["frame"]["payload"]["session_id"] == session
    )


def cut(console, interrupt, identity="cut"):
    """Interrupts the link while a command runs: its result comes once, on the next link."""
    before = console.connections()
    console.send(
        "command:dispatch",
        {"command_id": identity, "command": f"while [ ! -e {identity} ]; do sleep 0.1; done; echo survived"},
    )
    console.run("true", before, f"{identity}-is-there")
    interrupt()
    console.wait("upgrade", connection=before + 1)
    console.frame(before + 1, "heartbeat")
    # In the agent's home, where its commands run.
    console.run(f"touch {identity}", before + 1, f"{identity}-go")
    result = console.frame(before + 1, "command:result", command_id=identity)
    same((result["exit_code"], result["stdout"]), (0, "survived\n"), "the result after the cut")

    def is_result(line):
        frame = line.get("frame", {})
        return frame.get("type") == "command:result" and frame["payload"]["command_id"] == identity

    same(console.lines.count(is_result), 1, "how often the result came")


def lower(headers):
    """Headers by their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}
