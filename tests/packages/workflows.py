"""The scripts of release.yml and update-extension.yml, run in their order with their environment.

What stands for the rest of the world, and nothing else is replaced:
- `gh`, `docker`, `cargo` and `rustup` note what they are asked and answer as the real ones do;
- `git push` goes to a registry on this disk;
- tests/scripts/machine, tests/scripts/static-binaries and .github/release-build put the static programs that are built
  already where theirs would be: the one for amd64 stands for those of macOS;
- the workflow of the gate, which a release calls, is not run;
- the heading of the version in CHANGELOG.md has a date.
"""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest

from build import TOP, VERSION, program, read
from workflow_runner import Failed, Workflow, scripts

WORKFLOWS = os.path.join(TOP, ".github", "workflows")
RELEASE, UPDATE = (os.path.join(WORKFLOWS, f"{name}.yml") for name in ("release", "update-extension"))
DIGEST = "sha256:" + "5" * 64
TOKEN = "token-of-the-run"
REGISTRY_TOKEN = "token-of-the-registry"

FAKES = {
    "gh": """
[ -n "$GH_TOKEN" ] || { echo 'gh: no token' >&2; exit 4; }
echo "$1 $2: $GH_TOKEN" >>"$FAKE/tokens"
case "$1 $2" in
'pr list') cat "$FAKE/open" 2>/dev/null || : ;;
'release create') for file; do case $file in dist/*) [ -s "$file" ] || exit 1 ;; esac; done ;;
'pr create' | 'auth setup-git') ;;
*) echo "gh: not known here: $*" >&2; exit 1 ;;
esac
""",
    "docker": f"""
case "$1 $2" in
'login ghcr.io') grep -qxF '{TOKEN}' ;;
'buildx create') ;;
'buildx build')
  [ -s dist/sindri-agent-linux-amd64 ] && [ -s dist/sindri-agent-linux-arm64 ] && [ -s Dockerfile ]
  while [ "$1" != --metadata-file ]; do shift; done
  echo '{{"containerimage.digest": "{DIGEST}"}}' >"$2"
  ;;
*) echo "docker: not known here: $*" >&2; exit 1 ;;
esac
""",
    "cargo": """
case $1 in
install) ;;
cyclonedx)
  while [ "$1" != --override-filename ]; do shift; done
  echo '{"bomFormat": "CycloneDX"}' >"$2.json"
  ;;
*) echo "cargo: not known here: $*" >&2; exit 1 ;;
esac
""",
    "rustup": "",
}
STAND_INS = {
    "tests/scripts/machine": f'mkdir -p target/venv/bin && ln -s "{TOP}/target/venv/bin/nfpm" target/venv/bin/nfpm',
    "tests/scripts/static-binaries": f'mkdir -p target/static; for name; do cp "{TOP}/target/static/sindri-agent-$name" target/static/; done',
    ".github/release-build": f'mkdir -p "target/$1/release" && cp "{program()}" "target/$1/release/sindri-agent"',
}


def write_script(path, body, noted=False):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    note = 'printf "%s\\n" "${0##*/} $*" >>"$FAKE/asked"\n' if noted else ""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\nset -e\n{note}{body}")
    os.chmod(path, 0o755)


