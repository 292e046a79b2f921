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
from former_cases import handing_over

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


UNIT = ".config/systemd/user/sindri-agent.service"
ENVIRONMENT = ".config/sindri-agent/env"


def prepare(bench, tool, user=1000):
    """`user` is what `id -u` says; `tool` notes how it is called."""
    bench.server.release("1.4.3")
    bench.fake("id", f"echo {user}")
    bench.fake(tool, f'echo "$*" >>{bench.root}/home/calls')


def prepare_image(bench, tool="systemctl"):
    """An image below the bench, and a tool that must not be called; the image's root and the options."""
    prepare(bench, tool, user=0)
    root = os.path.join(bench.root, "root")
    return root, {"DRAUPNIR_ROOT": root, "INSTALL_DIR": "/usr/local/bin"}


def calls(bench):
    path = os.path.join(bench.home, "calls")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def image_gets_a_unit_with_its_own_paths(bench):
    root, options = prepare_image(bench)
    outcome = bench.run(DRAUPNIR_SERVICE="systemd", OTHER="not ours", **options, **SETTINGS)
    expect(outcome, 0, "to start with the image")
    assert "key with" not in outcome.output, "the key was printed"
    unit = content(f"{root}/etc/systemd/system/sindri-agent.service")
    for line in (
        "EnvironmentFile=/etc/sindri-agent.env",
        'ExecStart="/usr/local/bin/sindri-agent"',
        "User=root",
        "OOMPolicy=continue",
        "KillMode=mixed",
        "TimeoutStopSec=10",
        "WantedBy=multi-user.target",
    ):
        assert line in unit.splitlines(), f"{line} is not in\n{unit}"
    assert root not in unit, unit
    for sandboxing in ("Protect", "Private", "NoNewPrivileges", "Restrict", "CapabilityBoundingSet", "SystemCallFilter"):
        assert sandboxing not in unit, sandboxing
    environment = f"{root}/etc/sindri-agent.env"
    assert bench.mode(environment) == 0o600
    assert environment_file(content(environment)) == SETTINGS, content(environment)
    wanted = f"{root}/etc/systemd/system/multi-user.target.wants/sindri-agent.service"
    assert os.path.samefile(wanted, f"{root}/etc/systemd/system/sindri-agent.service")
    assert os.readlink(f"{root}/usr/local/bin/draupnir") == "sindri-agent"
    assert calls(bench) == [], "systemctl ran on the build host"


def image_directory_may_be_given_with_its_root(bench):
    root, options = prepare_image(bench)
    options["INSTALL_DIR"] = f"{root}/opt/bin"
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options), 0, "not started", "fill in")
    assert 'ExecStart="/opt/bin/sindri-agent"' in content(f"{root}/etc/systemd/system/sindri-agent.service")
    assert os.path.exists(f"{root}/opt/bin/sindri-agent")


def image_is_uninstalled_without_systemctl(bench):
    root, options = prepare_image(bench)
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **options, **SETTINGS), 0)
    expect(bench.run(**options, SINDRI_REGION="fra"), 0)
    expect(bench.run("--uninstall", **options), 0, "kept, since it holds your key")
    assert os.listdir(f"{root}/etc/systemd/system/multi-user.target.wants") == []
    assert os.listdir(f"{root}/usr/local/bin") == []
    assert os.path.exists(f"{root}/etc/sindri-agent.env")
    assert calls(bench) == [], "systemctl ran on the build host"


def image_for_launchd_gets_a_daemon_with_its_own_paths(bench):
    root, options = prepare_image(bench, "launchctl")
    expect(bench.run(DRAUPNIR_SERVICE="launchd", **options, **SETTINGS), 0, "to start with the image")
    with open(f"{root}/Library/LaunchDaemons/io.github.pacphi.draupnir.sindri-agent.plist", "rb") as file:
        assert plistlib.load(file)["ProgramArguments"][-2:] == ["/etc/sindri-agent.env", "/usr/local/bin/sindri-agent"]
    assert calls(bench) == []


def image_root_must_be_absolute(bench):
    expect(bench.run(DRAUPNIR_ROOT="image"), 64, "absolute")


def systemd_reads_a_key_to_the_letter(bench):
    prepare(bench, "systemctl")
    environment = f"{bench.home}/{ENVIRONMENT}"
    for key in ODD_KEYS:
        settings = {**SETTINGS, "SINDRI_CONSOLE_API_KEY": key}
        expect(bench.run(DRAUPNIR_SERVICE="systemd", **settings), 0, "installed and started")
        assert environment_file(content(environment)) == settings, content(environment)
        # So does a shell, if the operator sources the file by hand.
        shell = ["sh", "-c", '. "$0" && printf "%s" "$SINDRI_CONSOLE_API_KEY"', environment]
        sourced = subprocess.run(shell, env={}, capture_output=True, text=True, check=True).stdout
        assert sourced == key, f"{sourced} is not {key}"


