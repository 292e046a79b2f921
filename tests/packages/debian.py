"""The life of the package on a Debian machine with systemd: install, run, upgrade, switch, remove, purge."""

import asyncio
import glob
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts"))
from build import VERSION, build  # noqa: E402
from loopback import KEY, Console  # noqa: E402
from machine import STEP_SECONDS, TOP, Machine, Unbootable  # noqa: E402

SETTINGS = "/etc/sindri-agent.env"
OPERATOR, MONITOR = "sindri-agent.service", "sindri-agent-monitor.service"
NEWER = "1.99.0"  # above any version that is built here
# What a start must not change: the id that the console gave. (The journal beside it grows.)
IDENTITY = "cat /var/lib/sindri-agent/identity.json"
MARK = "# a line of a person"


def form(value):
    """The names of all figures in the metrics, without the figures."""
    if isinstance(value, dict):
        return {name: form(inner) for name, inner in value.items()}
    return [form(inner) for inner in value] if isinstance(value, list) else None


class Debian(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # Each step takes longer than the tenth of a second of which asyncio would warn.
        asyncio.get_running_loop().slow_callback_duration = STEP_SECONDS
        self.folder = folder = self.enterContext(tempfile.TemporaryDirectory(prefix="packages-"))
        for version in (VERSION, NEWER):
            await asyncio.to_thread(build, folder, "deb", version=version)
        self.names = {
            version: os.path.basename(glob.glob(f"{folder}/*_{version}-1_*.deb")[0]) for version in (VERSION, NEWER)
        }
        try:
            log = os.path.join(TOP, "target", "packages", "machine.log")
            self.machine = await asyncio.to_thread(self.enterContext, Machine(folder, log))
        except Unbootable as error:
            if os.environ.get("DRAUPNIR_SKIPS"):
                with open(os.environ["DRAUPNIR_SKIPS"], "a", encoding="utf-8") as file:
                    file.write(f"{self._testMethodName}: {error}\n")
            self.skipTest(str(error))
        self.console = Console()
        await self.console.start()
        self.addAsyncCleanup(self.console.stop)

    async def run_in(self, script, expected=0):
        """Runs a script in the machine and returns its output; another exit status than the expected one fails."""
        status, output = await asyncio.to_thread(self.machine.run, script)
        self.assertEqual(status, expected, f"{script}\n{output}")
        return output.strip()

    async def install(self, version, options=""):
        # Without a terminal, as a tool for fleets runs it: a question would fail.
        command = f"DEBIAN_FRONTEND=noninteractive dpkg {options} -i /shared/{self.names[version]} </dev/null"
        return await self.run_in(command)

    async def configure(self, *lines):
        lines = [f'SINDRI_CONSOLE_URL="http://127.0.0.1:{self.console.port}"', f'SINDRI_CONSOLE_API_KEY="{KEY}"', *lines]
        lines += ['SINDRI_INSTANCE_ID="packaged-1"', MARK]
        script = "".join(f"echo '{line}' >>{SETTINGS}\n" for line in lines)
        await self.run_in(script)

    async def connected(self, count):
        await self.console.wait(f"connection {count}", lambda: len(self.console.upgraded_at) >= count)

    async def state(self, unit):
        return await self.run_in(f"systemctl is-active {unit}; systemctl is-enabled {unit} || :")

    async def main_pid(self, unit):
        return await self.run_in(f"systemctl show --value --property MainPID {unit}")

    async def test_install_upgrade_remove_and_purge(self):
        output = await self.install(VERSION)
        self.assertIn("no service is enabled", output)
        for unit in (OPERATOR, MONITOR):
            self.assertEqual(await self.state(unit), "inactive\ndisabled")
        self.assertEqual(await self.run_in(f"stat --format '%a %U' {SETTINGS}"), "600 root")
        self.assertIn(f"sindri-agent {VERSION}", await self.run_in("draupnir --version"))
        self.assertIn("replay", await self.run_in("man sindri-agent | cat; man --where draupnir"))

        # A service without settings ends with 78, and systemd does not try again.
        await self.run_in(f"systemctl start {OPERATOR} || :; systemctl --quiet is-failed {OPERATOR} --wait || :")
        await self.configure()
        await self.run_in(f"systemctl reset-failed; systemctl enable --now {OPERATOR}")
        await self.connected(1)
        former = await self.main_pid(OPERATOR)
        self.assertEqual(await self.run_in("stat --format '%a %U' /var/lib/sindri-agent"), "700 root")

        # The new program takes over in the same process.
        await self.install(NEWER)
        await self.connected(2)
        self.assertEqual(await self.state(OPERATOR), "active\nenabled")
        self.assertEqual(await self.run_in("pidof sindri-agent"), await self.main_pid(OPERATOR))
        self.assertEqual(await self.main_pid(OPERATOR), former)
        self.assertEqual(await self.run_in(f"readlink /proc/{former}/exe"), "/usr/bin/sindri-agent")
        await self.run_in(f"grep -qxF '{MARK}' {SETTINGS} && [ $(stat --format %a {SETTINGS}) = 600 ]")
        self.assertEqual(await self.run_in(f"ls {SETTINGS}.* 2>/dev/null || :"), "")
        self.assertEqual(len({body["instance_id"] for body in self.console.registrations}), 1)

        # An upgrade starts nothing that does not run.
        await self.run_in(f"systemctl stop {OPERATOR}")
        await self.install(NEWER)
        self.assertEqual(await self.state(OPERATOR), "inactive\nenabled")

        await self.run_in(f"systemctl start {OPERATOR}")
        await self.connected(3)
        self.assertIn("Connected to", await self.run_in(f"systemctl show --value --property StatusText {OPERATOR}"))
        # A hang: systemd ends the agent and starts another within 30 s, and the rest is for a loaded machine.
        await self.run_in(f"sindri-agent health && kill -STOP {await self.main_pid(OPERATOR)}")
        await self.console.wait("agent after the hang", lambda: len(self.console.upgraded_at) >= 4, 45)
        await self.run_in("dpkg --remove sindri-agent")
        await self.run_in("! pidof sindri-agent && ! [ -e /usr/bin/sindri-agent ] && [ -d /var/lib/sindri-agent ]")
        await self.run_in(f"grep -qxF '{MARK}' {SETTINGS}")
        left = await self.run_in("find /etc/systemd/system -name 'sindri*'")
        self.assertEqual(left, "")

        # Installed again it keeps the settings, and enables nothing.
        await self.install(VERSION)
        self.assertEqual(await self.state(OPERATOR), "inactive\ndisabled")
        await self.run_in(f"systemctl enable --now {OPERATOR}")
        await self.connected(5)
        await self.run_in("dpkg --purge sindri-agent")
        left = await self.run_in("find / -xdev -iname '*sindri*' -not -path '/var/log/*' -not -path '/var/cache/man/*'")
        self.assertEqual(left, "")

    async def test_monitor_has_both_locks_and_the_same_metrics(self):
        await self.install(VERSION)
        # What the settings say does not open the locks.
        await self.configure("SINDRI_AGENT_TERMINAL=on", "SINDRI_AGENT_COMMANDS=on", "SINDRI_AGENT_METRICS=1")
        await self.run_in(f"systemctl enable --now {OPERATOR}")
        loose = await self.console.frame("metrics")
        kept = await self.run_in(IDENTITY)
        await self.run_in(f"systemctl disable --now {OPERATOR}; systemctl enable --now {MONITOR}")
        await self.connected(2)
        del self.console.messages[:]
        tight = await self.console.frame("metrics")
        self.assertEqual(form(loose), form(tight))
        self.assertEqual(loose["memory"]["total_bytes"], tight["memory"]["total_bytes"])
        mounts = [sorted(disk["mount_point"] for disk in metrics["disk"]) for metrics in (loose, tight)]
        self.assertEqual(*mounts)

        pid = await self.main_pid(MONITOR)
        self.assertNotEqual(await self.run_in(f"stat --format %u /proc/{pid}"), "0")
        await self.run_in(f"grep -q '^NoNewPrivs:.*1' /proc/{pid}/status && grep -q '^Seccomp:.*2' /proc/{pid}/status")
        await self.run_in(f"grep -q '^CapEff:.*0000000000000000' /proc/{pid}/status")
        # The id that the console gave goes along.
        self.assertEqual(await self.run_in(IDENTITY), kept)
        self.assertEqual(len(self.console.registrations), 1)

        await self.console.send("command:dispatch", command_id="c-1", command="id", timeout_ms=10000)
        result = await self.console.frame("command:result", command_id="c-1")
        self.assertNotEqual(result["exit_code"], 0)
        self.assertEqual(result["stdout"], "")
        await self.console.send("terminal:create", session_id="t-1", cols=80, rows=24, shell="/bin/sh")
        closed = await self.console.frame("terminal:closed", session_id="t-1")
        self.assertEqual(closed["reason"], "refused_by_policy")
        denied = await self.run_in(f"journalctl --no-pager -u {MONITOR}")
        self.assertNotIn("state directory not writable", denied)

        await self.install(NEWER)
        await self.connected(3)
        self.assertNotEqual(await self.main_pid(MONITOR), pid)
        await self.run_in("dpkg --purge sindri-agent")
        await self.run_in("! [ -e /var/lib/sindri-agent ] && ! [ -e /var/lib/private/sindri-agent ]")

    async def test_upgrade_from_an_own_command_ends_nothing(self):
        await self.install(VERSION)
        await self.configure()
        await self.run_in(f"systemctl enable --now {OPERATOR}")
        await self.connected(1)
        former = await self.main_pid(OPERATOR)
        line = f"dpkg -i /shared/{self.names[NEWER]} 2>&1"
        await self.console.send("command:dispatch", command_id="c-1", command=line, timeout_ms=60000)
        result = await self.console.frame("command:result", command_id="c-1")
        self.assertEqual(result["exit_code"], 0, result)
        await self.connected(2)
        self.assertEqual(await self.main_pid(OPERATOR), former)
        self.assertEqual(await self.run_in(f"readlink /proc/{former}/exe"), "/usr/bin/sindri-agent")
        # A removal would end itself half-way, so dpkg refuses it and the agent goes on.
        line = "dpkg --remove sindri-agent 2>&1"
        await self.console.send("command:dispatch", command_id="c-2", command=line, timeout_ms=60000)
        result = await self.console.frame("command:result", command_id="c-2")
        self.assertNotEqual(result["exit_code"], 0, result)
        self.assertIn("remove the package from another session", result["stdout"])
        self.assertEqual(await self.run_in("dpkg-query --show --showformat '${db:Status-Status}' sindri-agent"), "installed")
        self.assertEqual(await self.main_pid(OPERATOR), former)

    async def test_openrc_service_and_scripts_of_the_apk(self):
        """OpenRC beside systemd, with what the apk holds: apk itself is not to be had on Debian."""
        await asyncio.to_thread(build, self.folder, "apk")
        tools = subprocess.run(
            ["apt-get", "-qq", "download", "openrc", "librc1", "libeinfo1"],
            **{"cwd": self.folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "check": False, "text": True},
        )
        self.assertEqual(tools.returncode, 0, tools.stdout)
        await self.run_in("dpkg --force-depends -i /shared/openrc_*.deb /shared/lib*.deb 2>&1")
        folders = "starting started stopping inactive wasinactive failed hotplugged daemons options exclusive scheduled tmp"
        await self.run_in(f"cd /run && mkdir -p openrc && cd openrc && mkdir -p {folders} && touch softlevel")
        await self.run_in("mkdir /apk; tar -xzf /shared/*.apk -C /apk --warning=no-unknown-keyword && cp -a /apk/etc /apk/usr /")
        service = "rc-service --nodeps --nocolor sindri-agent"
        self.assertIn("set SINDRI_CONSOLE_URL", await self.run_in(f"{service} start", 1))

        await self.configure('SINDRI_AGENT_TAGS="quoted=a \\"b\\" \\$c"')
        await self.run_in(f"{service} start && {service} status")
        await self.connected(1)
        former = await self.run_in("pidof sindri-agent")
        self.assertEqual(self.console.registrations[0]["tags"], {"quoted": 'a "b" $c'})
        self.assertEqual(await self.run_in(f"stat --format %a {SETTINGS} /var/lib/sindri-agent"), "600\n700")
        await self.run_in("grep -q connected /var/log/sindri-agent.log && [ $(stat --format %a /var/log/sindri-agent.log) = 640 ]")

        # An agent that was killed is started again.
        await self.run_in(f"kill -KILL {former}")
        await self.connected(2)
        former = await self.run_in("pidof sindri-agent")
        await self.run_in("/apk/.post-upgrade")
        await self.connected(3)
        self.assertNotEqual(await self.run_in("pidof sindri-agent"), former)
        await self.run_in(f"{service} status")

        line = "/apk/.pre-deinstall 2>&1; /apk/.post-upgrade"
        await self.console.send("command:dispatch", command_id="c-1", command=line, timeout_ms=60000)
        result = await self.console.frame("command:result", command_id="c-1")
        self.assertIn("remove the package from another session", result["stdout"])
        self.assertIn("stop and start it later from another session", result["stdout"])
        await self.run_in("/apk/.pre-deinstall && ! pidof sindri-agent")

    async def test_installer_s_unit_is_named_and_its_settings_kept(self):
        await self.run_in("echo 'ExecStart=/root/.local/bin/sindri-agent' >/etc/systemd/system/sindri-agent.service")
        await self.run_in(f"umask 077; echo '{MARK}' >{SETTINGS}")
        output = await self.install(VERSION, options="--force-confold")
        self.assertIn("install.sh --uninstall removes it", output)
        self.assertEqual(await self.run_in(f"cat {SETTINGS}; stat --format %a {SETTINGS}"), f"{MARK}\n600")
