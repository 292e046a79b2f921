"""Holds the workflows to this project's rules, which a general linter does not know.

    check_workflows.py FILE…

- Every action is pinned by the 40 digits of a commit, with its version in a comment.
- Every workflow begins with no permission, or with reading the contents; a job that needs more says so itself.
- Every job has a time limit.
- Every checkout leaves no credentials behind.
- The shell in `run:` passes shellcheck, and takes nothing from an expression: a title or a branch name that ends up in
  a script is a script.
"""

import os
import re
import subprocess
import sys

import yaml

# It is installed beside the Python that runs this. (A failing `cd` ends a step, as every failure does.)
SHELLCHECK = os.path.join(os.path.dirname(sys.executable), "shellcheck")

PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40}$")


def problems(path):
    """Everything that is wrong with one workflow, as sentences."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    workflow = yaml.safe_load(text)
    if workflow.get("permissions") not in ({}, {"contents": "read"}):
        yield "its permissions are neither {} nor contents: read"
    for line in re.findall(r"uses:.*", text):
        if not line.startswith("uses: ./") and not re.search(r"@[0-9a-f]{40} # v\d", line):
            yield f"no commit and version in: {line}"
    for name, job in workflow["jobs"].items():
        if "uses" not in job and "timeout-minutes" not in job:
            yield f"{name}: no timeout-minutes"
        for number, step in enumerate(job.get("steps", []), 1):
            yield from (f"{name}, step {number}: {problem}" for problem in step_problems(step))


def step_problems(step):
    uses = step.get("uses", "")
    if uses and not uses.startswith("./") and not PINNED.match(uses):
        yield f"{uses} is not pinned by a commit"
    if uses.startswith("actions/checkout@") and (step.get("with") or {}).get("persist-credentials") is not False:
        yield "the checkout keeps its credentials"
    script = step.get("run", "")
    if "${{" in script:
        yield "an expression inside a script; pass it by env"
    elif script and step.get("shell", "bash") == "bash":
        checked = subprocess.run(
            [SHELLCHECK, "--shell=bash", "--exclude=SC2164", "--format=gcc", "-"],
            input=script,
            text=True,
            capture_output=True,
            check=False,
        )
        yield from checked.stdout.splitlines()


def main(paths):
    found = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    print("\n".join(found) if found else f"{len(paths)} workflows keep this project's rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
