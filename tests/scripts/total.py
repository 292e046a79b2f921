"""Adds up the closing lines of the test runners in a log, and prints the sum in one line of the same kind.

    total.py LOG

It knows cargo's `test result:` and the plain `N passed, N failed` of this project's own scripts.
"""

import re
import sys

CARGO = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$")


def main(path):
    passed = failed = 0
    with open(path, encoding="utf-8", errors="replace") as log:
        for line in log:
            match = CARGO.match(line) or PLAIN.match(line.strip())
            if match:
                passed += int(match[1])
                failed += int(match[2])
    print(f"{passed} passed, {failed} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
