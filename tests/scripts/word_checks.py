"""The form of every text of this repository: the width of lines, the length of test names, private words. Cases of
check_documents.py."""

import os
import re
import subprocess
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
COLUMNS_MAX = 120
TEST_NAME_MAX = 60

# Private words, and words that hide who does what: as whole words in any case, with what to write instead.
QUAINT = {
    "anew": "again",
    "thrice": "three times",
    "whilst": "while",
    "absolve": "clear_suspect",
    "is_suspicious": "has_suspect",
    "may_complain": "allow",
    "take_allowance": "poll_credit",
    "told": "who reports, sends, logs or prints it",
    "whoever": "the subject, such as the caller or the operator",
    "nobody": "what is missing, such as no console or no reader",
    "somebody": "the subject, such as a user or another process",
    "anybody": "the subject, such as any user or any process",
}

# What no person writes or reads as a text: inputs of the fuzzer, captured files, generated ones.
FOLDERS = r"^(fuzz/(corpus|regressions)|tests/fixtures|fsm/sim/plots)/"
NO_TEXT = re.compile(rf"{FOLDERS}|\.(lock|jsonl|svg|png|json|dict|proptest-regressions)$")

# What cannot be broken: a link, and outside of comments a string too. One of several lines ends in another line.
LINK = re.compile(r"https?://\S+")
STRING = re.compile(r"""r#".*|(?<=[= ])'[^']{60,}'|"(\\.|[^"\\])*\\?("|$)|https?://\S+""")


def texts():
    """Each text of the repository with its path."""
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, check=True, capture_output=True, text=True).stdout
    for path in listed.splitlines():
        if not NO_TEXT.search(path):
            with open(os.path.join(TOP, path), encoding="utf-8") as file:
                yield path, file.read()


def wide_lines(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        is_table = path.endswith(".md") and line.lstrip().startswith("|")
        is_comment = line.lstrip().startswith(("// ", "///", "//!", "# ", '"""'))
        if not is_table and len((LINK if is_comment else STRING).sub("", line)) > COLUMNS_MAX:
            yield f"{path}:{number}: {len(line)} columns, {COLUMNS_MAX} are the most"


def long_test_names(path, text):
    rust, python = r"#\[(?:\w+::)?test\]\s*(?:#\[[^\n]*\]\s*)*(?:async )?fn (\w+)", r"def (test_\w+)"
    for name in re.findall(rust if path.endswith(".rs") else python, text):
        if len(name) > TEST_NAME_MAX:
            yield f"{path}: {name} has {len(name)} characters, {TEST_NAME_MAX} are the most"


def quaint_words(path, text):
    if not path.endswith("word_checks.py"):
        for word in re.findall(rf"\b({'|'.join(QUAINT)})\b", text, re.I):
            yield f"{path}: write {QUAINT[word.lower()]}, not {word}"


class Words(unittest.TestCase):
    def assert_clean(self, faults_of):
        found = [fault for path, text in texts() for fault in faults_of(path, text)]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_no_line_is_wider_than_the_limit(self):
        self.assertTrue(list(wide_lines("a.md", "word " * 25)))
        self.assertTrue(list(wide_lines("a.rs", "// " + "word " * 24)))
        self.assertTrue(list(wide_lines("a.py", '"""' + "word " * 24)))
        self.assertEqual(list(wide_lines("a.md", "| " + "word " * 25)), [])
        self.assertEqual(list(wide_lines("a.rs", 'let a = "' + "word " * 24 + '";')), [])
        self.assert_clean(wide_lines)

    def test_no_test_name_is_longer_than_the_limit(self):
        self.assertTrue(list(long_test_names("a.rs", f"#[test]\n#[ignore]\nfn {'a' * 61}() {{")))
        self.assertTrue(list(long_test_names("a.py", f"    def test_{'a' * 56}(self):")))
        self.assertEqual(list(long_test_names("a.rs", f"#[test]\nfn {'a' * 60}() {{\n}}\nfn {'b' * 61}() {{")), [])
        self.assert_clean(long_test_names)

    def test_no_private_word_is_used(self):
        for word in QUAINT:
            self.assertEqual(len(list(quaint_words("a.rs", f"/// It is {word} here."))), 1, word)
            self.assertEqual(len(list(quaint_words("a.md", f"{word.title()} it is."))), 1, word)
            self.assertEqual(list(quaint_words("a.rs", f"fn {word}_here() {{}}")), [], word)
        self.assert_clean(quaint_words)
