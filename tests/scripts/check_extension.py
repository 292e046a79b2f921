"""Tests extension.yaml, the registry's variant of it, the edit that brings a registry's file up to date, the agent's
life on an instance as Sindri leads it, and what else must agree before a release.

    check_extension.py

DRAUPNIR_SINDRI_SCHEMA names Sindri's own schema of extensions and DRAUPNIR_SINDRI_EXTENSION the registry's own file,
where there is a copy: they are then used beside this project's excerpts. DRAUPNIR_AGENT names the program to try
(default: the one that cargo builds). The last line is `N passed, N failed`, alone.
"""

import asyncio
import base64
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

import jsonschema
import yaml
from loopback import KEY, Console
from plain_runner import run_and_report
from release_checks import RegistryUpdate, Release  # noqa: F401 # its cases run along with those below
from release_checks import cargo_version, read
from sindri import Instance, alive, within

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
RENDER = os.path.join(TOP, "extension", "render")
OWN = os.path.join(TOP, "extension", "extension.yaml")
FIXTURES = os.path.join(TOP, "tests", "fixtures", "sindri")


def with_original(fixture, variable):
    """The fixture in this project's words, and Sindri's own file where the variable names one."""
    return [os.path.join(FIXTURES, fixture), *filter(None, [os.environ.get(variable)])]


SCHEMAS = with_original("extension.schema.json", "DRAUPNIR_SINDRI_SCHEMA")
REGISTRY = with_original("registry-extension.yaml", "DRAUPNIR_SINDRI_EXTENSION")


def render(*arguments):
    return subprocess.run([sys.executable, RENDER, *arguments], capture_output=True, text=True, check=False)


def agent():
    """The program to try; cargo builds it where it is missing or older than its sources."""
    if not os.environ.get("DRAUPNIR_AGENT"):
        command = ["cargo", "build", "--quiet", "--locked", "--workspace", "--bin", "sindri-agent"]
        subprocess.run(command, cwd=TOP, check=True)
    return os.environ.get("DRAUPNIR_AGENT") or os.path.join(TOP, "target", "debug", "sindri-agent")


def schema_problems(text):
    """What the schemas say of a file: one line each, empty where it is valid."""
    problems = []
    for path in SCHEMAS:
        validator = jsonschema.Draft7Validator(json.loads(read(path)))
        for error in validator.iter_errors(yaml.safe_load(text)):
            problems.append(f"{os.path.basename(path)}: {error.json_path}: {error.message}")
    return problems


class Schema(unittest.TestCase):
    def test_own_file_is_valid(self):
        self.assertEqual(schema_problems(read(OWN)), [])

    def test_registry_variant_is_valid(self):
        self.assertEqual(schema_problems(render().stdout), [])

    def test_registry_file_is_valid(self):
        for path in REGISTRY:
            self.assertEqual(schema_problems(read(path)), [], path)

    def test_faults_are_found(self):
        for old, new in (
            ("category: devops", "category: management"),
            ("version: 1.3.0", "version: v1.3.0"),
            ("timeout: 10\n", "timeout: 0\n"),
            ("distros: [ubuntu, fedora, opensuse]", "distros: []"),
            ("    command: draupnir\n", ""),
            ("source: github-release", "source: github"),
        ):
            self.assertIn(old, read(OWN))
            self.assertNotEqual(schema_problems(read(OWN).replace(old, new, 1)), [], new)


class Own(unittest.TestCase):
    def setUp(self):
        self.extension = yaml.safe_load(read(OWN))

    def test_every_version_is_that_of_cargo(self):
        version = cargo_version()
        self.assertEqual(self.extension["metadata"]["version"], version)
        self.assertEqual(self.extension["install"]["script"]["args"], [version])
        (tool,) = self.extension["bom"]["tools"]
        self.assertEqual((tool["version"], tool["purl"]), (version, f"pkg:github/pacphi/draupnir@v{version}"))

    def test_every_script_is_beside_it(self):
        hook = self.extension["capabilities"]["hooks"]["post-install"]["command"].split()[-1]
        for path in (self.extension["install"]["script"]["path"], hook, self.extension["remove"]["script"]["path"]):
            self.assertTrue(os.access(os.path.join(TOP, "extension", path), os.X_OK), path)

    def test_both_names_are_validated_and_removed(self):
        for command in self.extension["validate"]["commands"]:
            self.assertEqual(command["versionFlag"], "--version")
            self.assertEqual(command["expectedPattern"], r"\d+\.\d+\.\d+")
        names = {command["name"] for command in self.extension["validate"]["commands"]}
        self.assertEqual(names, {"draupnir", "sindri-agent"})
        for name in names:
            self.assertIn(f"~/.local/bin/{name}", self.extension["remove"]["paths"])

    def test_ai_tools_are_pointed_where_the_registry_points_them(self):
        for path in REGISTRY:
            self.assertEqual(self.extension["configure"], yaml.safe_load(read(path))["configure"], path)

    def test_variant_differs_by_its_comment_alone(self):
        done = render()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"/blob/v{cargo_version()}/", done.stdout.splitlines()[0])
        self.assertEqual(yaml.safe_load(done.stdout), self.extension)


