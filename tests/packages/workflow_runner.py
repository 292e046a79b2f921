"""Runs the jobs of a workflow of GitHub on this machine, for tests.

It runs every `run:` block with the shell and the environment that GitHub gives it, in the order of `needs`. Each job
has a work tree of its own. It does what the actions of GitHub do that the workflows use: check out, carry artifacts,
attest. An expression in `${{ }}` has its value from a table; one that is not there fails the run. It does not read
`permissions` or `timeout-minutes`, and it makes no container.
"""

import glob
import os
import re
import shutil
import subprocess

import yaml

SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"]


class Failed(Exception):
    """A step failed: its job, its script or action, its exit status and output."""


class Workflow:
    """`expressions` is the table: an expression without `${{ }}`, and its value or a function of the job's context.

    `checkout(path, repository)` makes a work tree; `environment` is that of the machine. After `run`, `steps` holds
    (job, script) of each block that ran, `attested` the files and images, `skipped` the jobs and steps whose `if` is
    false.
    """

    def __init__(self, path, folder, checkout, expressions, environment):
        with open(path, encoding="utf-8") as file:
            self.jobs = yaml.safe_load(file)["jobs"]
        self.folder, self.checkout, self.expressions, self.environment = folder, checkout, expressions, environment
        self.steps, self.attested, self.skipped, self.output = [], [], [], ""
        self.artifacts = os.path.join(folder, "artifacts")
        self.used = set()

    def value(self, expression, context):
        """The value of one expression, which the table must hold."""
        expression = expression.strip()
        if expression not in self.expressions:
            raise Failed(f"an expression that the test does not know: {expression}")
        self.used.add(expression)
        value = self.expressions[expression]
        return value(context) if callable(value) else value

    def filled(self, text, context):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda match: str(self.value(match[1], context)), str(text))

    def holds(self, condition, context):
        return self.value(re.sub(r"^\$\{\{(.*)\}\}$", r"\1", str(condition)), context)

    def run(self, called=None):
        """Runs all jobs; `called` maps a job that calls another workflow to what stands for it."""
        waiting = dict(self.jobs)
        while waiting:
            ready = [name for name, job in waiting.items() if not set(needs(job)) & set(waiting)]
            if not ready:
                raise Failed(f"these jobs need each other: {', '.join(waiting)}")
            for name in ready:
                job = waiting.pop(name)
                if "if" in job and not self.holds(job["if"], {}):
                    self.skipped.append(name)
                elif "uses" in job:
                    inputs = {key: self.filled(value, {}) for key, value in job.get("with", {}).items()}
                    called[name](inputs)
                else:
                    for matrix in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
                        self.run_job(name, job, matrix)

    def run_job(self, name, job, matrix):
        label = "-".join([name, *(str(value) for value in matrix.values())])
        place = os.path.join(self.folder, "jobs", label)
        os.makedirs(place)
        context = {"matrix": matrix, "steps": {}, "env": {}}
        for key, value in job.get("env", {}).items():
            context["env"][key] = self.filled(value, context)
        for step in job["steps"]:
            if "if" in step and not self.holds(step["if"], context):
                self.skipped.append(step.get("run") or step["uses"])
            elif "uses" in step:
                arguments = {key: self.filled(value, context) for key, value in step.get("with", {}).items()}
                self.act(label, step["uses"].split("@")[0], arguments, place)
            else:
                self.run_script(label, step, context, place)

    def run_script(self, label, step, context, place):
        output = os.path.join(self.folder, "output")
        with open(output, "w", encoding="utf-8"):
            pass
        own = {key: self.filled(value, context) for key, value in step.get("env", {}).items()}
        environment = {**self.environment, "CI": "true", "GITHUB_OUTPUT": output, **context["env"], **own}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
        done = subprocess.run([*SHELL, step["run"]], cwd=place, env=environment, check=False, **options)
        self.steps.append((label, step["run"]))
        self.output += done.stdout
        if done.returncode:
            raise Failed(f"{label}: status {done.returncode} of\n{step['run']}\n{done.stdout}")
        with open(output, encoding="utf-8") as file:
            lines = [line.rstrip("\n").split("=", 1) for line in file]
        if "id" in step:
            context["steps"][step["id"]] = dict(lines)

    def act(self, label, action, arguments, place):
        match action:
            case "actions/checkout":
                self.checkout(os.path.join(place, arguments.get("path", ".")), arguments)
            case "actions/upload-artifact":
                source = os.path.join(place, arguments["path"])
                target = os.path.join(self.artifacts, arguments["name"])
                if os.path.exists(target):
                    raise Failed(f"{label}: a second artifact {arguments['name']}")
                if not os.path.isdir(source) or not os.listdir(source):
                    raise Failed(f"{label}: no files for the artifact {arguments['name']}: {arguments['path']}")
                shutil.copytree(source, target)
            case "actions/download-artifact":
                for name in sorted(os.listdir(self.artifacts)):
                    folder = "" if arguments["merge-multiple"].lower() == "true" else name
                    target = os.path.join(place, arguments["path"], folder)
                    self.carry(os.path.join(self.artifacts, name), target)
            case "actions/attest-build-provenance":
                for pattern in arguments.get("subject-path", "").split():
                    found = glob.glob(pattern, root_dir=place)
                    if not found:
                        raise Failed(f"{label}: there is no {pattern} to attest")
                    self.attested += found
                if "subject-name" in arguments:
                    self.attested.append(f"{arguments['subject-name']}@{arguments['subject-digest']}")
            case _:
                raise Failed(f"{label}: an action that the test does not know: {action}")

    def carry(self, source, target):
        """As the action carries files: without the mode that lets a program run."""
        for folder, _, names in os.walk(source):
            for name in names:
                path = os.path.join(target, os.path.relpath(os.path.join(folder, name), source))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if os.path.exists(path):
                    raise Failed(f"two artifacts hold {path}")
                shutil.copyfile(os.path.join(folder, name), path)
                os.chmod(path, 0o644)


def needs(job):
    given = job.get("needs", [])
    return [given] if isinstance(given, str) else given


def scripts(workflow_path):
    """Each `run:` block of a workflow."""
    with open(workflow_path, encoding="utf-8") as file:
        jobs = yaml.safe_load(file)["jobs"]
    return [step["run"] for job in jobs.values() for step in job.get("steps", []) if "run" in step]
