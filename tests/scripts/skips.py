"""Compares the tests that were skipped with those that may be.

    skips.py ALLOWED HAPPENED

Both files hold lines `NAME: REASON`; `#` opens a comment. It prints every skipped test with the reason that the test
itself gave, and exits with 1 if one of them is not allowed. A reason that begins with `quick` needs no permission: the
run was asked to leave that test out. Nor does, where the run is not root's, a reason that begins as a line
`(not root): BEGINNING` of ALLOWED says. An allowed test that ran is only warned of, since another machine may lack what
this one has.
"""

import os
import sys

NOT_ROOT = "(not root): "


def entries(path):
    """The names in a file with their reasons; no file is no entries."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            name, _, reason = line.partition(": ")
            found[name.strip()] = reason.strip() or "no reason given"
    return found


def beginnings(path):
    """How the reasons begin for which a run that is not root's may skip any test."""
    if os.geteuid() == 0:
        return ()
    with open(path, encoding="utf-8") as file:
        return tuple(line.removeprefix(NOT_ROOT).strip() for line in file if line.startswith(NOT_ROOT))


def main(allowed_path, happened_path):
    allowed, happened = entries(allowed_path), entries(happened_path)
    allowed.pop(NOT_ROOT.partition(":")[0], None)
    excused = ("quick", *beginnings(allowed_path))
    print(f"{len(happened)} skipped")
    forbidden = []
    for name, reason in sorted(happened.items()):
        if name not in allowed and not reason.startswith(excused):
            forbidden.append(name)
        print(f"  {'FORBIDDEN  ' if name in forbidden else ''}{name}: {reason}")
    for name in sorted(allowed.keys() - happened.keys()):
        print(f"  (not skipped here, though it may be: {name})")
    if forbidden:
        print(f"not in {allowed_path}: {', '.join(forbidden)}")
    return 1 if forbidden else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
