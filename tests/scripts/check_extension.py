"""Tests extension.yaml, the registry's variant of it, and the edit that brings a registry's file up to date.

Its last line is `N passed, N failed`, alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import yaml
from plain_runner import run_and_report

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
RENDER = os.path.join(TOP, "extension", "render")
SAMPLE = os.path.join(HERE, "samples", "registry-extension.yaml")

# The registry's schema, as far as it concerns this file.
CATEGORIES = """ai-agents ai-dev claude cloud desktop devops documentation languages mcp package-manager productivity
research testing""".split()


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def render(*arguments):
    return subprocess.run([sys.executable, RENDER, *arguments], capture_output=True, text=True, check=False)


def cargo_version():
    with open(os.path.join(TOP, "Cargo.toml"), "rb") as file:
        return tomllib.load(file)["workspace"]["package"]["version"]


class Own(unittest.TestCase):
    def setUp(self):
        self.extension = yaml.safe_load(read(os.path.join(TOP, "extension", "extension.yaml")))

    def test_it_says_what_the_design_says(self):
        self.assertEqual(self.extension["metadata"]["name"], "draupnir")
        self.assertEqual(self.extension["metadata"]["category"], "management")
        self.assertEqual(self.extension["install"], {"method": "script", "script": {"path": "install.sh", "timeout": 120}})
        (command,) = self.extension["validate"]["commands"]
        self.assertEqual((command["name"], command["versionFlag"]), ("sindri-agent", "--version"))
        self.assertEqual(command["expectedPattern"], r"\d+\.\d+\.\d+")

    def test_its_version_is_that_of_cargo(self):
        self.assertEqual(self.extension["metadata"]["version"], cargo_version())

    def test_the_installer_is_beside_it(self):
        self.assertTrue(os.access(os.path.join(TOP, "extension", "install.sh"), os.X_OK))


class Registry(unittest.TestCase):
    def setUp(self):
        done = render()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.variant = yaml.safe_load(done.stdout)

    def test_it_is_what_the_registry_accepts(self):
        metadata, script = self.variant["metadata"], self.variant["install"]["script"]
        self.assertRegex(metadata["name"], r"^[a-z][a-z0-9-]*$")
        self.assertRegex(metadata["version"], r"^\d+\.\d+\.\d+$")
        self.assertTrue(10 <= len(metadata["description"]) <= 200)
        self.assertIn(metadata["category"], CATEGORIES)
        self.assertIsInstance(script["path"], str)
        self.assertTrue(all(isinstance(argument, str) for argument in script["args"]))
        self.assertLessEqual({"metadata", "install", "validate"}, self.variant.keys())

    def test_it_takes_the_installer_of_its_own_version(self):
        version, script = cargo_version(), self.variant["install"]["script"]
        self.assertEqual(script["path"], f"https://github.com/pacphi/draupnir/releases/download/v{version}/install.sh")
        self.assertEqual(script["args"], [version])

    def test_nothing_else_differs(self):
        own = yaml.safe_load(read(os.path.join(TOP, "extension", "extension.yaml")))
        self.variant["metadata"]["category"] = own["metadata"]["category"]
        self.variant["install"]["script"] = own["install"]["script"]
        self.assertEqual(self.variant, own)


class Update(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "extension.yaml")
        shutil.copy(SAMPLE, self.path)

    def test_only_its_own_version_changes(self):
        done = render("--update", self.path, "v1.2.0")
        self.assertEqual(done.returncode, 0, done.stderr)
        changed = [pair for pair in zip(read(SAMPLE).splitlines(), read(self.path).splitlines()) if pair[0] != pair[1]]
        self.assertEqual(
            [new.strip() for _, new in changed],
            [
                "version: 1.2.0 # kept in step by a workflow",
                "path: https://github.com/pacphi/draupnir/releases/download/v1.2.0/install.sh",
                'args: ["1.2.0"]',
                'version: "1.2.0"',
                "purl: pkg:github/pacphi/draupnir@v1.2.0",
            ],
        )

    def test_the_second_time_changes_nothing(self):
        render("--update", self.path, "1.2.0")
        once = read(self.path)
        self.assertEqual(render("--update", self.path, "1.2.0").returncode, 0)
        self.assertEqual(read(self.path), once)

    def test_the_rendered_variant_can_be_updated(self):
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(render().stdout)
        self.assertEqual(render("--update", self.path, "7.8.9").returncode, 0)
        self.assertNotIn(cargo_version(), read(self.path))
        self.assertEqual(len(re.findall(r"7\.8\.9", read(self.path))), 4)

    def test_what_is_not_this_extension_is_left_alone(self):
        for text in ("metadata:\n  name: other\n  version: 1.0.0\n", "metadata:\n  name: draupnir\n", ""):
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
            self.assertEqual(render("--update", self.path, "1.2.0").returncode, 1)
            self.assertEqual(read(self.path), text)

    def test_what_is_not_a_version_is_refused(self):
        for version in ("latest", "1.2", "1.2.0\n", "../1.2.0"):
            self.assertEqual(render("--update", self.path, version).returncode, 1)
            self.assertEqual(read(self.path), read(SAMPLE))


if __name__ == "__main__":
    run_and_report()
