"""Runs the suites of the conformance board, prints its table, and compares it with the committed counts.

    board.py [--full] [--update] [SUITE…]

A suite that cannot run here is named with what is missing; it never counts as passed. The counts of `counts` may only
rise: a suite that passes fewer cases fails the run, and one that passes more must be written down (`--update`).
"""

import concurrent.futures
import os
import sys
import time
import traceback

import consoles
import fronts
import names
import programs
import proxies
import tls
import websocket_cases
from rig import HERE, NotInstalled, Suite

SOURCES = [websocket_cases, consoles, fronts, proxies, names, tls, programs]
COUNTS = HERE / "counts"

# Suites wait more than they compute.
AT_ONCE = 4


def committed():
    """The counts by suite: in the gate, and in full."""
    rows = (line.rsplit(maxsplit=2) for line in COUNTS.read_text().splitlines() if line and not line.startswith("#"))
    return {name: (int(gate), int(full)) for name, gate, full in rows}


def run(name, judge):
    """One suite, whatever happens in it."""
    try:
        return judge()
    except NotInstalled as error:
        suite = Suite(name, "-")
        suite.missing = str(error)
    except Exception as error:  # pylint: disable=broad-exception-caught
        suite = Suite(name, "-")
        suite.failed["the suite itself"] = "".join(traceback.format_exception(error))
    return suite


def reasons(suite):
    """Why cases are excused, and how many for each reason."""
    counted = {}
    for reason in suite.excused.values():
        counted[reason] = counted.get(reason, 0) + 1
    return "; ".join(f"{count} {reason}" for reason, count in counted.items())


def show(suites, seconds):
    """The table."""
    rows = [("suite", "version", "cases", "passed", "excused", "seconds", "")]
    for suite in suites:
        cases = len(suite.passed) + len(suite.failed) + len(suite.excused)
        remark = f"not installed: {suite.missing}" if suite.missing else reasons(suite)
        numbers = (str(cases), str(len(suite.passed)), str(len(suite.excused)), f"{seconds[suite.name]:.0f}")
        rows.append((suite.name, suite.version, *numbers, remark))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = [
            cell.rjust(width) if column > 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join([*cells, row[6]]).rstrip())


def verdict(suites, is_full):
    """What is wrong with the run."""
    counts, wrong = committed(), []
    for suite in suites:
        if suite.missing:
            note_skipped(suite)
            continue
        for case, why in suite.failed.items():
            wrong.append(f"{suite.name}, {case}:\n{why}")
        expected = counts.get(suite.name, (0, 0))[is_full]
        if len(suite.passed) != expected:
            wrong.append(f"{suite.name}: {len(suite.passed)} cases passed, and {COUNTS.name} has {expected}")
    return wrong


def note_skipped(suite):
    """Adds a line to the file of skipped tests, where there is one."""
    if path := os.environ.get("DRAUPNIR_SKIPS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"conformance_{suite.name}: {suite.missing}\n")


def update(suites, is_full):
    """Writes the counts that have risen."""
    counts = committed()
    for suite in suites:
        row = list(counts.get(suite.name, (0, 0)))
        row[is_full] = max(row[is_full], len(suite.passed))
        counts[suite.name] = tuple(row)
    head = [line for line in COUNTS.read_text().splitlines() if line.startswith("#")]
    rows = [f"{name} {gate} {full}" for name, (gate, full) in counts.items()]
    COUNTS.write_text("\n".join([*head, *rows]) + "\n")


def main(arguments):
    is_full = "--full" in arguments
    wanted = [argument for argument in arguments if not argument.startswith("--")]
    known = [found for source in SOURCES for found in source.suites(is_full)]
    chosen = [(name, judge) for name, judge in known if not wanted or name in wanted]
    unknown = set(wanted) - {name for name, _ in known}
    if unknown:
        print(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(name for name, _ in known)}")
        return 64
    seconds = {}

    def timed(name, judge):
        start = time.monotonic()
        suite = run(name, judge)
        seconds[name] = time.monotonic() - start
        return suite

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        suites = list(pool.map(lambda pair: timed(*pair), chosen))
    if "--update" in arguments:
        update(suites, is_full)
    wrong = verdict(suites, is_full)
    for text in wrong:
        print(text)
    show(suites, seconds)
    passed, failed = (sum(len(getattr(suite, field)) for suite in suites) for field in ("passed", "failed"))
    print(f"conformance: {passed} passed, {failed} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
