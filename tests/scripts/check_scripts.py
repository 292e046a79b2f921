"""Tests the scripts beside it whose faults would not show otherwise: the list of skips, the scan for the key, the sum
of all tests, the release notes and the rules for workflows.

Its last line is `N passed, N failed`, alone.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
import unittest

from plain_runner import run_and_report

HERE = os.path.dirname(os.path.abspath(__file__))


def run(script, *contents):
    """Runs a script over files with these contents; its exit status and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate(contents):
            paths.append(os.path.join(folder, str(number)))
            with open(paths[-1], "w", encoding="utf-8") as file:
                file.write(content)
        done = subprocess.run(
            [sys.executable, os.path.join(HERE, script), *paths], capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


class Skips(unittest.TestCase):
    def test_an_allowed_skip_passes_and_is_listed(self):
        status, output = run("skips.py", "# why\na::b: no such device\n", "a::b: /dev/x is missing\n")
        self.assertEqual(status, 0, output)
        self.assertIn("a::b: /dev/x is missing", output)

    def test_skip_not_allowed_fails(self):
        status, output = run("skips.py", "a: reason\n", "a: reason\nb: other\n")
        self.assertEqual(status, 1, output)
        self.assertIn("FORBIDDEN  b: other", output)

    def test_a_quick_run_may_leave_out_what_it_says_so_of(self):
        self.assertEqual(run("skips.py", "", "slow: quick run\n")[0], 0)

    def test_an_ordinary_user_may_leave_out_what_only_root_can_do(self):
        allowed = "(not root): only root can\n(not root): no FUSE\n"
        status, output = run("skips.py", allowed, "a: only root can mount\n")
        self.assertEqual(status, 1 if os.geteuid() == 0 else 0, output)
        self.assertNotIn("(not root)", output)
        self.assertEqual(run("skips.py", allowed, "b: no strace\n")[0], 1)

    def test_allowed_skip_that_ran_warns(self):
        status, output = run("skips.py", "a: reason\n", "")
        self.assertEqual(status, 0, output)
        self.assertIn("not skipped here, though it may be: a", output)


class Traces(unittest.TestCase):
    def judged(self, agents=250, **changes):
        trace = {"test": "t", "found": [], "printed": 9, "recorded": 1, "remembered": 1, "audited": 1, "other": 0}
        first = json.dumps(trace | changes)
        return run("traces.py", "\n".join([first, *[json.dumps(trace | {"recorded": 0, "audited": 0})] * (agents - 1)]))

    def test_many_agents_without_a_key_pass(self):
        status, output = self.judged()
        self.assertEqual(status, 0, output)
        self.assertIn("250 agents: 2250 bytes printed, 1 bytes recorded", output)

    def test_one_key_among_them_fails(self):
        status, output = self.judged(found=["the key stands in the log (base64)"])
        self.assertEqual(status, 1, output)
        self.assertIn("FAILED: t: the key stands in the log (base64)", output)

    def test_a_scan_of_little_or_nothing_fails(self):
        self.assertIn("only 249 agents", self.judged(agents=249)[1])
        self.assertEqual(run("traces.py", "")[0], 1)
        status, output = self.judged(audited=0)
        self.assertEqual(status, 1, output)
        self.assertIn("nothing was audited", output)


class Total(unittest.TestCase):
    def test_both_kinds_of_closing_line_are_added_up(self):
        log = (
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n"
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n"
            "10 passed, 1 failed\n"
            "noise: 99 passed, 99 failed\n"
        )
        self.assertEqual(run("total.py", log), (0, "14 passed, 3 failed\n"))


class ReleaseNotes(unittest.TestCase):
    CHANGELOG = (
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-01-02\n\n### Fixed\n\n- It works.\n\n"
        "## [1.2.2] - 2026-01-01\n\n- It does not.\n\n[1.2.3]: https://example.org\n"
    )

    def notes(self, tag, cargo="1.2.3", extension="1.2.3", changelog=CHANGELOG):
        with tempfile.TemporaryDirectory() as top:
            os.mkdir(os.path.join(top, "extension"))
            for path, content in (
                ("Cargo.toml", f'[workspace]\nversion = "0"\n[workspace.package]\nversion = "{cargo}"\n'),
                ("extension/extension.yaml", f"metadata:\n  name: draupnir\n  version: {extension}\n"),
                ("CHANGELOG.md", changelog),
            ):
                with open(os.path.join(top, path), "w", encoding="utf-8") as file:
                    file.write(content)
            command = [sys.executable, os.path.join(HERE, "..", "..", ".github", "release-notes"), tag, top]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

    def test_they_are_the_section_of_the_version(self):
        self.assertEqual(self.notes("v1.2.3"), (0, "### Fixed\n\n- It works.\n"))

    def test_the_last_section_ends_before_the_links(self):
        self.assertEqual(self.notes("v1.2.2", cargo="1.2.2", extension="1.2.2"), (0, "- It does not.\n"))

    def test_a_tag_of_another_version_is_refused(self):
        self.assertEqual(self.notes("v1.2.4")[0], 1)
        self.assertIn("extension.yaml says 1.2.2", self.notes("v1.2.3", extension="1.2.2")[1])

    def test_a_version_without_a_section_is_refused(self):
        self.assertIn("says nothing", self.notes("v2.0.0", cargo="2.0.0", extension="2.0.0")[1])

    def test_invalid_version_is_refused(self):
        for tag in ("1.2.3", "v1.2", "vnext", "v1.2.3\n"):
            self.assertEqual(self.notes(tag)[0], 1, tag)

    def test_a_section_without_a_date_is_refused(self):
        for heading in ("- Unreleased", "", "- soon", "- 2026-01-02 (withdrawn)"):
            status, output = self.notes("v1.2.3", changelog=self.CHANGELOG.replace("- 2026-01-02", heading))
            self.assertEqual(status, 1, heading)
            self.assertIn("no date of release", output)

    def test_the_project_itself_lacks_at_most_the_date(self):
        with open(os.path.join(HERE, "..", "..", "Cargo.toml"), "rb") as file:
            version = tomllib.load(file)["workspace"]["package"]["version"]
        command = [sys.executable, os.path.join(HERE, "..", "..", ".github", "release-notes"), f"v{version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.assertIn("no date of release: - Unreleased", done.stderr)


class Workflows(unittest.TestCase):
    GOOD = """
permissions:
  contents: read
jobs:
  one:
    timeout-minutes: 5
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0
        with:
          persist-credentials: false
      - env:
          TITLE: ${{ github.event.title }}
        run: echo "$TITLE"
"""

    def findings(self, old="", new=""):
        return run("check_workflows.py", self.GOOD.replace(old, new))

    def test_a_good_one_passes(self):
        self.assertEqual(self.findings()[0], 0, self.findings()[1])

    def test_each_rule_is_held(self):
        for old, new, what in (
            ("08c6903cd8c0fde910a37f88322edcfb5dd907a8", "v5", "not pinned"),
            (" # v5.0.0", "", "no commit and version"),
            ("contents: read", "contents: write", "permissions"),
            ("permissions:\n  contents: read\n", "", "permissions"),
            ("    timeout-minutes: 5\n", "", "timeout-minutes"),
            ("persist-credentials: false", "fetch-depth: 0", "keeps its credentials"),
            ('echo "$TITLE"', "echo ${{ github.event.title }}", "expression inside a script"),
            ('echo "$TITLE"', "echo $TITLE", "SC2086"),
        ):
            status, output = self.findings(old, new)
            self.assertEqual(status, 1, what)
            self.assertIn(what, output)


if __name__ == "__main__":
    run_and_report()
