"""What the installer does with the agent in Go: its name, its releases, its processes. Each function is one case.

A copy of `sleep` under the name of an agent plays one that runs. Every case has a home of its own, and the installer
stops nothing outside that home, so cases run beside each other and beside an agent of this machine.
"""

import contextlib
import os
import shutil
import subprocess

from bench import SCRIPT, Missing
from cases import expect, untouched
from server import agent

GO_FILE = "/releases/download/v1.2.2/draupnir-linux-amd64"


def go_agent(version="1.2.2"):
    return agent(version, name="draupnir")


def put(bench, name, content, mode=0o755):
    path = os.path.join(bench.bin, name)
    os.makedirs(bench.bin, exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    return path


def need_proc():
    if not os.path.exists("/proc/self/comm"):
        raise Missing("there is no /proc")


@contextlib.contextmanager
def running(bench, name, pidfile=True, shield=""):
    """A process that runs as `name` from the bench's directory; `shield` is run before, in the same process."""
    need_proc()
    os.makedirs(bench.bin, exist_ok=True)
    program = os.path.join(bench.bin, name)
    shutil.copy(shutil.which("sleep"), program)
    environment = {"HOME": bench.home, "PATH": os.environ["PATH"]}
    command = ["sh", "-c", f'{shield} exec "$0" 600', program]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while open(f"/proc/{process.pid}/comm", encoding="ascii").read().strip() != name:
            os.sched_yield()  # until exec
        if pidfile:
            note(bench, process.pid)
        yield process
    finally:
        process.kill()
        process.wait()


def note(bench, pid):
    os.makedirs(f"{bench.home}/.sindri", exist_ok=True)
    with open(f"{bench.home}/.sindri/draupnir.pid", "w", encoding="ascii") as file:
        file.write(f"{pid}\n")


def noted(bench):
    return os.path.exists(f"{bench.home}/.sindri/draupnir.pid")


# --- both names


def both_names_run_the_program(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    assert os.readlink(f"{bench.bin}/draupnir") == "sindri-agent"
    printed = subprocess.run([f"{bench.bin}/draupnir", "--version"], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("sindri-agent 1.4.3"), printed
    bench.server.release("1.4.4")
    expect(bench.run(), 0)
    assert os.readlink(f"{bench.bin}/draupnir") == "sindri-agent"
    assert bench.installed("draupnir.previous") is None
    assert bench.leftovers() == []


def program_of_the_former_name_is_kept(bench):
    put(bench, "draupnir", go_agent())
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    assert bench.installed("draupnir.previous") == go_agent()
    assert os.readlink(f"{bench.bin}/draupnir") == "sindri-agent"
    expect(bench.run(), 0)
    assert bench.installed("draupnir.previous") == go_agent()
    expect(bench.run("--uninstall"), 0, "draupnir.previous")
    assert os.listdir(bench.bin) == []


def link_that_was_removed_comes_back(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    os.remove(f"{bench.bin}/draupnir")
    expect(bench.run(), 0, "installed already")
    assert os.readlink(f"{bench.bin}/draupnir") == "sindri-agent"


def directory_of_the_former_name_is_an_error(bench):
    os.makedirs(f"{bench.bin}/draupnir")
    bench.server.release("1.4.3")
    expect(bench.run(), 73, "draupnir is a directory")
    assert bench.server.requests == []


# --- releases before 1.3.0


def last_release_in_go_is_installed_until_there_is_another(bench):
    bench.server.release("1.2.2", name="draupnir")
    expect(bench.run(), 0, "1.2.2 is the agent in Go", "draupnir 1.2.2 is installed")
    assert bench.installed("draupnir") == go_agent()
    untouched(bench)
    expect(bench.run(), 0, "draupnir 1.2.2 is installed already")
    bench.server.release("1.4.3")
    expect(bench.run(), 0, "sindri-agent 1.4.3 is installed")
    assert bench.installed("draupnir.previous") == go_agent()


def release_in_go_can_take_the_place_back(bench):
    bench.server.release("1.2.2", name="draupnir")
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    expect(bench.run("1.2.2"), 0, "draupnir 1.2.2 is installed")
    assert not os.path.islink(f"{bench.bin}/draupnir")
    assert bench.installed("draupnir") == go_agent()
    assert bench.installed("sindri-agent") == agent("1.4.3")
    expect(bench.run("--uninstall"), 0)
    assert os.listdir(bench.bin) == []


def release_in_go_without_its_file_is_refused(bench):
    bench.server.release("1.2.2", name="other")
    expect(bench.run(), 66, "1.2.2 is the agent in Go", "the checksum of draupnir-linux-amd64 v1.2.2 does not exist")
    untouched(bench)


def release_in_go_has_no_service(bench):
    bench.fake("systemctl", "")
    bench.server.release("1.2.2", name="draupnir")
    expect(bench.run(DRAUPNIR_SERVICE="systemd"), 64, "1.3.0 or later")
    assert GO_FILE not in bench.server.requests


def registry_installs_by_a_pipe_into_bash(bench):
    """As the registry does: a script with an argument, which pipes this one into a plain bash."""
    bench.server.release("1.4.3")
    bench.server.release("1.4.4")
    bench.grant("bash")
    script = os.path.join(bench.tools, "registry")
    with open(SCRIPT, "rb") as file:
        bench.server.files["/extension/install.sh"] = file.read()
    with open(script, "w", encoding="utf-8") as file:
        file.write('set -eu\nexport DRAUPNIR_VERSION="$1"\n')
        file.write(f"curl -fsSL {bench.server.url}/extension/install.sh | bash\n")
    expect(bench.run("1.4.3", script=script), 0, "sindri-agent 1.4.3 is installed")


# --- agents that run


def agent_in_go_is_stopped_by_its_pidfile(bench):
    bench.server.release("1.4.3")
    with running(bench, "draupnir") as process:
        expect(bench.run(), 0, f"stopped the agent that ran: process {process.pid}", "next: start the agent again")
        assert process.wait(0) == -15
    assert not noted(bench)


def agent_in_go_is_stopped_without_a_pidfile(bench):
    bench.server.release("1.4.3")
    with running(bench, "draupnir", pidfile=False) as process:
        expect(bench.run(), 0, f"stopped the agent that ran: process {process.pid}")
        assert process.wait(0) == -15


def agent_in_go_left_over_is_stopped_by_a_second_run(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    os.remove(f"{bench.bin}/draupnir")
    with running(bench, "draupnir", pidfile=False) as process:
        expect(bench.run(), 0, "installed already", f"stopped the agent that ran: process {process.pid}")
        assert process.wait(0) == -15


def agent_that_ignores_sigterm_is_killed(bench):
    bench.server.release("1.4.3")
    with running(bench, "draupnir", shield="trap '' TERM;") as process:
        expect(bench.run(), 0, f"stopped the agent that ran: process {process.pid}")
        assert process.wait(0) == -9


def agent_of_another_home_goes_on(bench):
    bench.server.release("1.4.3")
    with running(bench, "draupnir", pidfile=False, shield="export HOME=/elsewhere;") as process:
        outcome = bench.run()
        expect(outcome, 0)
        assert "stopped" not in outcome.output, outcome.output
        assert process.poll() is None


def process_that_got_the_pid_of_an_agent_goes_on(bench):
    bench.server.release("1.4.3")
    with running(bench, "other") as process:
        outcome = bench.run()
        expect(outcome, 0)
        assert "stopped" not in outcome.output, outcome.output
        assert process.poll() is None
    assert not noted(bench), "a start would take the other process for the agent"


def pidfile_of_nonsense_is_survived(bench):
    bench.server.release("1.4.3")
    for number, pid in enumerate(("", "-1", "1 2", "0x10", "99999999")):
        note(bench, pid)
        expect(bench.run(f"1.4.{3 + number}"), 0)
        assert not noted(bench)
        bench.server.release(f"1.4.{4 + number}")


def upgrade_stops_what_sindri_started(bench):
    """Sindri's hook starts the new version only where none runs."""
    bench.server.release("1.4.3")
    with running(bench, "sindri-agent") as process:
        expect(bench.run(), 0, f"stopped the agent that ran: process {process.pid}")
        assert process.wait(0) == -15
    expect(bench.run(), 0, "installed already")


@contextlib.contextmanager
def handing_over(bench, name, user=None):
    """A process of this user that runs as `name` and notes SIGUSR2 in a file; and that file."""
    need_proc()
    os.makedirs(bench.bin, exist_ok=True)
    program = os.path.join(bench.bin, name)
    shutil.copy(shutil.which("bash"), program)
    noted_in = os.path.join(bench.home, "signals")
    script = f"trap 'echo caught >>{noted_in}' USR2; echo ready; while :; do sleep 0.05; done"
    environment = {"HOME": bench.home, "PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [program, "-c", script], env=environment, start_new_session=True, stdout=subprocess.PIPE, user=user
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        note(bench, process.pid)
        yield process, noted_in
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        process.stdout.close()


def upgrade_lets_an_agent_hand_over_that_can(bench):
    bench.server.release("1.4.3")
    with handing_over(bench, "sindri-agent") as (process, noted_in):
        outcome = bench.run()
        expect(outcome, 0, f"asked the agent that runs to hand over to the new program: process {process.pid}")
        while not os.path.exists(noted_in):
            os.sched_yield()
        assert process.poll() is None and "stopped" not in outcome.output, outcome.output
        assert noted(bench)
    assert bench.installed("sindri-agent.previous") is not None


def upgrade_by_the_registry_stops_an_agent_that_can_hand_over(bench):
    """Its hook starts an agent whether or not one runs."""
    bench.server.release("1.4.3")
    with handing_over(bench, "sindri-agent") as (process, noted_in):
        outcome = bench.run(DRAUPNIR_VERSION="1.4.3")
        expect(outcome, 0, f"stopped the agent that ran: process {process.pid}")
        assert process.wait(10) == -15
        assert not os.path.exists(noted_in)


def upgrade_signals_no_program_of_another_name(bench):
    """The agent in Go catches every signal and knows none but SIGTERM."""
    bench.server.release("1.4.3")
    with handing_over(bench, "draupnir") as (process, noted_in):
        expect(bench.run(), 0, f"stopped the agent that ran: process {process.pid}")
        assert process.wait(10) == -15
        assert not os.path.exists(noted_in)


def second_run_stops_nothing(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    with running(bench, "exe") as process:  # what a program that restarted itself in place is called
        outcome = bench.run()
        expect(outcome, 0, "installed already")
        assert process.poll() is None and "stopped" not in outcome.output, outcome.output
        assert noted(bench)


def agent_that_runs_the_installer_is_not_stopped(bench):
    """An upgrade from a terminal of the console: the agent's end would be the end of the installer."""
    need_proc()
    bench.server.release("1.4.3")
    os.makedirs(bench.bin)
    program = os.path.join(bench.bin, "draupnir")
    shutil.copy(shutil.which("bash"), program)
    script = os.path.join(bench.tools, "session")
    with open(script, "w", encoding="utf-8") as file:
        file.write(f'mkdir -p {bench.home}/.sindri\necho $$ >{bench.home}/.sindri/draupnir.pid\n')
        file.write('"$@"\nstatus=$?\nexit $status\n')  # more than one command, so that the shell stays
    install = bench.start("1.4.3", under=[program, script])
    output, _ = install.communicate(timeout=60)
    assert install.returncode == 0, output
    assert "not stopped, since it runs this script" in output, output
    assert noted(bench)
    assert os.readlink(program) == "sindri-agent"


def uninstall_stops_the_agent(bench):
    bench.server.release("1.4.3")
    expect(bench.run(), 0)
    with running(bench, "exe") as process:
        os.remove(f"{bench.bin}/exe")
        expect(bench.run("--uninstall"), 0, f"stopped the agent that ran: process {process.pid}", "removed:")
        assert process.wait(0) == -15
    assert not noted(bench)
    assert os.listdir(bench.bin) == []
