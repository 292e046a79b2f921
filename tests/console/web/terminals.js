// Terminals in tabs.
//
// The agent keeps the screen: after a reload the page attaches again, and the agent restores what it shows. A lost link
// changes nothing here: the agent sends what the terminal missed.

import { Terminal } from "./assets/xterm.mjs";
import { FitAddon } from "./assets/addon-fit.mjs";
import { decode, element } from "./socket.js";

const THEMES = {
  light: {
    background: "#ffffff", foreground: "#1b1f24", cursor: "#1b1f24", selectionBackground: "#b6d7ff",
    black: "#24292f", red: "#b3261e", green: "#116329", yellow: "#7d4e00", blue: "#0969da", magenta: "#8250df",
    cyan: "#1b7c83", white: "#57606a", brightBlack: "#57606a", brightWhite: "#24292f",
  },
  dark: { background: "#161b22", foreground: "#e6edf3", cursor: "#e6edf3", selectionBackground: "#2f5d9b" },
};

export class Terminals {
  /** @param {import("./socket.js").Socket} socket */
  constructor(socket) {
    this.socket = socket;
    this.tabs = element("tabs");
    this.screens = element("screens");
    this.live = false;
    this.selected = "";
    this.theme = "light";
    /** @type {Map<string, {terminal: any, fit: any, tab: HTMLElement, screen: HTMLElement, ended: boolean}>} */
    this.all = new Map();
    this.count = 0;
    element("open").addEventListener("click", () => this.open());
    element("close").addEventListener("click", () => this.close(this.selected));
    this.tabs.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.fit()).observe(this.screens);
  }

  /** The server's list of terminals. @param {string[]} ids */
  list(ids) {
    for (const id of ids) if (!this.all.has(id)) this.add(id);
    for (const [id, entry] of this.all) if (!ids.includes(id) && !entry.ended) this.end(id);
  }

  /** The history is complete: attach to what there is, or open the first terminal. */
  begin() {
    this.live = true;
    if (this.all.size === 0) this.open();
    for (const [id, { terminal }] of this.all) {
      this.socket.send({ type: "attach", id, cols: terminal.cols, rows: terminal.rows });
    }
  }

  open() {
    const shown = this.all.get(this.selected)?.terminal;
    this.socket.send({ type: "open", cols: shown?.cols ?? 80, rows: shown?.rows ?? 24 });
  }

  /** @param {string} id */
  add(id) {
    this.count += 1;
    const terminal = new Terminal({
      cursorBlink: false, fontSize: 13, scrollback: 5000, theme: THEMES[this.theme === "dark" ? "dark" : "light"],
      screenReaderMode: false,
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    const tab = document.createElement("button");
    Object.assign(tab, { type: "button", textContent: `${this.count}`, id: `tab-${id}` });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", `screen-${id}`);
    tab.setAttribute("aria-label", `Terminal ${this.count}`);
    tab.addEventListener("click", () => this.select(id, true));
    const screen = document.createElement("div");
    Object.assign(screen, { className: "screen", id: `screen-${id}` });
    screen.setAttribute("role", "tabpanel");
    screen.setAttribute("aria-labelledby", tab.id);
    this.tabs.append(tab);
    this.screens.append(screen);
    this.all.set(id, { terminal, fit, tab, screen, ended: false });
    terminal.open(screen);
    terminal.onData((/** @type {string} */ text) => this.socket.input(id, text));
    terminal.onResize((/** @type {{cols: number, rows: number}} */ size) => {
      if (this.live) this.socket.send({ type: "resize", id, cols: size.cols, rows: size.rows });
    });
    terminal.attachCustomKeyEventHandler((/** @type {KeyboardEvent} */ event) => {
      const leaves = event.ctrlKey && event.shiftKey && event.code === "KeyE";
      if (leaves && event.type === "keydown") {
        event.preventDefault();
        tab.focus();
      }
      return !leaves;
    });
    this.select(id, this.live);
  }

  /** @param {string} id @param {boolean} focus */
  select(id, focus) {
    this.selected = id;
    for (const [other, { tab, screen }] of this.all) {
      tab.setAttribute("aria-selected", String(other === id));
      tab.tabIndex = other === id ? 0 : -1;
      screen.hidden = other !== id;
    }
    this.fit();
    if (focus) this.all.get(id)?.terminal.focus();
  }

  fit() {
    this.all.get(this.selected)?.fit.fit();
  }

  /** Output of a terminal. @param {string} id @param {string} data */
  output(id, data) {
    this.all.get(id)?.terminal.write(decode(data));
  }

  /** The session is over. The tab stays until it is closed. @param {string} id */
  end(id) {
    const entry = this.all.get(id);
    if (!entry) return;
    entry.ended = true;
    entry.screen.classList.add("ended");
    entry.terminal.write("\r\n[the terminal has ended; × closes it]\r\n");
  }

  /** Ends the session, or removes the tab of an ended one. @param {string} id */
  close(id) {
    const entry = this.all.get(id);
    if (!entry) return;
    if (!entry.ended) this.socket.send({ type: "close", id });
    entry.terminal.dispose();
    entry.tab.remove();
    entry.screen.remove();
    this.all.delete(id);
    const [next] = this.all.keys();
    if (next) {
      this.select(next, false);
      this.all.get(next)?.tab.focus();
    } else {
      element("open").focus();
    }
  }

  /** The keys of a tab list. @param {KeyboardEvent} event */
  key(event) {
    const ids = [...this.all.keys()];
    const at = ids.indexOf(this.selected);
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const id = ids[(at + steps[event.key] + ids.length) % ids.length] ?? "";
      this.select(id, false);
      this.all.get(id)?.tab.focus();
    } else if (event.key === "Delete" && at >= 0) {
      this.close(this.selected);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {string} theme */
  paint(theme) {
    this.theme = theme;
    for (const { terminal } of this.all.values()) terminal.options.theme = THEMES[theme === "dark" ? "dark" : "light"];
  }
}