class Update(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "extension.yaml")
        shutil.copy(REGISTRY[0], self.path)

    def test_only_its_own_version_changes(self):
        done = render("--update", self.path, "v1.2.0")
        self.assertEqual(done.returncode, 0, done.stderr)
        pairs = zip(read(REGISTRY[0]).splitlines(), read(self.path).splitlines(), strict=True)
        self.assertEqual(
            [new.strip() for old, new in pairs if old != new],
            [
                "version: 1.2.0 # kept in step by a workflow",
                'args: ["1.2.0"]',
                'version: "1.2.0"',
                "purl: pkg:github/pacphi/draupnir@v1.2.0",
            ],
        )

    def test_updated_registry_file_is_valid_and_complete(self):
        for path in REGISTRY:
            shutil.copy(path, self.path)
            self.assertEqual(render("--update", self.path, cargo_version()).returncode, 0, path)
            self.assertEqual(schema_problems(read(self.path)), [], path)
            before, after = yaml.safe_load(read(path)), yaml.safe_load(read(self.path))
            old = before["metadata"]["version"]
            expected = re.sub(rf"(?<![\d.]){re.escape(old)}(?![\d.])", cargo_version(), json.dumps(before))
            self.assertEqual(json.loads(expected), after, path)

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
        self.assertEqual(len(re.findall(r"7\.8\.9", read(self.path))), 5)
        self.assertEqual(schema_problems(read(self.path)), [])

    def test_other_extension_is_left_alone(self):
        for text in ("metadata:\n  name: other\n  version: 1.0.0\n", "metadata:\n  name: draupnir\n", ""):
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
            self.assertEqual(render("--update", self.path, "1.2.0").returncode, 1)
            self.assertEqual(read(self.path), text)

    def test_invalid_version_is_refused(self):
        for version in ("latest", "1.2", "1.2.0\n", "../1.2.0"):
            self.assertEqual(render("--update", self.path, version).returncode, 1)
            self.assertEqual(read(self.path), read(REGISTRY[0]))


