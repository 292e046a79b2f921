"""Holds what the documents show to what there is: the paths and commands they name, the samples one copies out of them.

Its last line is `N passed, N failed`, alone.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import unittest

from chart_checks import Chart  # noqa: F401 # its cases run along with those below
from document_checks import Architecture, Forms, Headings, Logs  # noqa: F401 # likewise
from plain_runner import run_and_report
from type_checks import Types  # noqa: F401 # likewise
from word_checks import Words  # noqa: F401 # likewise

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Longer than anything here takes on a busy machine.
DEADLINE_SECONDS = 60

# What only exists once something has been run.
MADE = ("fuzz/artifacts/", "fuzz/nightly/", "target/")


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def samples(document, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(document), re.M | re.S)


# The documents whose paths are checked, and how many each names at least.
DOCUMENTS = {
    "README.md": 25,
    "extension/OPERATIONS.md": 0,
    ".github/ARCHITECTURE.md": 20,
    ".github/CONTRIBUTING.md": 20,
    ".github/RELEASING.md": 5,
    "fuzz/README.md": 20,
}


class Paths(unittest.TestCase):
    def named(self, document):
        """The paths of this repository that a document names as code; a placeholder ends one."""
        text = read(document)
        spans = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    (.*)$", text, re.M) + samples(document, "sh")
        folders = r"\.ci|\.github|extension|fsm|fuzz|src|tests"
        for path in re.findall(rf"(?<![\w/.:-])((?:{folders})/[\w./-]*)", "\n".join(spans)):
            path = path.rstrip(".")
            if not path.startswith(MADE):
                yield path

    def test_every_path_that_a_document_names_exists(self):
        for document, least in DOCUMENTS.items():
            named = sorted(set(self.named(document)))
            self.assertGreaterEqual(len(named), least, named)
            missing = [path for path in named if not os.path.exists(os.path.join(TOP, path))]
            self.assertEqual(missing, [], document)

    def test_every_command_that_a_document_shows_can_be_run(self):
        for document in ("README.md", ".github/CONTRIBUTING.md", "fuzz/README.md"):
            shown = re.findall(r"^    ((?:fuzz|tests)/[\w/-]+)", read(document), re.M)
            shown += re.findall(r"`(\.ci/run|tests/(?:scripts/)?[\w-]+|fuzz/[\w-]+)(?: [^`]*)?`", read(document))
            files = [path for path in shown if os.path.isfile(os.path.join(TOP, path))]
            self.assertGreater(len(files), 1, shown)
            for path in files:
                self.assertTrue(os.access(os.path.join(TOP, path), os.X_OK), path)

    def test_the_fuzz_project_s_scripts_are_in_its_table(self):
        scripts = [name for name in os.listdir(os.path.join(TOP, "fuzz")) if "." not in name]
        scripts = [name for name in scripts if os.path.isfile(os.path.join(TOP, "fuzz", name))]
        row = re.search(r"^\| (`smoke`[^|]*) \|", read("fuzz/README.md"), re.M)[1]
        self.assertEqual(sorted(re.findall(r"`(\w+)`", row)), sorted(scripts))
        ignored = {f"/fuzz/{name}" for name in scripts} & set(read(".gitignore").splitlines())
        self.assertEqual(ignored, set(), "a clone would not have it")


# What the check of references reads: whole folders, or files. `("",)` is the whole tree.
REFERRING = ("",)

# Documents of other projects that comments may name.
FOREIGN = ("SKILL.md",)


class References(unittest.TestCase):
    """What a comment or a document names is there: files, sections of documents, tests."""

    def sources(self):
        """Every file to be read, with the text in which it can name something: its comments, or all of a document."""
        for folder, folders, files in os.walk(TOP):
            inner = os.path.relpath(folder, TOP)
            folders[:] = [name for name in folders if name not in (".git", "target", "__pycache__", "node_modules")]
            for name in files:
                path = os.path.normpath(os.path.join(inner, name))
                is_meant = any(path == part or path.startswith(f"{part}/") or not part for part in REFERRING)
                text = self.comments(path) if is_meant else None
                if text:
                    yield path, text

    def comments(self, path):
        kind = os.path.splitext(path)[1]
        if kind == ".md":
            return read(path)
        marks = {".rs": r"//[/!]?", ".py": "#", ".sh": "#", ".yml": "#", ".yaml": "#", ".toml": "#", "": "#"}
        if kind not in marks:
            return None
        try:
            lines = read(path).splitlines()
        except UnicodeDecodeError:
            return None
        found = [re.search(rf"(?:^|\s){marks[kind]} ?(.*)$", line) for line in lines]
        # A reference may go over the end of a line.
        return "\n".join(line[1] if line else "" for line in found)

    def sections(self, document):
        return {re.sub(r"[`#]", "", line).strip().lower() for line in re.findall(r"^#+ .*", read(document), re.M)}

    def document(self, name, path):
        """Where a document lies that is named in a file: as the path says, beside it, or alone of its name."""
        beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
        for place in (beside, name, os.path.join("src/protocol", name)):
            if os.path.isfile(os.path.join(TOP, place)):
                return place
        return None

    def is_there(self, name, path):
        """Whether a path leads somewhere from the top, or from the crate or folder that the file is in."""
        folder = os.path.dirname(path)
        while folder and not os.path.exists(os.path.join(TOP, folder, name)):
            folder = os.path.dirname(folder)
        return os.path.exists(os.path.join(TOP, folder, name))

    def faults(self, path, text):
        """What a text names and is not there."""
        for name in re.findall(r"(?<![\w/.<-])([\w./-]*\w\.md)\b", text):
            if name not in FOREIGN and self.document(name, path) is None:
                yield f"{path}: there is no {name}"
        folders = r"\.ci|\.github|extension|fsm|fuzz|src|tests"
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            if not name.startswith(MADE) and not self.is_there(name.rstrip("."), path):
                yield f"{path}: there is no {name}"
        for name, titles in re.findall(r"([\w./-]*\w\.md)((?:(?:,| and)\s+\"[^\"\n]+\")+)", text):
            document = self.document(name, path)
            for title in re.findall(r"\"([^\"]+)\"", titles):
                if document and title.lower() not in self.sections(document):
                    yield f"{path}: {name} has no section {title!r}"
        for name, tests in re.findall(r"`([\w./-]+\.rs)`: ((?:`\w+`(?:, )?)+)", text):
            inner = read(name) if os.path.isfile(os.path.join(TOP, name)) else ""
            for test in re.findall(r"`(\w+)`", tests):
                if not re.search(rf"fn {test}[(<]", inner):
                    yield f"{path}: there is no {test} in {name}"
        for words in re.findall(r"\bparts? [AB]\b", text):
            yield f"{path}: no document here has a {words!r}"

    def test_everything_that_is_named_exists(self):
        sources = list(self.sources())
        self.assertGreater(len(sources), 20)
        self.assertEqual([fault for path, text in sources for fault in self.faults(path, text)], [])

    def test_each_kind_of_fault_is_found(self):
        for text in (
            "as in gone.md",
            "see `src/gone.rs`",
            'rules (CONSOLE.md, "Gone")',
            'rules (CONSOLE.md, "Events" and\n"Gone")',
            "| `tests/sindri.rs`: `gone_is_this_test` |",
            "Wire: part B",
        ):
            self.assertEqual(len(list(self.faults("src/protocol/mod.rs", text))), 1, text)
        self.assertEqual(list(self.faults("README.md", 'rules (CONSOLE.md, "Events"), `src/lib.rs`')), [])

    def test_every_field_of_the_console_names_its_test(self):
        table = read("src/protocol/CONSOLE.md").split("| field of Mimir |")[1].splitlines()[2:]
        self.assertGreater(len(table), 15)
        for row in (line for line in table if line):
            self.assertRegex(row, r"`tests/\w+\.rs`: `\w+` \|$")


class Dictionaries(unittest.TestCase):
    def test_only_targets_that_read_words_get_a_dictionary(self):
        targets = [name.removesuffix(".rs") for name in os.listdir(os.path.join(TOP, "fuzz", "fuzz_targets"))]
        given = {}
        for target in targets:
            command = [os.path.join(TOP, "fuzz", "dictionary"), target]
            option = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            if option:
                given[target] = option.removeprefix("-dict=fuzz/dictionaries/")
        expected = {name: f"{name}.dict" for name in ("close_frame", "config", "http_response", "llm_usage", "log_lines")}
        expected |= {name: "json.dict" for name in ("envelope_decode", "envelope_differential")}
        self.assertEqual(given, expected)
        self.assertEqual(sorted(os.listdir(os.path.join(TOP, "fuzz", "dictionaries"))), sorted(set(given.values())))


class Samples(unittest.TestCase):
    def test_fly_s_configuration_is_one(self):
        (sample,) = samples("extension/OPERATIONS.md", "toml")
        configuration = tomllib.loads(sample)
        self.assertEqual(configuration["kill_signal"], "SIGTERM")
        state = configuration["env"]["SINDRI_AGENT_STATE_DIR"]
        self.assertTrue(state.startswith(configuration["mounts"]["destination"] + "/"), state)
        self.variables_are_known(configuration["env"])

    def variables_are_known(self, names):
        known = re.findall(r"^\| `(SINDRI_\w+)` \|", read("README.md"), re.M)
        for name in names:
            self.assertIn(name, known)

    def test_the_image_is_made_of_what_a_release_builds(self):
        dockerfile, release = read("Dockerfile"), read(".github/workflows/release.yml")
        (copied,) = re.findall(r"^COPY .*?(\S+) /sindri-agent$", dockerfile, re.M)
        (platforms,) = re.findall(r"buildx build --platform (\S+)", release)
        (built,) = re.findall(r"tests/scripts/static-binaries (.+)$", release, re.M)
        for platform in platforms.split(","):
            name = copied.replace("${TARGETARCH}", platform.removeprefix("linux/"))
            self.assertRegex(name, r"^dist/sindri-agent-linux-\w+$")
            target = name.removeprefix("dist/sindri-agent-")
            self.assertIn(target, built.split())
            self.assertRegex(read("tests/scripts/static-binaries"), rf"(?m)^  {target}\) triple=")
            self.assertRegex(release, rf"(?m)^ +{re.escape(name)}$")


# Stand-ins for the agent and the program beside it: each prints when it is ready and when it gets SIGTERM.
AGENT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.write(1, b"agent ready\\n")
signal.sigwait([signal.SIGTERM])
os.write(1, b"agent stopped\\n")
"""
APP = """
import os, signal, sys, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
def end():
    os._exit(int(open(sys.argv[0] + ".end").read()))
threading.Thread(target=end).start()
os.write(1, b"app ready\\n")
signal.sigwait([signal.SIGTERM])
os.write(1, b"app stopped\\n")
os._exit(7)
"""


