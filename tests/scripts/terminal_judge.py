"""Says in what a terminal differs that got a snapshot from one that never left: terminal_judge.py COLUMNS ROWS A B

Both files hold all bytes that a terminal got. The terminal is pyte, in whose code no line is ours. It has no alternate
screen, and erases with all attributes of the pen where others take the background alone: of a blank cell only the
background counts. Exit status 1 and a line for each kind of difference, or 0 and nothing.
"""

import sys

import pyte

# The modes that pyte acts on: insert and new line; colours reversed, origin, wrap, cursor (private, so shifted).
MODES = {4, 20} | {number << 5 for number in (5, 6, 7, 25)}


def terminal(columns, rows, path):
    screen = pyte.Screen(columns, rows)
    with open(path, "rb") as file:
        pyte.ByteStream(screen).feed(file.read())
    return screen


def cell(char):
    return ("", char.bg) if char.data in ("", " ") else char


def differences(one, other):
    for row in range(one.lines):
        cells = [[cell(screen.buffer[row][column]) for column in range(one.columns)] for screen in (one, other)]
        if cells[0] != cells[1]:
            column = next(at for at, (a, b) in enumerate(zip(*cells, strict=True)) if a != b)
            yield f"cells: row {row}, column {column}: {cells[0][column]} and {cells[1][column]}"
    for name, read in {
        "cursor": lambda screen: (min(screen.cursor.x, screen.columns), screen.cursor.y, screen.cursor.hidden),
        "modes": lambda screen: screen.mode & MODES,
        "scroll region": lambda screen: screen.margins or pyte.screens.Margins(0, screen.lines - 1),
        "tab stops": lambda screen: {stop for stop in screen.tabstops if 0 < stop < screen.columns},
        "title": lambda screen: (screen.title, screen.icon_name),
    }.items():
        if read(one) != read(other):
            yield f"{name}: {read(one)} and {read(other)}"


if __name__ == "__main__":
    width, height = int(sys.argv[1]), int(sys.argv[2])
    found = list(differences(*(terminal(width, height, path) for path in sys.argv[3:5])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
