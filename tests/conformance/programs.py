"""Shells and full-screen programs in the agent's terminals: keys in, screens out, sizes, signals, exit statuses."""

import base64
import contextlib
import os
import pathlib
import re

import story
from rig import PYTHON, ROOT, Agent, Console, NotInstalled, Suite, need, same, version_of_package

# How the output of a shell ends that waits for a line.
PROMPT = r"[#$] $"

# The key that interrupts, and how Escape and F10 are sent.
INTERRUPT, ESCAPE, F10 = "\x03", "\x1b", "\x1b[21~"

# A line of a shell prints these in one piece, and its echo does not.
SHELLS = {
    "bash": ("echo $((6*7))", "$?"),
    "dash": ("echo $((6*7))", "$?"),
    "zsh": ("echo $((6*7))", "$?"),
    "fish": ("math 6 '*' 7", "$status"),
    "busybox": ("echo $((6*7))", "$?"),
}

# Debian's packages that are not named as their program is.
PACKAGES = {"top": "procps", "su": "util-linux"}


def suites(is_full):
    """One row a program."""
    if is_full:
        for name in [*SHELLS, *PROGRAMS]:
            yield name, lambda name=name: judge(name)


class Terminal:
    """A terminal of the agent, as a browser sees it."""

    def __init__(self, console, session, shell="/bin/sh", connection=1):
        self.console, self.session, self.shell, self.connection, self.seen = console, session, shell, connection, 0
        self.open(connection)

    def open(self, connection):
        """Opens it, or attaches to it again."""
        self.connection = connection
        size = {"session_id": self.session, "cols": 80, "rows": 24, "shell": self.shell}
        self.console.send("terminal:create", size, session_id=self.session)

    def type(self, text):
        """Types this."""
        data = base64.b64encode(text.encode()).decode()
        self.console.send("terminal:input", {"session_id": self.session, "data": data}, session_id=self.session)

    def resize(self, cols, rows):
        """Changes its size."""
        payload = {"session_id": self.session, "cols": cols, "rows": rows}
        self.console.send("terminal:resize", payload, session_id=self.session)

    def until(self, pattern):
        """Waits until it has printed this since the last wait."""

        def is_printed(_):
            text = story.printed(self.console, self.session).decode(errors="replace")
            found = re.search(pattern, text[self.seen :])
            if found:
                self.seen += found.end()
            return bool(found)

        self.console.lines.wait(is_printed, f"{pattern!r} in the terminal")

    def closed(self, status):
        """Waits for its end."""
        payload = self.console.frame(self.connection, "terminal:closed", session_id=self.session)
        same(payload.get("exit_code"), status, "the exit status")


@contextlib.contextmanager
def rig(**environment):
    """A console and an agent."""
    with Console([PYTHON, str(ROOT / "tests/foreign/console.py")]) as console:
        with Agent(f"http://127.0.0.1:{console.port}", TERM="xterm-256color", **environment) as agent:
            console.frame(1, "heartbeat")
            yield console, agent
            agent.drain()


def judge(name):
    """The cases of one program."""
    path = need(name)[0]
    suite = Suite(name, version_of_package(PACKAGES.get(name, name)))
    if name in SHELLS:
        shell(suite, name, path)
    else:
        for case, act in PROGRAMS[name].items():
            with suite.case(case), rig() as (console, agent):
                act(Terminal(console, "s1"), console, agent)
    return suite


def shell(suite, name, path):
    """A line, an interrupt, a size, and an exit status."""
    product, status = SHELLS[name]
    with rig() as (console, agent):
        if name == "busybox":
            wrapper = pathlib.Path(agent.home) / "ash"
            wrapper.write_text(f"#!/bin/sh\nexec {path} ash -i\n")
            wrapper.chmod(0o755)
            path = str(wrapper)
        terminal = Terminal(console, "s1", path)
        with suite.case("line"):
            terminal.until(r"[#$>%] ?")
            terminal.type(f"{product}\r")
            terminal.until(r"42\r\n")
        with suite.case("interrupt"):
            terminal.type("echo star''ted; sleep 1000\r")
            terminal.until("started")
            terminal.type(INTERRUPT)
            terminal.type("echo inter''rupted\r")
            terminal.until("interrupted")
        with suite.case("size"):
            terminal.resize(101, 31)
            terminal.type("stty size\r")
            terminal.until("31 101")
        with suite.case("UTF-8"):
            terminal.type("printf '\\303\\251\\342\\202\\254|\\n'\r")
            terminal.until("é€\\|")
        with suite.case("exit status"):
            terminal.type("exit 5\r")
            terminal.closed(5)


