"""The vectors of the kit: what was captured from the production console, and messages of each class that PROTOCOL.md
lists under "Messages that are not valid"."""

import json
import os

ID = "0dc35302-b8d0-4ee0-8530-e2a37d518a44"
COMMAND = "f11f22b3-0085-415f-8392-1803e935e6ce"


def frame(kind, payload, **envelope):
    return json.dumps({"protocol_version": "1.0", "type": kind, **envelope, "payload": payload}, ensure_ascii=False)


def create(**fields):
    return frame("terminal:create", {"session_id": ID, **fields})


def typed(**fields):
    return frame("terminal:input", {"session_id": ID, **fields})


def resize(**fields):
    return frame("terminal:resize", {"session_id": ID, **fields})


def dispatch(**fields):
    return frame("command:dispatch", {"command_id": COMMAND, "command": "true", **fields})


def keys(count):
    more = {f"key{number}": 0 for number in range(count - 3)}
    return frame("command:cancel", {"command_id": COMMAND}, **more)


# What a class is called in PROTOCOL.md, its effect, and messages of it. Ids are taken from here, so that a test may
# replace them.
INVALID = [
    ("a field that is `null`", "followed", [create(shell=None, cols=None), dispatch(args=None, timeout_ms=None)]),
    ("an optional text that is empty", "followed", [create(shell=""), dispatch(working_dir="")]),
    ("a size of `terminal:create` that is missing, not positive or no number", "clamped", [
        create(cols=0, rows=-3), create(cols="80", rows=[24])]),
    ("a size with a fraction or over 65,535", "clamped", [
        create(cols=80.7, rows=70000), resize(cols=132.5, rows=1e9)]),
    ("a size of `terminal:resize` that is not positive", "clamped", [resize(cols=0, rows=-1)]),
    ("a `timeout_ms` with a fraction, not positive, or over 3,600,000", "clamped", [
        dispatch(timeout_ms=1500.5), dispatch(timeout_ms=0), dispatch(timeout_ms=3_600_001)]),
    ("another `protocol_version`, or none", "followed", [
        frame("command:cancel", {"command_id": COMMAND}, protocol_version="2.0"),
        json.dumps({"type": "command:cancel", "payload": {"command_id": COMMAND}})]),
    ("a `session_id` on the envelope of a command", "followed", [
        frame("command:cancel", {"command_id": COMMAND}, session_id=ID)]),
    ("a size of `terminal:resize` that is missing or no number", "ignored", [
        resize(cols=80), resize(cols="80", rows=24)]),
    ("a type that the agent does not know", "ignored", [frame("terminal:rename", {"session_id": ID})]),
    ("a field of `terminal:create` with a wrong type or a NUL", "refused: terminal:closed", [
        create(shell=7), create(shell="/bin/sh\0"), create(shell=["/bin/sh"])]),
    ("a field of `command:dispatch` with a wrong type", "refused: command:result", [
        dispatch(command=7), dispatch(args="x"), dispatch(args=["x", None]), dispatch(env={"A": "1"}),
        dispatch(timeout_ms="1"), dispatch(working_dir=[]), dispatch(stream=1)]),
    ("no `command`", "refused: command:result", [
        frame("command:dispatch", {"command_id": COMMAND}), dispatch(command="")]),
    ("a NUL in a text of `command:dispatch`", "refused: command:result", [
        dispatch(command="a\0b"), dispatch(args=["a\0"]), dispatch(working_dir="\0")]),
    ("an entry of `env` that is not `NAME=value`", "refused: command:result", [
        dispatch(env=["A"]), dispatch(env=["=b"]), dispatch(env=["A=\0"])]),
    ("a script that is not base64, or two of them", "refused: command:result", [
        dispatch(env=["SINDRI_SCRIPT_B64=ZWNobyBoaQ"]),
        dispatch(env=["SINDRI_SCRIPT_B64=ZWNobyBoaQ==", "SINDRI_SCRIPT_B64="])]),
    ("a known field of a payload that stands there twice", "refused: command:result", [
        dispatch().replace('"command":', '"command": "false", "command":')]),
    ("a payload that is no object", "refused: event", [
        frame("command:dispatch", [COMMAND]), frame("terminal:create", "x"), frame("command:cancel", 1)]),
    ("an id that is missing, empty, too long, no text, or has control characters", "refused: event", [
        frame("terminal:create", {"cols": 80, "rows": 24}), frame("terminal:close", {"session_id": ""}),
        frame("terminal:input", {"session_id": "x" * 129, "data": ""}), frame("command:cancel", {"command_id": 7}),
        frame("command:dispatch", {"command_id": "a\nb", "command": "true"}), frame("command:cancel", None)]),
    ("a `data` of `terminal:input` that is missing or not base64", "refused: event", [
        typed(), typed(data="bHM"), typed(data="bHN="), typed(data=[108])]),
    ("no JSON object", "refused: event", ["{", "[]", '"text"', frame("command:cancel", {}) + "x"]),
    ("no `type`", "refused: event", [json.dumps({"payload": {}}), frame(7, {}), frame(None, {})]),
    ("a top-level key that stands there twice", "refused: event", [
        frame("command:cancel", {"command_id": COMMAND}).replace('"type"', '"type": "x", "type"')]),
    ("more than 256 top-level keys", "refused: event", [keys(257)]),
    ("nesting deeper than 64", "refused: event", [
        frame("command:cancel", {"command_id": COMMAND}, more=json.loads("[" * 64 + "]" * 64))]),
    ("a message over 1 MiB", "closed", []),  # too long for a file: tests make one
    ("a session or command that is not there", "ignored", [
        frame("terminal:close", {"session_id": ID}), typed(data="bHMN"), resize(cols=80, rows=24),
        frame("command:cancel", {"command_id": COMMAND})]),
]

