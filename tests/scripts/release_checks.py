"""What must agree before a release, and the workflow that updates the registry: cases of check_extension.py."""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest

import yaml

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WORKFLOWS = os.path.join(TOP, ".github", "workflows")


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def cargo_version():
    return tomllib.loads(read("Cargo.toml"))["workspace"]["package"]["version"]


def workflows():
    return {name: read(os.path.join(WORKFLOWS, name)) for name in sorted(os.listdir(WORKFLOWS))}


def update_job():
    (job,) = yaml.safe_load(workflows()["update-extension.yml"])["jobs"].values()
    return job


class Release(unittest.TestCase):
    """What must agree with the version of Cargo.toml, and what the release guide must name."""

    def test_image_tags_in_documents_are_of_the_version(self):
        manifests = glob.glob("extension/kubernetes/*.yaml", root_dir=TOP)
        for path in ("README.md", "extension/OPERATIONS.md", "Dockerfile", *manifests):
            for tag in re.findall(r"ghcr\.io/pacphi/draupnir:([\w.-]+)", read(path)):
                self.assertEqual(tag, cargo_version(), path)
            for version in re.findall(r"sindri-agent[_-](\d[\w.]*?)-r?1[_.]", read(path)):
                self.assertEqual(version, cargo_version(), path)
        self.assertIn("ghcr.io/pacphi/draupnir:", read("extension/kubernetes/sidecar.yaml"))

    def test_lock_files_hold_the_version(self):
        for path in ("Cargo.lock", "fuzz/Cargo.lock"):
            versions = {
                package["name"]: package["version"]
                for package in tomllib.loads(read(path))["package"]
                if package["name"].startswith("draupnir") and package["name"] != "draupnir-fuzz-targets"
            }
            self.assertIn("draupnir-fsm", versions)
            self.assertEqual(set(versions.values()), {cargo_version()}, f"{path}: {versions}")

    def test_version_is_accepted_by_the_cli(self):
        """Above what the registry has, below 2.0.0."""
        self.assertTrue((1, 3, 0) <= tuple(int(part) for part in cargo_version().split(".")) < (2, 0, 0))

    def test_guide_names_every_secret_and_setting(self):
        guide = read(".github/RELEASING.md")
        for name, text in workflows().items():
            used = re.findall(r"\b(?:secrets|vars)\.(\w+)", text) + re.findall(r"^    environment: (\S+)", text, re.M)
            for setting in used:
                self.assertIn(f"`{setting}`", guide, name)

    def test_guide_names_files_that_exist(self):
        guide = read(".github/RELEASING.md")
        paths = re.findall(r"`((?:\.ci|extension|fuzz|src|tests)/[\w./-]*)", guide)
        paths += re.findall(r"`([A-Z]\w+\.(?:md|toml))`", guide)
        self.assertGreater(len(paths), 8, paths)
        self.assertEqual([path for path in paths if not os.path.exists(os.path.join(TOP, path))], [])

    def test_compiler_of_the_release_is_pinned(self):
        """One full version everywhere, so that a new compiler comes by a change that the gate has seen."""
        pinned = set()
        for name in ("ci.yml", "release.yml"):
            text = workflows()[name]
            pinned |= set(re.findall(r"image: rust:(\S+)-bookworm", text))
            pinned |= set(re.findall(r"rustup toolchain install (\d\S*|stable|nightly)", text))
            # Without the library's source the programs for Linux would be built by Debian's compiler of the day.
            for job in yaml.safe_load(text)["jobs"].values():
                steps = " ".join(step.get("run", "") for step in job.get("steps", []))
                if "static-binaries" in steps or "tests/run" in steps or ".ci/run" in steps or "reproducible" in steps:
                    self.assertRegex(steps, "rustup component add .*rust-src", name)
        (version,) = pinned
        self.assertRegex(version, r"^\d+\.\d+\.\d+$")

    def test_release_fails_when_the_registry_update_fails(self):
        job = yaml.safe_load(workflows()["release.yml"])["jobs"]["extension"]
        self.assertEqual(job["uses"], "./.github/workflows/update-extension.yml")
        self.assertNotIn("continue-on-error", job)


# In the place of GitHub's program: it notes what it is asked, and answers a search for pull requests.
GH = """#!/bin/sh
echo "$*" >>"$HOME/gh"
case "$1 $2" in
'pr list') cat "$HOME/open" 2>/dev/null ;;
'pr create') exit "$(cat "$HOME/status" 2>/dev/null || echo 0)" ;;
esac
"""