def leave(terminal):
    """The shell is there again, and ends. What is typed before its prompt, some programs discard."""
    terminal.until(PROMPT)
    terminal.type("echo ba''ck\r")
    terminal.until("back")
    terminal.type("exit 3\r")
    terminal.closed(3)


def vim(terminal, _console, agent):
    terminal.type("vim -u NONE -N text\r")
    terminal.until("~")
    terminal.type(f"ihello{ESCAPE}:wq\r")
    terminal.until("written")
    leave(terminal)
    same((pathlib.Path(agent.home) / "text").read_text(), "hello\n", "the file")


def vim_through_a_cut(terminal, console, _agent):
    """The editor stays, and its screen comes again for the browser that attaches."""
    terminal.type("vim -u NONE -N text\r")
    terminal.until("~")
    terminal.type("ibefore-the-cut")
    terminal.until("before-the-cut")
    console.order("cut")
    console.wait("upgrade", connection=2)
    console.frame(2, "heartbeat")
    terminal.open(2)
    terminal.until("before-the-cut")
    terminal.type(f"{ESCAPE}:q!\r")
    leave(terminal)


def vim_resized(terminal, _console, _agent):
    """The size of the terminal reaches the program in it at once."""
    terminal.type("vim -u NONE -N +'autocmd VimResized * echo \"now\" &columns &lines'\r")
    terminal.until("~")
    terminal.resize(97, 33)
    terminal.until("now 97 33")
    terminal.type(":q!\r")
    leave(terminal)


def less(terminal, _console, _agent):
    terminal.type("seq 5000 | less\r")
    terminal.until("23")
    terminal.type("G")
    terminal.until("5000")
    terminal.type("g")
    terminal.type("/4321\r")
    terminal.until("4321")
    terminal.type("q")
    leave(terminal)


def viewer(command, screen, quit_keys):
    """A program that shows something until a key ends it."""

    def act(terminal, _console, _agent):
        terminal.type(f"{command}\r")
        terminal.until(screen)
        terminal.type(quit_keys)
        leave(terminal)

    return act


def multiplexer(start, screen, detach, detached, attach, stop):
    """A shell inside survives the detaching."""

    def act(terminal, _console, agent):
        number = agent.process.pid
        terminal.type(start.format(n=number) + "\r")
        terminal.until(screen)
        terminal.type("echo in''side\r")
        terminal.until("inside")
        terminal.type(detach)
        terminal.until(detached)
        terminal.type(attach.format(n=number) + "\r")
        terminal.until("inside")
        terminal.type(detach)
        terminal.until(detached)
        terminal.type(stop.format(n=number) + "\r")
        leave(terminal)

    return act


def as_another(command):
    """The program runs a shell of another user in the same terminal."""

    def act(terminal, _console, _agent):
        if os.geteuid() != 0:
            raise NotInstalled("only root becomes another user without a password")
        terminal.type(f"{command}\r")
        terminal.type("echo I am $(id -un), on $(tty)\r")
        terminal.until("I am daemon, on /dev/")
        terminal.until(PROMPT)
        terminal.type("exit\r")
        leave(terminal)

    return act


PROGRAMS = {
    "vim": {"edit": vim, "through a cut": vim_through_a_cut, "resized": vim_resized},
    "less": {"page and search": less},
    "top": {"show and quit": viewer("top", "load average", "q")},
    "htop": {"show and quit": viewer("htop", "Load average", "q")},
    "mc": {"show and quit": viewer("mc -u", "Quit|10", F10)},
    "tmux": {
        "detach and attach": multiplexer(
            "tmux -L draupnir-{n} -f /dev/null new sh",
            r"\[0\]",
            "\x02d",
            "detached",
            "tmux -L draupnir-{n} attach",
            "tmux -L draupnir-{n} kill-server",
        )
    },
    "screen": {
        "detach and attach": multiplexer(
            "screen -S draupnir-{n} sh",
            r"[#$] ",
            "\x01d",
            "detached",
            "screen -r draupnir-{n}",
            "screen -S draupnir-{n} -X quit",
        )
    },
    "su": {"another user": as_another("su daemon -s /bin/sh")},
    "sudo": {"another user": as_another("sudo -u daemon /bin/sh")},
}