def systemd_restart_delay_differs_between_machines(bench):
    prepare(bench, "systemctl")
    delays = set()
    for _ in range(4):
        expect(bench.run(DRAUPNIR_SERVICE="systemd"), 0)
        unit = content(f"{bench.home}/{UNIT}")
        delay = int(re.search(r"^RestartSec=(\d+)ms$", unit, re.M)[1])
        assert 2000 <= delay < 10000, delay
        delays.add(delay)
    assert len(delays) > 1, delays


def systemd_itself_accepts_the_unit(bench):
    checker = shutil.which("systemd-analyze")
    if checker is None:
        raise Missing("systemd-analyze is not installed")
    prepare(bench, "systemctl")
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0)
    checked = subprocess.run(
        [checker, "verify", "--man=no", "--recursive-errors=no", f"{bench.home}/{UNIT}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0 and not checked.stderr.strip(), checked.stderr


def systemd_unit_of_a_user_is_installed_and_started(bench):
    prepare(bench, "systemctl")
    outcome = bench.run(DRAUPNIR_SERVICE="systemd", OTHER="not ours", **SETTINGS)
    expect(outcome, 0, "installed and started", "enable-linger")
    expect(outcome, 0, "next: look at it: systemctl --user status sindri-agent")
    assert "key with" not in outcome.output, "the key was printed"
    unit = content(f"{bench.home}/{UNIT}")
    assert "User=" not in unit and "WantedBy=default.target" in unit, unit
    assert f'ExecStart="{bench.bin}/sindri-agent"' in unit.splitlines(), unit
    assert bench.mode(f"{bench.home}/{ENVIRONMENT}") == 0o600
    assert environment_file(content(f"{bench.home}/{ENVIRONMENT}")) == SETTINGS
    verbs = ("daemon-reload", "enable sindri-agent.service", "restart sindri-agent.service")
    assert calls(bench) == [f"--user {verb}" for verb in verbs]


def service_without_settings_is_not_started(bench):
    prepare(bench, "systemctl")
    expect(bench.run(DRAUPNIR_SERVICE="systemd"), 0, "not started", "next: fill in")
    environment = f"{bench.home}/{ENVIRONMENT}"
    assert "#SINDRI_CONSOLE_API_KEY=" in content(environment).splitlines()
    assert bench.mode(environment) == 0o600
    assert calls(bench) == []
    # The values of a second run take the places that the form left for them.
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0, "installed and started")
    assert environment_file(content(environment)) == SETTINGS
    assert len(content(environment).splitlines()) == 3, content(environment)


def second_run_rotates_the_key_and_keeps_other_lines(bench):
    prepare(bench, "systemctl")
    environment = f"{bench.home}/{ENVIRONMENT}"
    os.makedirs(os.path.dirname(environment))
    kept = "# of the operator\nSINDRI_AGENT_TAGS=team=one\n#SINDRI_CONSOLE_URL=https://old\n"
    with open(environment, "w", encoding="utf-8") as file:
        file.write(f"SINDRI_CONSOLE_URL=https://mine\nSINDRI_CONSOLE_API_KEY=old\n{kept}SINDRI_CONSOLE_API_KEY=twice\n")
    os.chmod(environment, 0o644)
    outcome = bench.run(DRAUPNIR_SERVICE="systemd", SINDRI_CONSOLE_API_KEY="new", SINDRI_REGION="fra")
    expect(outcome, 0, "installed and started", "SINDRI_CONSOLE_API_KEY SINDRI_REGION")
    assert content(environment) == (
        f'SINDRI_CONSOLE_URL=https://mine\nSINDRI_CONSOLE_API_KEY="new"\n{kept}SINDRI_REGION="fra"\n'
    ), content(environment)
    assert bench.mode(environment) == 0o600
    assert bench.leftovers() == []


def run_without_settings_leaves_the_environment_file(bench):
    prepare(bench, "systemctl")
    environment = f"{bench.home}/{ENVIRONMENT}"
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0)
    os.chmod(environment, 0o644)
    before = os.stat(environment)
    expect(bench.run(DRAUPNIR_SERVICE="systemd"), 0, "installed and started")
    after = os.stat(environment)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert bench.mode(environment) == 0o600


def proxy_and_certificates_reach_the_service(bench):
    prepare(bench, "systemctl")
    carried = {"HTTPS_PROXY": "http://u:p@proxy.example:3128", "no_proxy": "localhost", "SSL_CERT_FILE": "/ca.pem"}
    expect(bench.run(DRAUPNIR_SERVICE="systemd", NO_PROXY="127.0.0.1", MY_HTTPS_PROXY="x", **carried, **SETTINGS), 0)
    expected = {**carried, **SETTINGS, "NO_PROXY": "127.0.0.1"}
    assert environment_file(content(f"{bench.home}/{ENVIRONMENT}")) == expected


