"""Judges the scan for the key over everything that a run of the tests made agents print, record, remember or audit.

    traces.py TRACES [AGENTS_MIN]

The tests look for the key themselves, when an agent is gone and before its files are (tests/support/trace.rs), and add
a line of JSON to TRACES for each agent: how many bytes of each kind it left, and where the key was found. This prints
the sums, and exits with 1 if the key was found anywhere, or if there was too little to look at for "nowhere" to mean
anything: fewer agents than AGENTS_MIN, or a kind of which nothing was seen.
"""

import json
import sys

# A quick run has more than this; a run that has fewer has lost most of its tests, or the way in which they tell.
AGENTS_MIN = 250

KINDS = ("printed", "recorded", "remembered", "audited")


def main(path, agents_min=AGENTS_MIN):
    with open(path, encoding="utf-8") as file:
        traces = [json.loads(line) for line in file]
    faults = [f"{trace['test']}: {found}" for trace in traces for found in trace["found"]]
    sums = {kind: sum(trace[kind] for trace in traces) for kind in KINDS}
    print(f"{len(traces)} agents: " + ", ".join(f"{sums[kind]} bytes {kind}" for kind in KINDS))
    if len(traces) < int(agents_min):
        faults.append(f"only {len(traces)} agents were looked at, not {agents_min}")
    faults += [f"nothing was {kind}: there was nothing to look at" for kind in KINDS if not sums[kind]]
    print("\n".join(f"FAILED: {fault}" for fault in faults) or "the key is nowhere in it")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