class Workflows(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory(prefix="workflows-"))
        self.environment = {
            **{"HOME": self.folder, "FAKE": self.folder, "PATH": f"{self.folder}/tools:{os.environ['PATH']}"},
            # What git would ask the person or GitHub.
            **{f"GIT_{role}_{what}": "test@example" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{self.folder}/registry.git.insteadOf"},
            "GIT_CONFIG_VALUE_0": "https://github.com/pacphi/sindri.git",
        }
        for name, body in FAKES.items():
            write_script(f"{self.folder}/tools/{name}", body, noted=True)
        self.make_registry()
        self.make_work_tree()

    def git(self, *arguments, place=None):
        done = subprocess.run(
            ["git", *arguments], cwd=place or self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout.strip()

    def make_registry(self):
        path = f"{self.folder}/seed/v3/extensions/draupnir/extension.yaml"
        os.makedirs(os.path.dirname(path))
        shutil.copy(os.path.join(TOP, "tests/fixtures/sindri/registry-extension.yaml"), path)
        self.git("init", "--quiet", "--initial-branch", "v3", "seed")
        self.git("-C", "seed", "add", "--all")
        self.git("-C", "seed", "commit", "--quiet", "--message", "the extension")
        self.git("clone", "--quiet", "--bare", "seed", "registry.git")

    def make_work_tree(self):
        """A copy of the files of this repository, as they are now, with what stands in for builds."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=TOP, capture_output=True, text=True, check=True
        )
        self.tree = f"{self.folder}/tree"
        for path in listed.stdout.splitlines():
            if not path.startswith("fuzz/corpus/") and os.path.exists(os.path.join(TOP, path)):
                os.makedirs(os.path.dirname(f"{self.tree}/{path}"), exist_ok=True)
                shutil.copy(os.path.join(TOP, path), f"{self.tree}/{path}")
        for path, body in STAND_INS.items():
            write_script(f"{self.tree}/{path}", body)
        self.edit("CHANGELOG.md", rf"(## \[{re.escape(VERSION)}\]) - .*", r"\1 - 2026-01-02")
        self.git("init", "--quiet", place=self.tree)

    def edit(self, path, pattern, replacement):
        with open(f"{self.tree}/{path}", encoding="utf-8") as file:
            text, count = re.subn(pattern, replacement, file.read())
        self.assertGreater(count, 0, path)
        with open(f"{self.tree}/{path}", "w", encoding="utf-8") as file:
            file.write(text)

    def checkout(self, place, arguments):
        self.assertEqual(arguments["persist-credentials"].lower(), "false")
        if "repository" in arguments:
            self.assertEqual(arguments["repository"], "pacphi/sindri")
            self.git("clone", "--quiet", "--branch", arguments["ref"], f"{self.folder}/registry.git", place)
            return
        shutil.copytree(self.tree, place, dirs_exist_ok=True)
        self.git("add", "--all", place=place)
        self.git("commit", "--quiet", "--message", "the release", place=place)

    def workflow(self, path, tag, **more):
        expressions = {
            "github.ref_name": tag,
            "github.sha": "0123456789abcdef0123456789abcdef01234567",
            "github.token": TOKEN,
            "github.repository": "Pacphi/Draupnir",
            "github.actor": "someone",
            "secrets.REGISTRY_TOKEN": REGISTRY_TOKEN,
            "!contains(github.ref_name, '-')": "-" not in tag,
            "matrix.name": lambda context: context["matrix"]["name"],
            "matrix.triple": lambda context: context["matrix"]["triple"],
            "matrix.name == 'darwin-arm64'": lambda context: context["matrix"]["name"] == "darwin-arm64",
            "env.NAME": lambda context: context["env"]["NAME"],
            "env.REGISTRY": lambda context: context["env"]["REGISTRY"],
            "env.REGISTRY_BRANCH": lambda context: context["env"]["REGISTRY_BRANCH"],
            "steps.image.outputs.name": lambda context: context["steps"]["image"]["name"],
            "steps.image.outputs.digest": lambda context: context["steps"]["image"]["digest"],
            **more,
        }
        folder = os.path.join(self.folder, os.path.basename(path))
        return Workflow(path, folder, self.checkout, expressions, self.environment)

    def release(self, tag, carry=None):
        """Runs a release and what it calls; the workflows of both."""
        release = self.workflow(RELEASE, tag)
        if carry:
            release.carry = carry
        update = None

        def update_extension(inputs):
            nonlocal update
            more = {"inputs.tag || github.event.release.tag_name": inputs["tag"], "!github.event.release.prerelease": True}
            update = self.workflow(UPDATE, tag, **more)
            update.run()

        self.begun = release
        release.run({"test": lambda inputs: None, "extension": update_extension})
        return release, update

    def asked(self, program):
        with open(f"{self.folder}/asked", encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file if line.startswith(f"{program} ")]

    def attached(self):
        (line,) = [line for line in self.asked("gh") if " release create " in line]
        return {word.removeprefix("dist/") for word in line.split() if word.startswith("dist/")}

    def test_release_runs_every_script_and_attaches_everything(self):
        release, update = self.release(f"v{VERSION}")
        self.assertEqual({script for _, script in release.steps}, set(scripts(RELEASE)))
        self.assertEqual({script for _, script in update.steps}, set(scripts(UPDATE)))

        systems = [f"sindri-agent-{name}" for name in ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64")]
        packages = [f"sindri-agent_{VERSION}-1_{arch}.deb" for arch in ("amd64", "arm64")]
        for arch in ("x86_64", "aarch64"):
            packages += [f"sindri-agent-{VERSION}-1.{arch}.rpm", f"sindri-agent_{VERSION}-r1_{arch}.apk"]
        others = {"install.sh", "extension.yaml", "sindri-agent.cdx.json", "draupnir.vectors.json"}
        others |= set(os.listdir(os.path.join(TOP, "src/protocol/schema")))
        attested = {os.path.basename(name) for name in release.attested}
        image = f"ghcr.io/pacphi/draupnir@{DIGEST}"
        self.assertIn(image, release.attested)
        self.assertEqual(attested - {os.path.basename(image)}, {*systems, *packages} | others)
        self.assertEqual(self.attached(), {*systems, *packages} | others | {f"{name}.sha256" for name in systems + packages})

        (line,) = [line for line in self.asked("docker") if "buildx build" in line]
        self.assertIn(f"--tag ghcr.io/pacphi/draupnir:{VERSION} --tag ghcr.io/pacphi/draupnir:latest", line)
        (line,) = [line for line in self.asked("gh") if " release create " in line]
        self.assertTrue(line.startswith(f"gh release create v{VERSION} --verify-tag --title v{VERSION} --notes-file notes.md dist/"))
        self.assertIn(f"gh pr create --repo pacphi/sindri --base v3 --head draupnir-v{VERSION}", "\n".join(self.asked("gh")))
        with open(f"{self.folder}/tokens", encoding="utf-8") as file:
            tokens = dict(line.rstrip("\n").split(": ") for line in file)
        self.assertEqual((tokens["release create"], tokens["pr create"]), (TOKEN, REGISTRY_TOKEN))
        text = self.git("-C", "registry.git", "show", f"draupnir-v{VERSION}:v3/extensions/draupnir/extension.yaml")
        self.assertIn(f"version: {VERSION}", text)

    def test_prerelease_is_neither_latest_nor_in_the_registry(self):
        version = f"{VERSION}-rc.1"
        self.edit("Cargo.toml", rf'(?m)^version = "{re.escape(VERSION)}"', f'version = "{version}"')
        self.edit("extension/extension.yaml", rf"(?m)^  version: {re.escape(VERSION)}", f"  version: {version}")
        self.edit("CHANGELOG.md", rf"## \[{re.escape(VERSION)}\]", f"## [{version}]")
        release, update = self.release(f"v{version}")
        self.assertIsNone(update)
        self.assertEqual(release.skipped[-1], "extension")
        (line,) = [line for line in self.asked("gh") if " release create " in line]
        self.assertIn(" --prerelease ", line)
        (line,) = [line for line in self.asked("docker") if "buildx build" in line]
        self.assertNotIn(":latest", line)
        self.assertIn(f"sindri-agent_{VERSION}~rc.1-1_amd64.deb", self.attached())

    def test_version_without_a_date_stops_at_the_first_job(self):
        self.edit("CHANGELOG.md", rf"(## \[{re.escape(VERSION)}\]) - .*", r"\1 - Unreleased")
        with self.assertRaisesRegex(Failed, "no date of release"):
            self.release(f"v{VERSION}")
        self.assertEqual({job for job, _ in self.begun.steps}, {"check"})

    def test_package_that_was_damaged_on_its_way_is_not_published(self):
        def damage(source, target):
            Workflow.carry(None, source, target)
            for path in glob.glob(f"{target}/*.rpm"):
                with open(path, "ab") as file:
                    file.write(b"x")

        with self.assertRaisesRegex(Failed, r"rpm: FAILED"):
            self.release(f"v{VERSION}", damage)
        self.assertFalse([line for line in self.asked("gh") if "release" in line])

    def test_unknown_expression_or_action_fails(self):
        workflow = self.workflow(RELEASE, f"v{VERSION}")
        with self.assertRaisesRegex(Failed, "does not know: github.event.title"):
            workflow.filled("${{ github.event.title }}", {})
        with self.assertRaisesRegex(Failed, "does not know: some/action"):
            workflow.act("job", "some/action", {}, self.folder)

    def test_every_expression_of_the_table_is_used(self):
        text = read(".github/workflows/release.yml") + read(".github/workflows/update-extension.yml")
        table = self.workflow(RELEASE, f"v{VERSION}").expressions
        self.assertEqual([expression for expression in table if expression not in text], [])
