"""No file of Rust sees two of our own types that have one name. Cases of check_documents.py.

A file sees the types that it defines, imports (a new name after `as` changes nothing) or names by a path such as
`driver::Report`. Re-exports lead to the definition. Types of other crates do not count: `io::Error` may stand beside
our `Error`. Paths are resolved by the folders, as the compiler does; inline modules count as part of their file. Of two
imports for different systems, the one under `cfg(not(…))` does not count: only one of them is compiled.
"""

import collections
import os
import re
import subprocess
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

# The own crates by the names that paths begin with.
CRATES = {
    "draupnir": "src/lib.rs",
    "draupnir_fsm": "fsm/src/lib.rs",
    "draupnir_sim": "fsm/sim/src/lib.rs",
    "draupnir_fuzz": "fuzz/bodies/src/lib.rs",
    "draupnir_console": "tests/console/src/lib.rs",
}
ROOTS = ("mod.rs", "lib.rs", "main.rs")

COMMENT_OR_STRING = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"|r#".*?"#', re.S)
DEFINED = re.compile(r"^(?: *(?:pub(?:\([\w: ]+\))? )?(?:struct|enum|union|trait)|(?:pub(?:\(\w+\))? )?type) (\w+)", re.M)
USED = re.compile(r"^ *(?:pub(?:\([\w: ]+\))? )?use ([^;]+);", re.M)
ELSEWHERE = re.compile(r"#\[cfg\(not\([^\n]*\)\)\]\n(?:pub(?:\(\w+\))? )?use [^;]+;")
INLINE = re.compile(r"^(?:pub(?:\(\w+\))? )?mod (\w+) \{\n(.*?)^\}$", re.M | re.S)
PLACED = re.compile(r'#\[path = "([^"]+)"\]\s*(?:#\[[^\n]*\]\s*)*(?:pub(?:\(\w+\))? )?mod (\w+);')
QUALIFIED = re.compile(r"(?<![\w:])((?:[a-z]\w*::)+)([A-Z]\w*)")


def leaves(tree):
    """The paths of a `use` with the name that each is imported under: pairs of segments and name."""
    tree = tree.strip()
    prefix, brace, inner = tree.partition("{")
    if not brace:
        path, _, name = tree.partition(" as ")
        segments = path.strip().split("::")
        yield segments, name.strip() or segments[-1]
        return
    head = [segment.strip() for segment in prefix.split("::") if segment.strip()]
    part, depth = "", 0
    for character in inner[: inner.rindex("}")] + ",":
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character != "," or depth:
            part += character
            continue
        for segments, name in leaves(part) if part.strip() else []:
            if segments == ["self"]:
                yield head, head[-1] if name == "self" else name
            else:
                yield head + segments, name
        part = ""


class Tree:
    """Files of Rust by their paths, and what their paths of types lead to."""

    def __init__(self, files):
        self.files = files
        self.defined, self.imports, self.globs, self.qualified, self.placed = {}, {}, {}, {}, {}
        for path, text in files.items():
            folder = os.path.dirname(path)
            placed = {name: os.path.normpath(os.path.join(folder, file)) for file, name in PLACED.findall(text)}
            self.placed[path] = placed
            # Within an inline module, `super` is the file itself.
            text = ELSEWHERE.sub("", COMMENT_OR_STRING.sub("", text))
            text = INLINE.sub(lambda found: found[2].replace("super::", "self::"), text)
            self.defined[path] = set(DEFINED.findall(text))
            self.imports[path], self.globs[path] = collections.defaultdict(set), set()
            for tree in USED.findall(text):
                for segments, name in leaves(" ".join(tree.split())):
                    if name == "*":
                        self.globs[path].add(tuple(segments[:-1]))
                    elif name != "_":
                        self.imports[path][name].add(tuple(segments))
            without_uses = USED.sub("", text)
            self.qualified[path] = {
                (*prefix.split("::")[:-1], name) for prefix, name in QUALIFIED.findall(without_uses)
            }
            self.files[path] = without_uses

    def is_root(self, path):
        folder, name = os.path.split(path)
        return name in ROOTS or all(os.path.join(folder, root) not in self.files for root in ROOTS)

    def folder(self, module):
        """Where the modules within a module lie."""
        if module.endswith("/"):
            return module.rstrip("/")
        is_own = os.path.basename(module) in ROOTS or (
            self.is_root(module) and f"{os.path.dirname(module)}.rs" not in self.files
        )
        return os.path.dirname(module) if is_own else module.removesuffix(".rs")

    def child(self, module, name):
        placed = self.placed.get(module, {}).get(name)
        folder = self.folder(module)
        places = [placed, os.path.join(folder, f"{name}.rs"), os.path.join(folder, name, "mod.rs")]
        return next((place for place in places if place in self.files), None)

    def parent(self, module):
        folder, name = os.path.split(module)
        if name in ("lib.rs", "main.rs") or module.endswith("/"):
            return None
        above = os.path.dirname(folder) if name == "mod.rs" else folder
        places = [os.path.join(above, root) for root in ROOTS] + [f"{above}.rs"]
        return next((place for place in places if place in self.files), f"{above}/")

    def crate(self, module):
        while above := self.parent(module):
            module = above
        return module

    def walk(self, module, segments, seen):
        """The module that a path of modules leads to, `None` where it leaves our own."""
        first, *rest = segments
        if first == "crate":
            place = self.crate(module)
        elif first == "self":
            place = module
        elif first == "super":
            place = self.parent(module)
        else:
            place = self.inner(module, first, seen) or CRATES.get(first)
        for name in rest:
            place = place and (self.parent(place) if name == "super" else self.inner(place, name, seen))
        return place

    def inner(self, module, name, seen):
        """A module that is in another one, or imported there."""
        if found := self.child(module, name):
            return found
        if (module, name) in seen:
            return None
        seen = seen | {(module, name)}
        for segments in self.imports.get(module, {}).get(name, ()):
            if segments != (name,) and (found := self.walk(module, segments, seen)):
                return found
        for segments in self.globs.get(module, ()):
            found = self.walk(module, segments, seen)
            if found and (found := self.inner(found, name, seen)):
                return found
        return None

    def definitions(self, module, name, seen=frozenset()):
        """The files that define what a module calls by this name, with the name there."""
        if module is None or (module, name) in seen:
            return set()
        seen = seen | {(module, name)}
        if name in self.defined.get(module, ()):
            return {(module, name)}
        found = set()
        for segments in self.imports.get(module, {}).get(name, ()):
            found |= self.at(module, segments, seen)
        for segments in self.globs.get(module, ()):
            found |= self.definitions(self.walk(module, segments, seen), name, seen)
        return found

    def at(self, module, segments, seen=frozenset()):
        *path, name = segments
        return self.definitions(self.walk(module, path, seen) if path else module, name, seen)

    def visible(self, path):
        """The types of our own that a file sees: file and name of each definition."""
        found = {(path, name) for name in self.defined[path]}
        for paths in self.imports[path].values():
            for segments in paths:
                found |= self.at(path, segments) if segments[-1][:1].isupper() else set()
        for segments in self.qualified[path]:
            found |= self.at(path, segments)
        if self.globs[path]:
            for name in set(re.findall(r"(?<![\w:])[A-Z]\w*", self.files[path])):
                found |= self.definitions(path, name)
        return found


