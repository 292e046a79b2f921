"""What the documents say of the code: functions, log lines, links to headings. Cases of check_documents.py."""

import os
import re
import unittest

import yaml

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
OPERATIONS = "extension/OPERATIONS.md"
ARCHITECTURE = ".github/ARCHITECTURE.md"


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def sources():
    """The text of the agent without its unit tests, each string in one line."""
    texts = []
    for folder, _, names in os.walk(os.path.join(TOP, "src")):
        for name in names:
            if name.endswith(".rs") and name != "tests.rs":
                texts.append(read(os.path.join(folder, name)).split("#[cfg(test)]")[0])
    return re.sub(r"\\\n\s*", "", "\n".join(texts))


def log_table(document):
    return re.findall(r"^\| (error|warn|info) \| `([^`]+)` \|", document, re.M)


def logged(source):
    """The level and text of each log line from info on whose text is not another function's; `…` for a value."""
    string = r'"(?:[^"\\]|\\.)*"'
    nested = rf'\((?:{string}|[^()"])*\)'
    call = rf'tracing::(error|warn|info)!\(((?:{string}|{nested}|[^()"])*)\)'
    for level, arguments in re.findall(call, source):
        *_, text = [quoted[1:-1] for quoted in re.findall(string, arguments)] or [""]
        text = re.sub(r"\{\w*\}", "…", text)
        if text.strip("…"):
            yield level, text


def log_faults(document, source):
    table = log_table(document)
    for level, text in logged(source):
        if not any(of == level and text.startswith(row.rstrip("…")) for of, row in table):
            yield f"no row for: {level} {text}"
    for level, text in table:
        if not all(part.strip() in source for part in text.split("…")):
            yield f"nothing logs: {level} {text}"


class Logs(unittest.TestCase):
    """The table of log lines has every one that an operator sees, and no other."""

    def test_every_log_line_has_a_row_and_every_row_is_logged(self):
        source, document = sources(), read(OPERATIONS)
        self.assertGreater(len(list(logged(source))), 25)
        self.assertGreater(len(log_table(document)), 40)
        self.assertEqual(list(log_faults(document, source)), [])

    def test_each_kind_of_fault_is_found(self):
        source, document = sources(), read(OPERATIONS)
        planted = 'tracing::warn!(%error, "disk on fire");\n'
        self.assertEqual(list(log_faults(document, source + planted)), ["no row for: warn disk on fire"])
        planted = "| info | `disk put out` | go on |\n"
        self.assertEqual(list(log_faults(document + planted, source)), ["nothing logs: info disk put out"])


def hops(document):
    """The file and the function of each row of a table whose second column is `file.rs`: `function`."""
    return re.findall(r"`((?:src|fsm)/[\w/]+\.rs)`: ((?:`\w+`(?:, )?)+)", document)


def hop_faults(document):
    for path, names in hops(document):
        text = read(path) if os.path.isfile(os.path.join(TOP, path)) else ""
        for name in re.findall(r"`(\w+)`", names):
            if not re.search(rf"\bfn {name}\b", text):
                yield f"there is no function {name} in {path}"
    for row in re.findall(r"^\| *\d+ \|.*$", document, re.M):
        if not hops(row):
            yield f"no function in: {row}"


class Architecture(unittest.TestCase):
    """Each hop names a function that exists in the file that it names."""

    def test_every_function_of_a_hop_exists(self):
        self.assertGreater(len(hops(read(ARCHITECTURE))), 40)
        self.assertEqual(list(hop_faults(read(ARCHITECTURE))), [])

    def test_each_kind_of_fault_is_found(self):
        for row, fault in (
            ("| 1 | `src/agent/mod.rs`: `gone` | x |", "there is no function gone in src/agent/mod.rs"),
            ("| 1 | `src/gone.rs`: `run` | x |", "there is no function run in src/gone.rs"),
            ("| 1 | the agent | x |", "no function in: | 1 | the agent | x |"),
        ):
            self.assertEqual(list(hop_faults(row)), [fault])


class Forms(unittest.TestCase):
    """The forms for issues are ones that GitHub reads."""

    def test_every_form_has_what_github_wants(self):
        folder = ".github/ISSUE_TEMPLATE"
        forms = [yaml.safe_load(read(f"{folder}/{name}")) for name in os.listdir(os.path.join(TOP, folder))]
        forms = [form for form in forms if "contact_links" not in form]
        self.assertGreater(len(forms), 1)
        for form in forms:
            self.assertLessEqual({"name", "description", "body"}, set(form))
            fields = [field for field in form["body"] if field["type"] != "markdown"]
            ids = [field["id"] for field in fields]
            self.assertEqual(len(set(ids)), len(ids))
            for field in fields:
                self.assertIn(field["type"], ("input", "textarea", "dropdown", "checkboxes"))
                self.assertIn("label", field["attributes"])


LINKING = (
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    OPERATIONS,
    ARCHITECTURE,
    ".github/CONTRIBUTING.md",
    ".github/RELEASING.md",
    "fuzz/README.md",
)


def anchors(document):
    titles = re.findall(r"^#+ (.*)$", document, re.M)
    return {re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def link_faults(path, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        if name.startswith("http"):
            continue
        place = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
        if not os.path.exists(os.path.join(TOP, place)):
            yield f"{path}: there is no {name}"
        elif anchor and anchor not in anchors(read(place)):
            yield f"{path}: {place} has no heading #{anchor}"


class Headings(unittest.TestCase):
    """Links between the documents lead to files and headings that exist."""

    def test_every_link_leads_somewhere(self):
        self.assertEqual([fault for path in LINKING for fault in link_faults(path, read(path))], [])

    def test_each_kind_of_fault_is_found(self):
        text = "[x](gone.md) [y](CHANGELOG.md#gone) [z](CHANGELOG.md#unreleased) [w](https://example.com)"
        expected = ["README.md: there is no gone.md", "README.md: CHANGELOG.md has no heading #gone"]
        self.assertEqual(list(link_faults("README.md", text)), expected)
