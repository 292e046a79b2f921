// A terminal of xterm.js: what it shows and what is set in it.
//
// The public interface and the serialize addon tell cells, cursor and modes. What they leave out (pen, scroll region,
// saved cursor, tab stops, character sets) is read from the parts of the terminal that carry it.

import serialize from "@xterm/addon-serialize";
import headless from "@xterm/headless";
import { look } from "./tmux.mjs";

export class XtermJs {
  constructor(cols, rows) {
    this.terminal = new headless.Terminal({ cols, rows, scrollback: 2000, allowProposedApi: true });
    this.addon = new serialize.SerializeAddon();
    this.terminal.loadAddon(this.addon);
    this.terminal.onTitleChange((title) => { this.title = title; });
  }

  write(bytes) {
    return new Promise((resolve) => { this.terminal.write(bytes, resolve); });
  }

  // Whether what the add-on writes brings another terminal to the same cells. Where a wide character was cut in half,
  // the add-on takes the cell that is left for no column.
  async isSerializedWell() {
    const { cols, rows } = this.terminal, other = new XtermJs(cols, rows);
    await other.write(this.addon.serialize({ scrollback: 0 }));
    return JSON.stringify(other.state().cells) === JSON.stringify(this.state().cells);
  }

  // What the screen shows, in the terms in which tmux tells it.
  asTmuxSays() {
    const { terminal } = this, { active } = terminal.buffer, lines = [];
    for (let y = 0; y < terminal.rows; y += 1) lines.push(tmuxRow(active.getLine(active.baseY + y), terminal.cols));
    const isShown = terminal._core.coreService.isCursorHidden ? 0 : 1;
    return {
      cells: lines.map((line) => line.map(([text]) => text).join("").trimEnd()),
      attributes: lines.map((line) => line.map(([, look]) => look)),
      cursor: [active.cursorX, active.cursorY, isShown].join(),
      title: this.title,
    };
  }

  // Each kind of state as something that can be compared.
  state() {
    const { terminal } = this, core = terminal._core, { active, normal } = terminal.buffer;
    const rows = (buffer, from, to) => {
      const all = [];
      for (let y = from; y < to; y += 1) all.push(row(buffer.getLine(y), terminal.cols));
      return all;
    };
    const screen = (buffer) => rows(buffer, buffer.baseY, buffer.baseY + terminal.rows);
    const all = active === normal || active.type === "normal" ? screen(active) : [...screen(active), ...screen(normal)];
    const inner = core.buffers.active, pen = core._inputHandler._curAttrData, sets = core._charsetService;
    const wraps = all.map((line) => line.isWrapped);
    // A row without one above is the rest of nothing.
    const hasNoneAbove = (y) => (y === 0 && active.baseY === 0) || (y === terminal.rows && normal.baseY === 0);
    // A saved row of the main screen moves with the history, however much of that there is.
    const savedRow = active.type === "normal" ? 0 : inner.savedY;
    const { isCursorHidden, decPrivateModes, kittyKeyboard } = core.coreService;
    return {
      cells: all.map((line) => line.map((cell) => cell.chars)),
      attributes: all.map((line) => line.map((cell) => cell.look)),
      wraps: wraps.map((isWrapped, y) => isWrapped && !hasNoneAbove(y)),
      history: rows(normal, 0, normal.baseY).map((line) => line.map((cell) => cell.chars).join("").trimEnd()),
      cursor: [active.cursorX, active.cursorY, isCursorHidden],
      modes: { ...terminal.modes, ...decPrivateModes, kitty: kittyKeyboard, buffer: active.type },
      mouse: [core.coreMouseService?.activeProtocol, core.coreMouseService?.activeEncoding],
      pen: [pen.fg, pen.bg, pen.extended.ext],
      region: [inner.scrollTop, inner.scrollBottom],
      saved: [inner.savedX, savedRow, inner.savedCurAttrData.fg, inner.savedCurAttrData.bg],
      tabs: Object.keys(inner.tabs).filter((column) => inner.tabs[column] && column < terminal.cols).join(),
      charsets: [sets.glevel, ...[0, 1, 2, 3].map((slot) => JSON.stringify(sets._charsets[slot] ?? null))],
      title: this.title ?? "",
      serialized: [wraps, this.addon.serialize({ scrollback: 0 })],
    };
  }
}

function tmuxRow(line, cols) {
  const cells = [];
  for (let x = 0; x < cols; x += 1) {
    const cell = line.getCell(x);
    const colour = (mode, number, base) => {
      if (mode === 0) return "";
      if (mode === 1) return String(number < 8 ? base + number : base + 60 + number - 8);
      return mode === 2 ? `5;${number}` : [2, number >> 16, (number >> 8) & 255, number & 255].join(";");
    };
    const underline = cell.isUnderline() && ((cell.extended.ext >> 26) & 7 || 1);
    const attributes = [cell.isBold() && "1", cell.isDim() && "2", cell.isItalic() && "3",
      underline && (underline > 1 ? `4:${underline}` : "4"), cell.isBlink() && "5", cell.isInverse() && "7",
      cell.isInvisible() && "8", cell.isStrikethrough() && "9", cell.isOverline() && "53"].filter(Boolean);
    const text = colour(cell.getFgColorMode() >> 24, cell.getFgColor(), 30);
    const background = colour(cell.getBgColorMode() >> 24, cell.getBgColor(), 40);
    // A character with marks is more than one.
    for (const part of cell.getChars() || " ") cells.push([part, look(part, { text, background, attributes })]);
    x += Math.max(cell.getWidth(), 1) - 1;
  }
  while (cells.at(-1)?.[0] === " ") cells.pop();
  return cells;
}

function row(line, cols) {
  const cells = [];
  for (let x = 0; x < cols; x += 1) {
    const cell = line.getCell(x);
    const flags = [cell.isBold(), cell.isDim(), cell.isItalic(), cell.isUnderline(), cell.isBlink(), cell.isInverse(),
      cell.isInvisible(), cell.isStrikethrough(), cell.isOverline()].map(Number).join("");
    const under = cell.hasExtendedAttrs?.() ? cell.extended.ext & ~(1 << 31) : 0;
    const colours = [cell.getFgColorMode(), cell.getFgColor(), cell.getBgColorMode(), cell.getBgColor()];
    const look = [...colours, flags, under].join();
    // Where a wide character was cut in half, xterm.js keeps an empty cell without a width: it looks like any other.
    // Where one was covered in half, the cell that is left has all of the style, as no erased cell has: a blank.
    const isLeft = cell.getWidth() === 1 && (colours[0] !== 0 || /1/.test(flags));
    const chars = cell.getChars() || (isLeft ? " " : "");
    cells.push({ chars: chars && `${chars}/${cell.getWidth()}`, look });
  }
  cells.isWrapped = line.isWrapped;
  return cells;
}
