"""The record of what the agent is made of: one row for each crate in the Linux binary, with what it can do.

    dependencies.py check    fails where Cargo.lock and tests/dependencies.tsv differ
    dependencies.py write    counts all rows again; a review stays as long as the version does

The figures are counted, so an update of a crate shows as a change of its row: a build script, a macro that runs while
the agent is compiled, lines with `unsafe`, and whether the source names sockets, processes, files or variables. The
last column is the review: `DATE: WHAT WAS READ`, or `-`; who read it stands in the history of the line. It belongs to
the version: an update begins again at `-`.
What runs on the machine that builds is read before it does: a build script without a review fails the check.
"""

import json
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
RECORD = TOP / "tests/dependencies.tsv"
TRIPLE = "x86_64-unknown-linux-musl"
COLUMNS = ["crate", "version", "build script", "macro", "unsafe", "reaches", "read"]

# A review.
REVIEW = re.compile(r"\d{4}-\d\d-\d\d: .+")

# What a source names where it reaches outside of its own memory.
REACHES = {
    "sockets": r"\b(?:std::net|TcpStream|UdpSocket|UnixStream)\b",
    "processes": r"\bstd::process::Command\b|\bCommand::new\b|\bfork\(",
    "files": r"\bstd::fs\b|\bFile::open\b|\bOpenOptions\b",
    "variables": r"\benv::(?:var|var_os|vars)\b",
}


def shipped():
    """The packages that are linked into the binary or run while it is built, without what tests alone ask for."""
    tree = ["cargo", "tree", "--package", "draupnir", "--edges", "normal,build", "--target", TRIPLE, "--prefix", "none",
            "--format", "{p}", "--locked"]
    words = [line.split() for line in output_of(tree).splitlines() if line]
    used = {(name, version.removeprefix("v")) for name, version, *_ in words}
    metadata = json.loads(output_of(["cargo", "metadata", "--format-version", "1", "--locked"]))
    packages = [package for package in metadata["packages"] if package["source"]]
    found = [package for package in packages if (package["name"], package["version"]) in used]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def output_of(command):
    """What a command prints, here."""
    return subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout


def row(package):
    """What one crate can do, as its sources say."""
    folder = pathlib.Path(package["manifest_path"]).parent
    skipped = {"tests", "benches", "examples"}
    files = [path for path in folder.rglob("*.rs") if skipped.isdisjoint(path.relative_to(folder).parts)]
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)
    code = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    kinds = {kind for target in package["targets"] for kind in target["kind"]}
    reaches = [name for name, pattern in REACHES.items() if re.search(pattern, code)]
    unsafe = sum(1 for line in code.splitlines() if re.search(r"\bunsafe\b", line))
    yes = {True: "yes", False: "-"}
    return [
        package["name"],
        package["version"],
        yes["custom-build" in kinds],
        yes["proc-macro" in kinds],
        str(unsafe),
        ",".join(reaches) or "-",
        "-",
    ]


def recorded():
    """The rows of the record by crate and version."""
    lines = RECORD.read_text(encoding="utf-8").splitlines() if RECORD.exists() else []
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]
    return {(cells[0], cells[1]): cells for cells in rows}


def main(arguments):
    packages, known = shipped(), recorded()
    if arguments == ["write"]:
        rows = [row(package) for package in packages]
        for cells in rows:
            cells[-1] = known.get((cells[0], cells[1]), cells)[-1]
        head = "# The crates of the Linux binary; tests/scripts/dependencies.py writes and checks this, and says how."
        RECORD.write_text("\n".join([head, *("\t".join(cells) for cells in [COLUMNS, *rows])]) + "\n", encoding="utf-8")
        return 0
    if arguments != ["check"]:
        print(__doc__)
        return 64
    found = {(package["name"], package["version"]) for package in packages}
    problems = [f"{name} {version} has no row" for name, version in sorted(found - known.keys())]
    problems += [f"{name} {version} is not in the binary" for name, version in sorted(known.keys() - found)]
    for package in packages:
        old, new = known.get((package["name"], package["version"])), row(package)
        if old and old[:-1] != new[:-1]:
            problems.append(f"{' '.join(new[:-1])} is recorded as {' '.join(old[:-1])}")
    for cells in known.values():
        if cells[2] == "yes" and cells[-1] == "-":
            problems.append(f"the build script of {cells[0]} {cells[1]} has no review")
        if cells[-1] != "-" and not REVIEW.fullmatch(cells[-1]):
            problems.append(f"{cells[0]} {cells[1]}: a review is `DATE: WHAT WAS READ`, not {cells[-1]!r}")
    for problem in problems:
        print(problem)
    if problems:
        print("read what changed, then run: tests/scripts/dependencies.py write")
    reviewed = sum(cells[-1] != "-" for cells in known.values())
    print(f"{len(packages)} crates in the binary, {reviewed} reviewed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
