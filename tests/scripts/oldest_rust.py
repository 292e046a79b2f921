"""Checks that no dependency asks for a newer Rust than the project promises in `rust-version`.

It reads the locked graph only, so that it needs neither a network nor that compiler; a workflow compiles with it.
"""

import json
import subprocess
import sys


def number(version):
    return tuple(int(part) for part in (version + ".0.0").split(".")[:3])


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    promised = packages[metadata["workspace_members"][0]]["rust_version"]
    # What is for other systems only is in the graph too, and no business of ours.
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    newer = [
        f"{package['name']} {package['version']} wants Rust {package['rust_version']}"
        for package in packages.values()
        if package["id"] in used and package["rust_version"] and number(package["rust_version"]) > number(promised)
    ]
    print("\n".join(newer) if newer else f"every one of {len(used)} packages is content with Rust {promised}")
    return 1 if newer else 0


if __name__ == "__main__":
    sys.exit(main())
