"""Runs the unittest cases of the script that calls it, and ends with the line `N passed, N failed`, alone."""

import sys
import unittest


def run_and_report():
    result = unittest.main(module="__main__", exit=False, verbosity=2, argv=[sys.argv[0]]).result
    broken = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - broken} passed, {broken} failed", flush=True)
    sys.exit(1 if broken else 0)
