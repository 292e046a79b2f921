"""Compares the state diagram of the README with fsm/src/machine/chart.rs: cases of check_documents.py.

From the code: a state's parent is what `superstate` returns. Its transitions are those of its handler, and of every
function that the handler returns the outcome of. The diagram draws a transition between two children of the innermost
box that holds both ends, and `[*]` points at the state that a box is entered in.
"""

import os
import re
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MACHINE = "fsm/src/machine"
ROOT = ""
POINT = "[*]"


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def snake_case(name):
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def block(text, opening):
    """The lines from one that begins with `opening` to the `}` at the same depth."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(opening))
    indent = re.match(r" *", lines[start])[0]
    end = next(number for number in range(start + 1, len(lines)) if lines[number] == indent + "}")
    return "\n".join(lines[start : end + 1])


def arms(function):
    """What each state leads to in a `match self`: pairs of the states of an arm and its right side."""
    for left, right in re.findall(r"^ +((?:Self::\w+(?: \{ \.\. \})?(?: \| )?)+) => (.*?),?$", function, re.M):
        yield re.findall(r"Self::(\w+)", left), right


class Code:
    """States, parents and transitions as the code has them, by the names of the diagram."""

    def __init__(self, files):
        chart = files["chart.rs"]
        self.parents = {}
        for kind in ("State", "Superstate"):
            implementation = block(chart, f"impl blocking::{kind}<Connection> for {kind} {{")
            for states, right in arms(block(implementation, "fn superstate(")):
                parent = re.search(r"(?:Superstate|Self)::(\w+)", right)
                for state in states:
                    self.parents[snake_case(state)] = snake_case(parent[1]) if parent else ROOT
        (initial,) = re.findall(r"State::(\w+)", block(chart, "fn initial() -> State {"))
        self.initial = snake_case(initial)
        self.functions = {}
        for text in files.values():
            for name in re.findall(r"^ *(?:pub\(\w+\) )?fn (\w+)\([^{]*?\) -> Outcome<State> \{$", text, re.M):
                self.functions[name] = re.search(rf"^( *)(?:pub\(\w+\) )?fn {name}\(.*?^\1}}$", text, re.M | re.S)[0]
        self.transitions = set()
        for kind in ("State", "Superstate"):
            implementation = block(chart, f"impl blocking::{kind}<Connection> for {kind} {{")
            for states, right in arms(block(implementation, "fn call_handler(")):
                handler = re.search(r"onnection(?:\.|::)(\w+)\(", right)
                for state in states if handler else []:
                    targets = self.targets(handler[1], set())
                    self.transitions |= {(snake_case(state), snake_case(target)) for target in targets}

    def targets(self, name, seen):
        if name in seen or name not in self.functions:
            return set()
        seen.add(name)
        body = self.functions[name].split("\n", 1)[1]
        found = set(re.findall(r"Transition\(State::(\w+)", body))
        for called in re.findall(r"(?:self\.|Self::|Connection::)(\w+)\(", body):
            found |= self.targets(called, seen)
        return found

    def above(self, state):
        """The boxes around a state, from the inside out."""
        while state != ROOT:
            state = self.parents[state]
            yield state

    def child(self, box, state):
        """The child of a box that a state is, or is in."""
        while self.parents[state] != box:
            state = self.parents[state]
        return state

    def entry(self, box, state):
        """The `[*]` arrows by which a state within a box is entered."""
        boxes = [one for one in [*self.above(state)] if box in [one, *(self.above(one) if one else [])]]
        return {(one, POINT, self.child(one, state)) for one in boxes}

    def arrows(self):
        """What the diagram must draw: the box, and from where to where within it."""
        drawn = self.entry(ROOT, self.initial)
        for source, target in self.transitions:
            box = next(one for one in self.above(source) if one in self.above(target))
            entered = self.child(box, target)
            drawn.add((box, self.child(box, source), entered))
            if entered != target:
                drawn |= self.entry(entered, target)
        leaves = set(self.parents) - set(self.parents.values())
        ends = leaves - {source for source, _ in self.transitions}
        return drawn | {(self.parents[state], state, POINT) for state in ends if self.parents[state] == ROOT}


def diagram(text):
    """Parents of the states that a diagram draws, and its arrows."""
    boxes, parents, arrows = [ROOT], {}, set()
    for line in re.search(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", text, re.M | re.S)[1].splitlines():
        line = line.strip()
        if opened := re.fullmatch(r"state (\w+) \{", line):
            parents[opened[1]] = boxes[-1]
            boxes.append(opened[1])
        elif line == "}":
            boxes.pop()
        else:
            source, target = re.fullmatch(r"(\S+) --> ([^\s:]+)(?:: .+)?", line).groups()
            arrows.add((boxes[-1], source, target))
            for state in {source, target} - {POINT}:
                parents.setdefault(state, boxes[-1])
    return parents, arrows


def faults(files, readme):
    code = Code(files)
    parents, arrows = diagram(readme)
    for what, expected, drawn in (
        ("states and their boxes", set(code.parents.items()), set(parents.items())),
        ("transitions", code.arrows(), arrows),
    ):
        if expected != drawn:
            yield f"{what}: not drawn {sorted(expected - drawn)}, not in the code {sorted(drawn - expected)}"


class Chart(unittest.TestCase):
    def files(self):
        names = [name for name in os.listdir(os.path.join(TOP, MACHINE)) if name.endswith(".rs")]
        return {name: read(f"{MACHINE}/{name}") for name in names}

    def test_the_diagram_is_the_chart_of_the_code(self):
        code = Code(self.files())
        self.assertGreater(len(code.parents), 14)
        self.assertGreater(len(code.transitions), 15)
        self.assertEqual(list(faults(self.files(), read("README.md"))), [])

    def test_each_kind_of_difference_is_found(self):
        for old, new in (
            ("    stopped --> [*]\n", ""),
            ("greeting --> ready", "ready --> greeting"),
            ("[*] --> waiting", "[*] --> dialling"),
            ("closing --> unlinked: closed, or 1 s\n    }", "}\n    closing --> unlinked"),
            ("connected --> unregistered: ", "connected --> registering: "),
        ):
            readme = read("README.md").replace(old, new, 1)
            self.assertNotEqual(readme, read("README.md"), old)
            self.assertNotEqual(list(faults(self.files(), readme)), [], old)
        for name, old, new in (
            ("chart.rs", "Self::Ready => Some(Superstate::Connected)", "Self::Ready => None"),
            ("connected.rs", "Transition(State::Unregistered { wait_ms })", "Transition(State::Waiting { wait_ms })"),
            ("chart.rs", "Timer::Retry) => Transition(State::Requesting)", "Timer::Retry) => Super"),
        ):
            files = self.files()
            self.assertIn(old, files[name])
            files[name] = files[name].replace(old, new, 1)
            self.assertNotEqual(list(faults(files, read("README.md"))), [], old)