class BesideTheProgram(unittest.TestCase):
    """The command line for a machine that runs a program and the agent beside it, under each shell there is."""

    def command(self):
        (line,) = re.findall(r"^CMD (\[.*\])$", "".join(samples("extension/OPERATIONS.md", "dockerfile")), re.M)
        return json.loads(line)

    def run_under(self, shell, act):
        """Starts it, acts when both are ready; its exit status, and what both have said by then."""
        with tempfile.TemporaryDirectory() as folder:
            for name, script in (("sindri-agent", AGENT), ("my-app", APP)):
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(f"#!{sys.executable}\n{script}")
                os.chmod(file.name, 0o755)
            end = os.path.join(folder, "my-app.end")
            os.mkfifo(end)
            program, *arguments = self.command()
            self.assertEqual(program, "/bin/sh")
            environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
            started = subprocess.Popen(
                [*shell, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            try:
                ready = sorted(started.stdout.readline() for _ in range(2))
                self.assertEqual(ready, ["agent ready\n", "app ready\n"])
                act(started, end)
                said, _ = started.communicate(timeout=DEADLINE_SECONDS)
            finally:
                started.kill()
            return started.returncode, sorted(said.splitlines())

    def under_every_shell(self, act, expected):
        shells = [["dash"], ["bash", "--posix"], ["busybox", "sh"]]
        for shell in (shell for shell in shells if shutil.which(shell[0])):
            with self.subTest(shell=shell):
                self.assertEqual(self.run_under(shell, act), expected)

    def test_its_status_is_that_of_a_program_which_ends_by_itself(self):
        def end(_, place):
            with open(place, "w", encoding="utf-8") as file:
                file.write("3")

        self.under_every_shell(end, (3, ["agent stopped"]))

    def test_a_signal_reaches_both_and_the_program_s_status_counts(self):
        def stop(started, _):
            started.send_signal(signal.SIGTERM)

        self.under_every_shell(stop, (7, ["agent stopped", "app stopped"]))


if __name__ == "__main__":
    run_and_report()