def twins(files):
    tree = Tree(dict(files))
    for path in sorted(files):
        places = collections.defaultdict(set)
        for place, name in tree.visible(path):
            places[name].add(place)
        for name, several in sorted(places.items()):
            if len(several) > 1:
                yield f"{path}: {name} of {' and of '.join(sorted(several))}"


def sources():
    listed = subprocess.run(["git", "ls-files", "*.rs"], cwd=TOP, check=True, capture_output=True, text=True).stdout
    for path in listed.splitlines():
        if os.path.isfile(os.path.join(TOP, path)):
            with open(os.path.join(TOP, path), encoding="utf-8") as file:
                yield path, file.read()


class Types(unittest.TestCase):
    FILES = {
        "src/lib.rs": "pub mod link;\npub mod report;\npub mod reader;\n",
        "src/report.rs": "pub enum Report {\n}\n",
        "src/link/mod.rs": "mod kinds;\npub use kinds::Kind;\npub struct Report;\n",
        "src/link/kinds.rs": "pub enum Kind {\n}\n",
        "fsm/src/lib.rs": "pub mod driver;\n",
        "fsm/src/driver/mod.rs": "mod output;\npub use self::output::{Kind, Report};\n",
        "fsm/src/driver/output.rs": "pub enum Kind {\n}\npub enum Report {\n}\n",
    }

    def found(self, text):
        return list(twins(self.FILES | {"src/reader.rs": text}))

    def test_no_file_sees_two_types_of_one_name(self):
        files = dict(sources())
        self.assertGreater(len(files), 300)
        tree = Tree(dict(files))
        self.assertGreater(sum(len(tree.visible(path)) for path in files), 2000)
        self.assertEqual(list(twins(files)), [], "\n" + "\n".join(twins(files)))

    def test_each_way_to_see_two_is_found(self):
        expected = ["src/reader.rs: Report of src/link/mod.rs and of src/report.rs"]
        for text in (
            "use crate::link::Report as LinkReport;\nuse crate::report::Report;\n",
            "use crate::{link, report::Report};\nfn a(_: link::Report) {}\n",
            "use super::link;\nfn a(_: link::Report, _: crate::report::Report) {}\n",
            "use crate::link::*;\nfn a(_: Report, _: super::report::Report) {}\n",
        ):
            self.assertEqual(self.found(text), expected, text)
        for text, other in (
            ("use crate::link::Kind;\nuse draupnir_fsm::driver;\nfn a(_: driver::Kind) {}\n", "src/link/kinds.rs"),
            ("use draupnir_fsm::driver::Kind;\nstruct Kind;\n", "src/reader.rs"),
            ("use draupnir_fsm::driver::Kind as A;\nmod tests {\n    use super::*;\n    struct Kind;\n}\n", "src/reader.rs"),
        ):
            self.assertEqual(self.found(text), [f"src/reader.rs: Kind of fsm/src/driver/output.rs and of {other}"], text)

    def test_types_that_do_not_meet_pass(self):
        for text in (
            "use crate::link::Kind;\nuse crate::link;\nfn a(_: link::Kind) {}\n",
            "use crate::report::Report;\nuse std::link::Report as Other;\n",
            "use crate::report::Report; // beside crate::link::Report\n",
            "struct Error;\nfn a(_: std::io::Error) {}\n",
            "#[cfg(unix)]\nuse crate::link::Report;\n#[cfg(not(unix))]\nuse crate::report::Report;\n",
        ):
            self.assertEqual(self.found(text), [], text)