QUESTION = "--user show --property=MainPID --value sindri-agent.service"


def upgrade_lets_the_agent_of_a_service_hand_over(bench):
    # Root's service would be that of this machine.
    user, settings = bench.ordinary_user()
    with handing_over(bench, "sindri-agent", user) as (process, noted_in):
        os.remove(f"{bench.home}/.sindri/draupnir.pid")
        prepare(bench, "systemctl", os.getuid() if user is None else user)
        expect(bench.run(DRAUPNIR_SERVICE="systemd", **settings, **SETTINGS), 0)
        bench.server.release("1.4.4")
        bench.fake("systemctl", f'echo "$*" >>{bench.root}/home/calls; echo {process.pid}')
        os.remove(f"{bench.home}/calls")
        expect(bench.run(**settings), 0, "asked the agent that runs to hand over to the new program")
        while not os.path.exists(noted_in):
            os.sched_yield()
        assert all("restart" not in call for call in calls(bench)), calls(bench)
        # Other settings need another start.
        expect(bench.run(SINDRI_CONSOLE_API_KEY="rotated", **settings), 0, "service restarted, if it ran")


def upgrade_restarts_a_service_that_is_there(bench):
    for tool, service, verb, unit in (
        ("systemctl", "systemd", "--user try-restart sindri-agent.service", UNIT),
        ("launchctl", "launchd", "kickstart -k gui/1000/io.github.pacphi.draupnir.sindri-agent", None),
    ):
        prepare(bench, tool)
        expect(bench.run(DRAUPNIR_SERVICE=service, **SETTINGS), 0)
        os.remove(f"{bench.home}/calls")
        expect(bench.run(), 0, "installed already")
        assert calls(bench) == [], "nothing was new"
        bench.server.release("1.4.4")
        expect(bench.run(), 0, "service restarted, if it ran")
        asked = [QUESTION] if service == "systemd" else []
        assert calls(bench) == [*asked, verb]
        expect(bench.run(SINDRI_CONSOLE_API_KEY="rotated"), 0, "installed already", "service restarted, if it ran")
        assert calls(bench) == [*asked, verb, verb]
        assert "rotated" in content(f"{bench.home}/{ENVIRONMENT}")
        expect(bench.run("--uninstall"), 0)
        os.remove(f"{bench.home}/{ENVIRONMENT}")
        os.remove(f"{bench.home}/calls")


def service_that_cannot_be_restarted_is_reported(bench):
    prepare(bench, "systemctl")
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0)
    bench.server.release("1.4.4")
    bench.fake("systemctl", "exit 1")
    expect(bench.run(), 0, "service not restarted, it still runs as before")


def service_is_removed_with_the_program_and_its_key_stays(bench):
    prepare(bench, "systemctl")
    expect(bench.run(DRAUPNIR_SERVICE="systemd", **SETTINGS), 0)
    expect(bench.run("--uninstall"), 0, "kept, since it holds your key")
    assert "--user disable --now sindri-agent.service" in calls(bench)
    assert not os.path.exists(f"{bench.home}/{UNIT}")
    assert os.path.exists(f"{bench.home}/{ENVIRONMENT}")
    assert bench.installed() is None


def service_that_cannot_be_is_said_before_anything_is_installed(bench):
    bench.server.release("1.4.3")
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
        expect(bench.run(DRAUPNIR_SERVICE="launchd", **{**SETTINGS, "SINDRI_CONSOLE_API_KEY": key}), 0)
        agent = os.path.join(bench.bin, "sindri-agent")
        with open(agent, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nprintf "%s" "$SINDRI_CONSOLE_API_KEY" >{seen}\n')
        # 126: the kernel runs no file that is open for writing, and a process that another case just forked may hold
        # it.
        for _ in range(20):
            status = subprocess.run(plist["ProgramArguments"], env={}, check=False, timeout=20).returncode
            if status != 126:
                break
        assert status == 0, status
        assert content(seen) == key, f"{content(seen)} is not {key}"


def paths_with_odd_characters_survive_in_the_units(bench):
    prepare(bench, "systemctl")
    bench.fake("launchctl", "")
    place = os.path.join(bench.root, "elsewhere", "a & b <100%> $HOME")
    expect(bench.run(DRAUPNIR_SERVICE="systemd", INSTALL_DIR=place), 0)
    unit = content(f"{bench.home}/{UNIT}")
    assert f'ExecStart="{place}/sindri-agent"'.replace("%", "%%").replace("$", "$$") in unit, unit
    expect(bench.run(DRAUPNIR_SERVICE="launchd", INSTALL_DIR=place), 0)
    agent = f"{bench.home}/Library/LaunchAgents/io.github.pacphi.draupnir.sindri-agent.plist"
    with open(agent, "rb") as file:
        assert plistlib.load(file)["ProgramArguments"][-1] == f"{place}/sindri-agent"