class Life(unittest.IsolatedAsyncioTestCase):
    """The agent on an instance, from its installation to its removal, under the name that Sindri knows."""

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # it would log every slow step
        self.console = Console()
        await self.console.start()
        self.addAsyncCleanup(self.console.stop)
        settings = {"SINDRI_CONSOLE_URL": f"http://127.0.0.1:{self.console.port}", "SINDRI_CONSOLE_API_KEY": KEY}
        make = functools.partial(Instance, agent(), cargo_version(), SINDRI_INSTANCE_ID="web-1", **settings)
        self.instance = await self.do(make)
        self.addCleanup(self.instance.close)

    async def do(self, action, *arguments):
        """One of the instance's actions, beside the console's loop."""
        return await asyncio.to_thread(action, *arguments)

    async def install(self):
        status, output = await self.do(self.instance.install, cargo_version())
        self.assertEqual(status, 0, output)
        return output

    async def connected(self, times=1):
        """Waits for the connection of this number, and for the first heartbeat on it."""
        await self.console.wait("connection", lambda: len(self.console.upgraded_at) >= times)
        since = self.console.upgraded_at[times - 1]
        has_heartbeat = lambda: any(at >= since and frame["type"] == "heartbeat" for at, frame in self.console.messages)
        await self.console.wait("heartbeat", has_heartbeat)

    async def open_shell(self):
        """The PID of the shell of a terminal that the console opens."""
        await self.console.send("terminal:create", session_id="s", cols=80, rows=24, shell="/bin/sh")
        line = base64.b64encode(b"echo $$ >~/shell.new; mv ~/shell.new ~/shell\n").decode()
        await self.console.send("terminal:input", session_id="s", data=line)
        self.assertTrue(await self.do(within, 20, lambda: os.path.exists(self.instance.path("shell"))))
        with open(self.instance.path("shell"), encoding="ascii") as file:
            return int(file.read())

    async def gone(self, *pids):
        for pid in pids:
            self.assertTrue(await self.do(within, 10, lambda pid=pid: not alive(pid)), f"process {pid} still runs")

    async def test_service_framework_starts_and_stops_it(self):
        await self.install()
        for times, path in enumerate([OWN, *REGISTRY], 1):
            service = yaml.safe_load(read(path))["service"]
            pid = await self.do(self.instance.start_service, service)
            self.assertTrue(await self.do(self.instance.ready, service), self.instance.log())
            await self.connected(times)
            self.assertTrue(await self.do(self.instance.stop, service["stop"]["timeout"]), self.instance.log())
            await self.gone(pid)
            self.assertNotEqual(self.instance.shell(service["readiness"]["check"])[0], 0)
        self.assertEqual(len(self.console.registrations), 1, "its id is remembered")

    def llm_proxy_answers(self, port):
        """Whether the agent, and nothing else, listens for AI tools there."""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as asking:
                asking.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                with asking.makefile("rb") as answer:
                    return b"sindri_agent" in answer.read()
        except ConnectionRefusedError:
            return False

    async def test_ai_tools_of_the_instance_reach_the_agent(self):
        """The variables of either file are in the environment that the service framework gives to the agent."""
        await self.install()
        files = [OWN, *REGISTRY]
        for times, (path, adapter) in enumerate([*((path, "auto") for path in files), (OWN, "none")], 1):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            extension = yaml.safe_load(read(path))
            before = dict(self.instance.environment)
            self.instance.environment["SINDRI_LLM_ADAPTER"] = adapter
            self.instance.configure(extension["configure"], port)
            tools = [name for name, value in self.instance.environment.items() if f":{port}/v1/" in value]
            self.assertEqual(len(tools), 8 if adapter == "auto" else 0, path)
            await self.do(self.instance.start_service, extension["service"])
            await self.connected(times)
            listens = lambda port=port: self.llm_proxy_answers(port)
            if adapter == "auto":
                self.assertTrue(await self.do(within, 10, listens), self.instance.log())
            else:
                self.assertFalse(listens())
            self.assertTrue(await self.do(self.instance.stop), self.instance.log())
            self.instance.environment = before

    async def test_service_without_a_console_is_not_started(self):
        service = yaml.safe_load(read(OWN))["service"]
        for name in ("SINDRI_CONSOLE_URL", "SINDRI_CONSOLE_API_KEY"):
            value = self.instance.environment.pop(name)
            self.assertIsNone(self.instance.start_service(service))
            self.instance.environment[name] = value

    async def test_validation_finds_the_version_under_both_names(self):
        await self.install()
        for command in yaml.safe_load(read(OWN))["validate"]["commands"]:
            status, output = self.instance.shell(f"{command['name']} {command['versionFlag']}")
            self.assertEqual(status, 0, output)
            self.assertEqual(re.search(command["expectedPattern"], output)[0], cargo_version())

    async def test_registry_removal_leaves_nothing_running(self):
        await self.install()
        pid = await self.do(self.instance.run_hook)
        await self.connected()
        shell = await self.open_shell()
        self.assertTrue(await self.do(self.instance.remove_as_registry))
        await self.gone(pid, shell)
        await self.console.wait("end of the connection", lambda: self.console.closed)
        self.assertFalse(os.path.lexists(self.instance.path(".local/bin/draupnir")))
        # What is left is a file: installing again brings the name back.
        self.assertIn("installed already", await self.install())
        self.assertTrue(os.path.exists(self.instance.path(".local/bin/draupnir")))

    async def test_agent_killed_by_the_framework_leaves_no_shell(self):
        await self.install()
        pid = await self.do(self.instance.start_service, yaml.safe_load(read(OWN))["service"])
        await self.connected()
        shell = await self.open_shell()
        os.kill(pid, signal.SIGSTOP)  # it does not handle SIGTERM now
        self.assertFalse(await self.do(self.instance.stop, 0.1))
        await self.gone(pid, shell)

    async def test_own_scripts_start_it_once_and_remove_all(self):
        await self.install()
        folder = os.path.join(TOP, "extension")
        hook = yaml.safe_load(read(OWN))["capabilities"]["hooks"]["post-install"]["command"]
        status, output = await self.do(self.instance.shell, hook, folder)
        self.assertEqual(status, 0, output)
        pid = self.instance.noted_pid()
        await self.connected()
        status, output = await self.do(self.instance.shell, hook, folder)
        self.assertEqual((status, self.instance.noted_pid()), (0, pid), output)
        self.assertIn("running already", output)
        shell = await self.open_shell()
        status, output = await self.do(self.instance.shell, "bash scripts/remove.sh", folder)
        self.assertEqual(status, 0, output)
        await self.gone(pid, shell)
        self.assertEqual(os.listdir(self.instance.path(".local/bin")), [])
        self.assertEqual(os.listdir(self.instance.path(".sindri/logs")), [])
        self.assertFalse(os.path.exists(self.instance.path(".sindri/draupnir.pid")))

    async def test_own_hook_reports_an_agent_that_ends_at_once(self):
        await self.install()
        self.instance.environment["SINDRI_CONSOLE_URL"] = "ftp://console"
        status, output = await self.do(self.instance.shell, "bash scripts/start.sh", os.path.join(TOP, "extension"))
        self.assertEqual(status, 1, output)
        self.assertIn("SINDRI_CONSOLE_URL", output)
        self.assertFalse(os.path.exists(self.instance.path(".sindri/draupnir.pid")))

    async def test_own_hook_without_a_console_starts_nothing(self):
        await self.install()
        del self.instance.environment["SINDRI_CONSOLE_API_KEY"]
        status, output = await self.do(self.instance.shell, "bash scripts/start.sh", os.path.join(TOP, "extension"))
        self.assertEqual(status, 0, output)
        self.assertIn("SINDRI_CONSOLE_API_KEY is not set", output)

    async def test_upgrade_replaces_a_running_agent_in_go(self):
        former = self.instance.path(".local/bin/draupnir")
        shutil.copy(shutil.which("sleep"), former)
        self.instance.shell("nohup ~/.local/bin/draupnir 600 >/dev/null 2>&1 & echo $! >~/.sindri/draupnir.pid")
        pid = self.instance.noted_pid()
        self.assertTrue(alive(pid))
        self.assertIn(f"stopped the agent that ran: process {pid}", await self.install())
        await self.gone(pid)
        self.assertTrue(os.path.isfile(f"{former}.previous"))
        # The hook starts one only where the pidfile names none.
        self.assertFalse(os.path.exists(self.instance.path(".sindri/draupnir.pid")))
        await self.do(self.instance.run_hook)
        await self.connected()
        self.assertEqual([body["instance_id"] for body in self.console.registrations], ["web-1"])
        self.assertTrue(await self.do(self.instance.stop))

    async def test_upgrade_stops_a_running_agent_for_the_registry(self):
        """Its hook starts an agent whether or not one runs, and two of them would displace each other."""
        await self.install()
        pid = await self.do(self.instance.run_hook)
        await self.connected()
        os.remove(self.instance.path(".local/bin/sindri-agent"))
        self.assertIn(f"stopped the agent that ran: process {pid}", await self.install())
        await self.gone(pid)
        await self.do(self.instance.run_hook)
        await self.connected(2)
        self.assertTrue(await self.do(self.instance.stop))

    async def test_upgrade_lets_a_running_agent_hand_over(self):
        folder = os.path.join(TOP, "extension")
        await self.install()
        status, output = await self.do(self.instance.shell, "bash scripts/start.sh", folder)
        self.assertEqual(status, 0, output)
        pid = self.instance.noted_pid()
        await self.connected()
        shell = await self.open_shell()
        os.remove(self.instance.path(".local/bin/sindri-agent"))
        status, output = await self.do(self.instance.shell, f"bash install.sh {cargo_version()}", folder)
        self.assertEqual(status, 0, output)
        self.assertIn(f"asked the agent that runs to hand over to the new program: process {pid}", output)
        await self.connected(2)
        self.assertTrue(alive(shell))
        # The hook of our own extension starts one only where none runs.
        status, output = await self.do(self.instance.shell, "bash scripts/start.sh", folder)
        self.assertEqual((status, output.strip()), (0, f"the agent is running already: process {pid}"))
        self.assertTrue(await self.do(self.instance.stop))


if __name__ == "__main__":
    run_and_report()
