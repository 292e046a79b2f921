"""Builds packages for the tests, from the static program that tests/scripts/static-binaries makes."""

import os
import shutil
import subprocess
import tempfile
import tomllib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


VERSION = tomllib.loads(read("Cargo.toml"))["workspace"]["package"]["version"]


def program(arch="amd64"):
    return os.path.join(TOP, "target", "static", f"sindri-agent-linux-{arch}")


def build(folder, *formats, arch="amd64", version=VERSION, epoch=None):
    """Builds the packages of one architecture into a folder, as a release does."""
    environment = {**os.environ, "VERSION": version}
    if epoch:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    command = [os.path.join(TOP, ".github", "release-packages"), program(arch), folder, *formats]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=environment, check=False, **options)
    if done.returncode:
        raise AssertionError(done.stdout)


def unpacked(case, command, package):
    """A folder with what `command FOLDER` unpacks of the package from its standard input."""
    folder = tempfile.mkdtemp(prefix="packages-")
    case.addCleanup(shutil.rmtree, folder)
    with open(package, "rb") as file:
        subprocess.run([part.replace("FOLDER", folder) for part in command], stdin=file, cwd=folder, check=True)
    return folder
