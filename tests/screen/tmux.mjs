// A terminal of tmux: what it shows and what is set in it.

import { execFileSync } from "node:child_process";

const FIGURES = [
  "cursor_x", "cursor_y", "cursor_flag",
  "insert_flag", "keypad_flag", "keypad_cursor_flag", "origin_flag", "wrap_flag", "alternate_on",
  "mouse_standard_flag", "mouse_button_flag", "mouse_any_flag", "mouse_sgr_flag", "mouse_utf8_flag",
  "scroll_region_upper", "scroll_region_lower", "pane_tabs", "pane_title",
];
const NAMES = { cursor: 3, modes: 14, region: 16, tabs: 17, title: 18 };

// Shows a file, asks whether the terminal is well, and waits for the answer: then everything before was read.
const SHOW = `stty raw -echo; cat "$0"; printf '\\030\\033[5n'
while IFS= read -rd n answer; do case $answer in *'[0') break; esac; done
tmux wait-for -S shown; exec sleep 1000`;

function tmux(...words) {
  const server = ["-L", `draupnir-judge-${process.pid}`, "-f", "/dev/null"];
  return execFileSync("tmux", [...server, ...words], { encoding: "utf8" });
}

export function begin() {
  tmux("new-session", "-d", "-s", "keep", "exec sleep 100000", ";", "set", "-g", "status", "off");
}

export function end() {
  tmux("kill-server");
}

export function show(cols, rows, path) {
  tmux("new-session", "-d", "-x", String(cols), "-y", String(rows), "-s", "judge", "bash", "-c", SHOW, path, ";",
    "wait-for", "shown");
  const marker = "figures:";
  const said = tmux("capture-pane", "-p", "-e", "-N", "-t", "judge", ";",
    "display", "-p", "-t", "judge", marker + FIGURES.map((name) => `#{${name}}`).join("\t"), ";",
    "kill-session", "-t", "judge");
  const screen = said.slice(0, said.lastIndexOf(marker));
  const figures = said.slice(said.lastIndexOf(marker) + marker.length).split("\t");
  const pen = { text: "", background: "", attributes: new Set(), isSymbol: false };
  const lines = screen.split("\n", rows).map((line) => cellsOf(line, pen));
  const state = {
    cells: lines.map((line) => line.map(([text]) => text).join("").trimEnd()),
    attributes: lines.map((line) => line.map(([, look]) => look)),
  };
  let from = 0;
  for (const [name, to] of Object.entries(NAMES)) {
    state[name] = figures.slice(from, to).join();
    from = to;
  }
  return state;
}

// The cells of a line: each a character and how it looks. Of blanks at the end tmux tells those that were printed, and
// not those that were erased; the characters of lines and symbols it keeps as letters.
function cellsOf(line, pen) {
  const cells = [];
  // eslint-disable-next-line no-control-regex
  for (const [part, numbers] of line.matchAll(/\x1b\[([0-9;:]*)m|[\x0e\x0f]|./gu)) {
    if (numbers !== undefined) apply(numbers, pen);
    else if (part === "\x0e" || part === "\x0f") pen.isSymbol = part === "\x0e";
    else cells.push([(pen.isSymbol && SYMBOLS[part]) || part, look(part, pen)]);
  }
  while (cells.at(-1)?.[0] === " ") cells.pop();
  return cells;
}

const SYMBOLS = { l: "┌", q: "─", k: "┐", x: "│", m: "└", j: "┘" };

// Of a blank only what shows.
export function look(part, { text, background, attributes }) {
  const shown = [...attributes].filter((one) => part !== " " || /^[479]|53/.test(one)).sort();
  return [part === " " && !shown.includes("7") ? "" : text, background, ...shown].join(" ").trim() + ",";
}

function apply(numbers, pen) {
  const all = numbers.split(";");
  while (all.length > 0) {
    const number = all.shift();
    const colour = () => all.splice(0, all[0] === "5" ? 2 : 4).join(";");
    if (number === "0" || number === "") Object.assign(pen, { text: "", background: "", attributes: new Set() });
    else if (number === "38") pen.text = colour();
    else if (number === "48") pen.background = colour();
    else if (number === "58") colour();
    else if (/^(3|9)[0-79]$/.test(number)) pen.text = number === "39" ? "" : number;
    else if (/^(4|10)[0-79]$/.test(number)) pen.background = number === "49" ? "" : number;
    else pen.attributes.add(number);
  }
}
