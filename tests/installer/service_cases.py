"""What the installer does about a service, systemd's and launchd's, without either: their tools only note the calls.

Each function is one case, as in cases.py. The real systemd reads the unit where its checker is installed.
"""

import os
import plistlib
import re
import shutil
import subprocess

from bench import Missing
from cases import expect
from environment_file import environment_file

SETTINGS = {"SINDRI_CONSOLE_URL": "https://console.example", "SINDRI_CONSOLE_API_KEY": "key with $(id) and `id`"}

# What a reader of files, a shell or sed could make something else of.
ODD_KEYS = (
    "a\\b'c\"d$e",
    "\\",
    "ends with \\",
    "\\\\two\\n",
    '"quoted"',
    "'quoted'",
    "`id` $(id) ${HOME} $$ %h",
    "#;=&|<>/~*?[]{}!",
)


def prepare(bench, tool, user):
    """The machine's directories are under the bench for root; `user` is what `id -u` says."""
    bench.server.release("1.2.3")
    bench.fake("id", f"echo {user}")
    bench.fake(tool, f'echo "$*" >>{bench.root}/home/calls')
    return {"DRAUPNIR_ROOT": os.path.join(bench.root, "root")}


def calls(bench):
    path = os.path.join(bench.home, "calls")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def systemd_unit_of_root_is_installed_and_started(bench):
    options = prepare(bench, "systemctl", user=0)
    outcome = bench.run(DRAUPNIR_SERVICE="systemd", OTHER="not ours", **options, **SETTINGS)
    expect(outcome, 0, "installed and started")
    assert "key with" not in outcome.output, "the key was printed"
    root = options["DRAUPNIR_ROOT"]
    unit = content(f"{root}/etc/systemd/system/sindri-agent.service")
    for line in (
        f"EnvironmentFile={root}/etc/sindri-agent.env",
        f'ExecStart="{bench.bin}/sindri-agent"',
        "User=root",
        "OOMPolicy=continue",
        "KillMode=mixed",
        "TimeoutStopSec=10",
        "WantedBy=multi-user.target",
    ):
        assert line in unit.splitlines(), f"{line} is not in\n{unit}"
    for sandboxing in ("Protect", "Private", "NoNewPrivileges", "Restrict", "CapabilityBoundingSet", "SystemCallFilter"):
        assert sandboxing not in unit, sandboxing
    environment = f"{root}/etc/sindri-agent.env"
    assert bench.mode(environment) == 0o600
    assert environment_file(content(environment)) == SETTINGS, content(environment)
    assert calls(bench) == ["daemon-reload", "enable sindri-agent.service", "restart sindri-agent.service"]


def systemd_reads_a_key_to_the_letter(bench):
    options = prepare(bench, "systemctl", user=0)
    environment = f"{options['DRAUPNIR_ROOT']}/etc/sindri-agent.env"
    for key in ODD_KEYS:
        settings = {**SETTINGS, "SINDRI_CONSOLE_API_KEY": key}
        expect(bench.run(DRAUPNIR_SERVICE="systemd", **options, **settings), 0, "installed and started")
        assert environment_file(content(environment)) == settings, content(environment)
        # So does a shell, for whoever sources the file by hand.
        shell = ["sh", "-c", '. "$0" && printf "%s" "$SINDRI_CONSOLE_API_KEY"', environment]
        sourced = subprocess.run(shell, env={}, capture_output=True, text=True, check=True).stdout
        assert sourced == key, f"{sourced} is not {key}"
        os.remove(environment)


def systemd_restart_delay_differs_between_machines(bench):
    options = prepare(bench, "systemctl", user=0)
    delays = set()
    for _ in range(4):
        expect(bench.run(DRAUPNIR_SERVICE="systemd", **options), 0)
        unit = content(f"{options['DRAUPNIR_ROOT']}/etc/systemd/system/sindri-agent.service")
        delay = int(re.search(r"^RestartSec=(\d+)ms$", unit, re.M)[1])
        assert 2000 <= delay < 10000, delay
        delays.add(delay)
    assert len(delays) > 1, delays


