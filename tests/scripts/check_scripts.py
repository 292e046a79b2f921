"""Tests the scripts beside it that can be wrong without anybody noticing: the list of skips and the adding-up.

Its last line is `N passed, N failed`, alone.
"""

import os
import subprocess
import sys
import tempfile
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

    def test_a_skip_that_nobody_allowed_fails(self):
        status, output = run("skips.py", "a: reason\n", "a: reason\nb: other\n")
        self.assertEqual(status, 1, output)
        self.assertIn("FORBIDDEN  b: other", output)

    def test_a_quick_run_may_leave_out_what_it_says_so_of(self):
        self.assertEqual(run("skips.py", "", "slow: quick run\n")[0], 0)

    def test_an_allowed_test_that_ran_is_only_warned_of(self):
        status, output = run("skips.py", "a: reason\n", "")
        self.assertEqual(status, 0, output)
        self.assertIn("not skipped here, though it may be: a", output)


class Total(unittest.TestCase):
    def test_both_kinds_of_closing_line_are_added_up(self):
        log = (
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n"
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n"
            "10 passed, 1 failed\n"
            "noise: 99 passed, 99 failed\n"
        )
        self.assertEqual(run("total.py", log), (0, "14 passed, 3 failed\n"))


if __name__ == "__main__":
    run_and_report()
