"""The contract's files, and whether what was sent keeps to it.

    contract.py write         writes what tests/scripts/contract generates from the schema
    contract.py check         fails with a difference where one of these files is not what the schema makes
    contract.py frames FILE   validates the frames that the tests noted (DRAUPNIR_FRAMES), and counts them
"""

import collections
import difflib
import json
import os
import re
import sys

import jsonschema_rs

import contract_files
import contract_vectors

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDER = "src/protocol/schema"

# Differences and faults that are shown; the rest are counted.
SHOWN_MAX = 40


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def schema():
    return json.loads(read(f"{FOLDER}/draupnir.schema.json"))


def closed(part):
    """The same schema, in which an object has no other fields than those that are named."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    # A condition is no description of all fields.
    part = {key: one if key in ("anyOf", "not") else closed(one) for key, one in part.items()}
    if part.get("type") == "object" and "properties" in part:
        part.setdefault("additionalProperties", False)
    return part


def validators(whole):
    """A validator for each definition, made when it is asked for."""
    made = {}

    def validator(name):
        if name not in made:
            made[name] = jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": whole["$defs"]})
        return made[name]

    return validator


def generated(whole):
    """The text of each file that is made from the schema."""
    document = read("src/protocol/PROTOCOL.md")
    validator = validators(whole)
    vectors = contract_vectors.vectors(TOP, whole, lambda name, value: validator(name).is_valid(value))
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors)
    return {
        f"{FOLDER}/draupnir.d.ts": contract_files.types(whole),
        f"{FOLDER}/draupnir.js": contract_files.guards(whole),
        f"{FOLDER}/asyncapi.yaml": contract_files.asyncapi(whole, document),
        "tests/console/kit/vectors.json": f"[\n{lines}\n]\n",
    }


def write():
    for path, text in generated(schema()).items():
        os.makedirs(os.path.dirname(os.path.join(TOP, path)), exist_ok=True)
        with open(os.path.join(TOP, path), "w", encoding="utf-8") as file:
            file.write(text)


def check():
    """Every line that is wrong."""
    whole = schema()
    for path, text in generated(whole).items():
        there = read(path) if os.path.exists(os.path.join(TOP, path)) else ""
        lines = difflib.unified_diff(there.splitlines(), text.splitlines(), path, "generated", n=0, lineterm="")
        yield from (line[:300] for line in lines)
    validator = validators(whole)
    vectors = json.loads(read("tests/console/kit/vectors.json"))
    for vector in vectors:
        if vector["from"] == "console":
            try:
                valid = validator("ConsoleMessage").is_valid(json.loads(vector["raw"]))
            except ValueError:
                valid = False
            # A reader of JSON keeps one of two equal keys, and no schema counts levels.
            is_unseen = any(word in vector["note"] for word in ("twice", "two of them", "nesting"))
            if valid != vector["valid"] and not is_unseen:
                yield f"the schema says {valid}: {vector}"
    document = read("src/protocol/PROTOCOL.md")
    yield from classes(document)
    yield from tables(document, whole)


def classes(document):
    """PROTOCOL.md lists the classes of invalid messages that the vectors have, with the same effects."""
    section = document.split("### Messages that are not valid", 1)[-1].split("\n##", 1)[0]
    listed = dict(re.findall(r"^\| ([^|]+) \| (\w+)[^|]*\|$", section, re.M))
    listed.pop("message", None)
    made = {why: effect.split(":")[0] for why, effect, _ in contract_vectors.INVALID}
    for why in sorted(listed.keys() | made.keys()):
        if listed.get(why) != made.get(why):
            yield f"PROTOCOL.md says {listed.get(why)} and the vectors {made.get(why)} of: {why}"


# Which rows of PROTOCOL.md describe what: the heading, and the definition of the payload.
SECTIONS = {
    "`registration`": "Registration",
    "`heartbeat`": "Heartbeat",
    "`metrics`": "Metrics",
    "`event`": "Event",
    "`terminal:output`": "TerminalOutput",
    "`terminal:closed`": "TerminalClosed",
    "`command:result`": "CommandResult",
    "`command:output`": "CommandOutput",
    "`llm_usage:batch`": "UsageBatch",
    "`terminal:create`": "TerminalCreate",
    "`terminal:input`": "TerminalInput",
    "`terminal:resize`": "TerminalResize",
    "`terminal:close`": "TerminalClose",
    "`command:dispatch`": "CommandDispatch",
    "`command:cancel`": "CommandCancel",
    "`log:batch`": "LogBatch",
    "`log:subscribe`": "LogSubscribe",
    "`log:unsubscribe`": "LogUnsubscribe",
}


def names(whole, definition, prefix=""):
    """Every field of a definition, with those in it."""
    for name, part in whole["$defs"][definition]["properties"].items():
        part = part if isinstance(part, dict) else {}
        inner = part.get("items", part).get("$ref", "").rsplit("/", 1)[-1]
        inner = inner if "properties" in whole["$defs"].get(inner, {}) else ""
        yield f"{prefix}{name}", name in whole["$defs"][definition].get("required", [])
        if inner:
            yield from names(whole, inner, f"{prefix}{name}.")


def tables(document, whole):
    """Each field of a message is in its section, and its row says whether it may be left out."""
    for heading, definition in SECTIONS.items():
        section = document.split(f"\n### {heading}\n", 1)[-1].split("\n### ", 1)[0].split("\n## ", 1)[0]
        fields = dict(names(whole, definition))
        words = set(re.findall(r"\w+", section))
        for field in fields:
            if field.rsplit(".", 1)[-1] not in words:
                yield f"PROTOCOL.md, {heading}: nothing about {field}"
        for cell, text in re.findall(r"^\| (`[^|]+) \| ([^|]*) \|$", section, re.M):
            for name in re.findall(r"`([\w.\[\]]+)`", cell):
                name = name.replace("[]", "")
                known = [required for field, required in fields.items() if field.split(".")[-1] == name]
                is_plain = "." not in name and not name.startswith("_") and "of `" not in cell
                if is_plain and not known:
                    yield f"PROTOCOL.md, {heading}: no message has {name}"
                if is_plain and known and definition not in ("Metrics",):
                    says_optional = any(word in text for word in ("optional", "missing", "left out"))
                    if says_optional == all(known) and name != "session_id":
                        yield f"PROTOCOL.md, {heading}: {name} is {'needed' if all(known) else 'optional'}: {text}"


def frames(path):
    """Every frame that does not keep to the contract."""
    validator = validators(closed(schema()))
    counts, seen = collections.Counter(), set()
    with open(path, encoding="utf-8") as file:
        for line in map(json.loads, file):
            counts[line["frame"].get("type", "a registration")] += 1
            for error in validator(line["as"]).iter_errors(line["frame"]):
                place = "/".join(map(str, error.instance_path))
                what = f"{line['by']}: {line['frame'].get('type')} /{place}: {error.message[:300]}"
                if what not in seen:
                    seen.add(what)
                    yield what
    print(f"{sum(counts.values())} frames validated:", *(f"{count} {kind}" for kind, count in sorted(counts.items())))
    if not counts:
        yield "no test noted a frame"


def main():
    match sys.argv[1:]:
        case ["write"]:
            return write()
        case ["check"]:
            faults = list(check())
        case ["frames", path]:
            faults = list(frames(path))
        case _:
            sys.exit(__doc__)
    for fault in faults[:SHOWN_MAX]:
        print(fault)
    if faults:
        sys.exit(f"{len(faults)} faults; tests/scripts/contract writes the generated files again")
    print("the contract holds")


if __name__ == "__main__":
    main()