def systemd_itself_accepts_the_unit(bench):
    checker = shutil.which("systemd-analyze")
    if checker is None:
        raise Missing("systemd-analyze is not installed")
    options = prepare(bench, "systemctl", user=0)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options, **SETTINGS), 0)
    unit = f"{options['DRAUPNIR_ROOT']}/etc/systemd/system/sindri-agent.service"
    checked = subprocess.run(
        [checker, "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr


def systemd_unit_of_a_user_is_that_user_s_own(bench):
    prepare(bench, "systemctl", user=1000)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0, "enable-linger")
    unit = content(f"{bench.home}/.config/systemd/user/sindri-agent.service")
    assert "User=" not in unit and "WantedBy=default.target" in unit, unit
    assert bench.mode(f"{bench.home}/.config/sindri-agent/env") == 0o600
    assert calls(bench)[-1] == "--user restart sindri-agent.service"


def service_without_settings_is_not_started(bench):
    options = prepare(bench, "systemctl", user=0)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options), 0, "not started", "fill in")
    environment = f"{options['DRAUPNIR_ROOT']}/etc/sindri-agent.env"
    assert "#SINDRI_CONSOLE_API_KEY=" in content(environment).splitlines()
    assert bench.mode(environment) == 0o600
    assert calls(bench) == []


def environment_file_of_the_operator_is_kept(bench):
    options = prepare(bench, "systemctl", user=0)
    environment = f"{options['DRAUPNIR_ROOT']}/etc/sindri-agent.env"
    os.makedirs(os.path.dirname(environment))
    with open(environment, "w", encoding="utf-8") as file:
        file.write("SINDRI_CONSOLE_URL=https://mine\nSINDRI_CONSOLE_API_KEY=mine\n")
    os.chmod(environment, 0o644)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options, **SETTINGS), 0, "installed and started")
    assert content(environment).startswith("SINDRI_CONSOLE_URL=https://mine\n")
    assert bench.mode(environment) == 0o600


def service_is_removed_with_the_program_and_its_key_stays(bench):
    options = prepare(bench, "systemctl", user=0)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options, **SETTINGS), 0)
    expect(bench.run("--uninstall", **options), 0, "kept, since it holds your key")
    assert "disable --now sindri-agent.service" in calls(bench)
    assert os.listdir(f"{options['DRAUPNIR_ROOT']}/etc/systemd/system") == []
    assert os.path.exists(f"{options['DRAUPNIR_ROOT']}/etc/sindri-agent.env")
    assert bench.installed() is None


def service_that_cannot_be_is_said_before_anything_is_installed(bench):
    bench.server.release("1.2.3")
    for service in ("systemd", "launchd"):
        expect(bench.run(DRAUPNIR_SERVICE=service), 72, service)
    assert bench.installed() is None


def launchd_agent_is_installed_and_reads_its_environment(bench):
    prepare(bench, "launchctl", user=501)
    expect(bench.run(DRAUPNIR_SERVICE="launchd", **SETTINGS), 0, "installed and started")
    path = f"{bench.home}/Library/LaunchAgents/io.github.pacphi.draupnir.sindri-agent.plist"
    with open(path, "rb") as file:
        plist = plistlib.load(file)
    assert plist["KeepAlive"] is True and plist["RunAtLoad"] is True and plist["ExitTimeOut"] == 10
    assert 5 <= plist["ThrottleInterval"] < 15
    assert calls(bench)[-1] == f"bootstrap gui/501 {path}"
    # What it would start, started here: the program sees the values to the letter, and nothing in them is run.
    seen = os.path.join(bench.home, "seen")
    environment = os.path.join(bench.home, ".config/sindri-agent/env")
    for key in (SETTINGS["SINDRI_CONSOLE_API_KEY"], *ODD_KEYS):
        os.remove(environment)
        expect(bench.run(DRAUPNIR_SERVICE="launchd", **{**SETTINGS, "SINDRI_CONSOLE_API_KEY": key}), 0)
        agent = os.path.join(bench.bin, "sindri-agent")
        with open(agent, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nprintf "%s" "$SINDRI_CONSOLE_API_KEY" >{seen}\n')
        subprocess.run(plist["ProgramArguments"], env={}, check=True, timeout=20)
        assert content(seen) == key, f"{content(seen)} is not {key}"


def paths_with_odd_characters_survive_in_the_units(bench):
    options = prepare(bench, "systemctl", user=0)
    bench.fake("launchctl", "")
    place = os.path.join(bench.root, "elsewhere", "a & b <100%> $HOME")
    expect(bench.run(DRAUPNIR_SERVICE="systemd", INSTALL_DIR=place, **options), 0)
    unit = content(f"{options['DRAUPNIR_ROOT']}/etc/systemd/system/sindri-agent.service")
    assert f'ExecStart="{place}/sindri-agent"'.replace("%", "%%").replace("$", "$$") in unit, unit
    expect(bench.run(DRAUPNIR_SERVICE="launchd", INSTALL_DIR=place, **options), 0)
    daemon = f"{options['DRAUPNIR_ROOT']}/Library/LaunchDaemons/io.github.pacphi.draupnir.sindri-agent.plist"
    with open(daemon, "rb") as file:
        assert plistlib.load(file)["ProgramArguments"][-1] == f"{place}/sindri-agent"