class RegistryUpdate(unittest.TestCase):
    """The scripts of update-extension.yml, run in their order against a registry on this disk."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="registry-update-")
        self.addCleanup(shutil.rmtree, self.folder)
        job = update_job()
        self.variables = {name: value for name, value in job["env"].items() if "${{" not in value}
        self.branch, self.file = self.variables["REGISTRY_BRANCH"], self.variables["FILE"]
        self.environment = {
            **{"HOME": self.folder, "PATH": f"{self.folder}/tools:{os.environ['PATH']}"},
            **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{self.folder}/registry.git.insteadOf"},
            "GIT_CONFIG_VALUE_0": f"https://github.com/{self.variables['REGISTRY']}.git",
            **{f"GIT_{role}_{what}": "test@example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        os.makedirs(f"{self.folder}/tools")
        with open(f"{self.folder}/tools/gh", "w", encoding="utf-8") as file:
            file.write(GH)
        os.chmod(file.name, 0o755)
        # The registry: nothing of the extension on its default branch.
        self.git("init", "--quiet", "--initial-branch", "main", "seed")
        self.git("-C", "seed", "commit", "--quiet", "--allow-empty", "--message", "first")
        self.git("-C", "seed", "switch", "--quiet", "--create", self.branch)
        os.makedirs(os.path.dirname(f"{self.folder}/seed/{self.file}"))
        fixture = os.path.join(TOP, "tests", "fixtures", "sindri", "registry-extension.yaml")
        shutil.copy(fixture, f"{self.folder}/seed/{self.file}")
        self.git("-C", "seed", "add", "--all")
        self.git("-C", "seed", "commit", "--quiet", "--message", "the extension")
        self.git("-C", "seed", "switch", "--quiet", "main")
        self.git("clone", "--quiet", "--bare", "seed", "registry.git")

    def git(self, *arguments):
        done = self.call(["git", *arguments], self.folder, self.environment)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout.strip()

    def call(self, command, place, environment):
        """Runs a command; standard output holds what it printed of both kinds."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, cwd=place, env=environment, check=False, **options)

    def run_job(self, token="t"):
        """Runs the steps until one fails; the last exit status and all output."""
        place = tempfile.mkdtemp(dir=self.folder)
        environment = {**self.environment, **self.variables, "TAG": f"v{cargo_version()}", "GH_TOKEN": token}
        output = ""
        for step in update_job()["steps"]:
            if "uses" in step and "repository" in step["with"]:
                self.assertEqual(step["with"]["repository"], "${{ env.REGISTRY }}")
                self.assertEqual(step["with"]["ref"], "${{ env.REGISTRY_BRANCH }}")
                self.git("clone", "--quiet", "--branch", self.branch, "registry.git", f"{place}/{step['with']['path']}")
            elif "uses" in step:
                shutil.copytree(os.path.join(TOP, "extension"), f"{place}/extension")
            else:
                command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
                done = self.call(command, place, environment)
                output += done.stdout
                if done.returncode:
                    return done.returncode, output
        return 0, output

    def asked(self):
        with open(f"{self.folder}/gh", encoding="utf-8") as file:
            return file.read()

    def test_pull_request_goes_from_the_branch_to_the_branch(self):
        status, output = self.run_job()
        self.assertEqual(status, 0, output)
        tag = f"v{cargo_version()}"
        changed = self.git("-C", "registry.git", "diff", "--name-only", self.branch, f"draupnir-{tag}")
        self.assertEqual(changed, self.file)
        base = self.git("-C", "registry.git", "merge-base", self.branch, f"draupnir-{tag}")
        self.assertEqual(base, self.git("-C", "registry.git", "rev-parse", self.branch))
        text = self.git("-C", "registry.git", "show", f"draupnir-{tag}:{self.file}")
        self.assertEqual(yaml.safe_load(text)["metadata"]["version"], cargo_version())
        self.assertIn(f"pr create --repo pacphi/sindri --base v3 --head draupnir-{tag}", self.asked())

    def test_second_run_opens_no_second_pull_request(self):
        self.assertEqual(self.run_job()[0], 0)
        os.remove(f"{self.folder}/gh")
        with open(f"{self.folder}/open", "w", encoding="utf-8") as file:
            file.write("7\n")
        self.assertEqual(self.run_job()[0], 0)
        self.assertNotIn("pr create", self.asked())

    def test_registry_that_has_the_version_is_left_alone(self):
        self.assertEqual(self.run_job()[0], 0)
        self.git("-C", "registry.git", "branch", "--force", self.branch, f"draupnir-v{cargo_version()}")
        os.remove(f"{self.folder}/gh")
        status, output = self.run_job()
        self.assertEqual(status, 0, output)
        self.assertIn("already", output)
        self.assertFalse(os.path.exists(f"{self.folder}/gh"))

    def test_missing_token_fails_with_a_hint(self):
        status, output = self.run_job(token="")
        self.assertEqual(status, 1)
        self.assertIn("REGISTRY_TOKEN", output)

    def test_refused_pull_request_fails_the_run(self):
        with open(f"{self.folder}/status", "w", encoding="utf-8") as file:
            file.write("4")
        self.assertEqual(self.run_job()[0], 4)