# Messages that are valid though it may not look so.
VALID = [
    ("the session on the envelope alone, and no payload", json.dumps({"type": "terminal:close", "session_id": ID,
        "protocol_version": "1.0"})),
    ("an unknown field", create(cols=80, rows=24, title="x")),
    ("the longest id", frame("terminal:create", {"session_id": "é" * 128, "cols": 1, "rows": 65535})),
    ("an empty script", dispatch(args=["-s"], env=["SINDRI_SCRIPT_B64="])),
    ("a value with an equals sign", dispatch(env=["A=b=c", "EMPTY="])),
    ("the longest time-out", dispatch(timeout_ms=3_600_000, stream=True)),
    ("a whole number that is written with a fraction", create(cols=80.0, rows=24.0)),
]

# What other agents sent to the production console and it took, though this agent never sends it.
NOT_OURS = "accepted by the production console; the agent does not send it in this form"


def captured(top):
    """The vectors of tests/vectors, each with its direction and note."""
    for name, direction in (("console_to_agent", "console"), ("agent_to_console", "agent")):
        with open(os.path.join(top, "tests", "vectors", f"{name}.jsonl"), encoding="utf-8") as file:
            for line in map(json.loads, file):
                if "raw" in line:
                    yield direction, line["note"], line["raw"]


def vectors(top, schema, is_valid):
    """All of them; `is_valid(definition, value)` judges by the open schema."""
    for direction, note, raw in captured(top):
        value = json.loads(raw)
        if direction == "console":
            is_acted = "channel" not in value
            yield {"from": direction, "note": f"captured: {note}", "valid": True, "raw": raw,
                   "effect": "followed" if is_acted else "ignored"}
        else:
            valid = is_valid("AgentMessage", value)
            vector = {"from": direction, "note": f"captured: {note}", "valid": valid, "raw": raw}
            yield vector if valid else {**vector, "why": NOT_OURS}
    for definition in schema["$defs"].values():
        for example in definition.get("examples", []):
            direction = "console" if is_valid("ConsoleMessage", example) else "agent"
            vector = {"from": direction, "note": f"PROTOCOL.md's example of {definition['description']}", "valid": True,
                      "raw": json.dumps(example, ensure_ascii=False)}
            yield {**vector, "effect": "followed"} if direction == "console" else vector
    for note, raw in VALID:
        yield {"from": "console", "note": note, "valid": True, "raw": raw, "effect": "followed"}
    for why, effect, frames in INVALID:
        is_absent = why.endswith("not there")
        for raw in frames:
            yield {"from": "console", "note": why, "valid": is_absent, **({} if is_absent else {"why": why}),
                   "raw": raw, "effect": effect}
