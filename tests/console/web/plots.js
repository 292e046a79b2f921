// CPU, memory, disk and network over the last minutes.

import uPlot from "./assets/uplot.mjs";
import { element } from "./socket.js";

const POINTS_MAX = 600;
const HEIGHT = 105;
const WINDOW_SECONDS = 300;

/** A size in bytes. @param {number} bytes */
function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

/** A colour of the style sheet. @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The last minutes, or all there is. @param {any} _ @param {number} low @param {number} high */
function range(_, low, high) {
  return [Math.max(low, high - WINDOW_SECONDS), Math.max(high, low + 1)];
}

class Plot {
  /** @param {string} id @param {string[]} names @param {(value: number) => string} format @param {number} [most] */
  constructor(id, names, format, most) {
    this.figure = element(id);
    this.words = this.figure.querySelector("output");
    /** @type {(number | null)[][]} */
    this.data = [[], ...names.map(() => [])];
    const strokes = ["--first", "--second"];
    const grid = { stroke: () => colour("--line"), width: 1 };
    const axis = { stroke: () => colour("--dim"), grid, font: "11px sans-serif" };
    const options = {
      width: 200,
      height: HEIGHT,
      cursor: { show: false },
      legend: { show: false },
      scales: {
        x: { range },
        y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ high) =>
          [0, most ?? Math.max(high * 1.1, 1024)] },
      },
      axes: [
        { ...axis, size: 24 },
        { ...axis, size: most ? 44 : 66, splits: most ? [0, most / 2, most] : undefined,
          values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map(format) },
      ],
      series: [{}, ...names.map((label, n) => ({ label, stroke: () => colour(strokes[n] ?? ""), width: 1.5,
        points: { show: false } }))],
    };
    this.plot = new uPlot(options, this.data, this.figure);
    this.dirty = false;
    new ResizeObserver(() => this.plot.setSize({ width: Math.max(this.figure.clientWidth, 120), height: HEIGHT }))
      .observe(this.figure);
  }

  /** @param {number} seconds @param {(number | null)[]} values @param {string} words */
  push(seconds, values, words) {
    [seconds, ...values].forEach((value, n) => this.data[n]?.push(value));
    if ((this.data[0]?.length ?? 0) > POINTS_MAX) this.data.forEach((points) => points.shift());
    if (this.words) this.words.textContent = words;
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      this.plot.setData(this.data);
    });
  }
}

export class Plots {
  constructor() {
    const percent = (/** @type {number} */ value) => `${value}%`;
    this.cpu = new Plot("plot-cpu", ["usage"], percent, 100);
    this.memory = new Plot("plot-memory", ["usage"], percent, 100);
    this.disk = new Plot("plot-disk", ["usage"], percent, 100);
    this.network = new Plot("plot-network", ["out", "in"], (value) => size(value));
    /** @type {{seconds: number, sent: number, received: number} | undefined} */
    this.before = undefined;
  }

  /** A `metrics` frame. Any field may be missing. @param {any} frame */
  take(frame) {
    const seconds = frame.wall_ms / 1000;
    const { cpu = {}, memory = {}, disk = [], network = {} } = frame.payload ?? {};
    const used = (/** @type {any} */ group) => `${size(group.used_bytes ?? 0)} of ${size(group.total_bytes ?? 0)}`;
    const number = (/** @type {any} */ value) => (typeof value === "number" ? value : null);
    this.cpu.push(seconds, [number(cpu.usage_percent)],
      `${(cpu.usage_percent ?? 0).toFixed(1)} %, load ${(cpu.load_avg_1 ?? 0).toFixed(2)}`);
    this.memory.push(seconds, [number(memory.usage_percent)], used(memory));
    const first = disk[0] ?? {};
    this.disk.push(seconds, [number(first.usage_percent)], `${used(first)} ${first.mount_point ?? ""}`);
    const now = { seconds, sent: network.bytes_sent ?? 0, received: network.bytes_recv ?? 0 };
    const { before } = this;
    const elapsed = before ? now.seconds - before.seconds : 0;
    if (before && elapsed > 0 && now.sent >= before.sent && now.received >= before.received) {
      const rates = [(now.sent - before.sent) / elapsed, (now.received - before.received) / elapsed];
      this.network.push(seconds, rates, `${size(rates[0] ?? 0)}/s out, ${size(rates[1] ?? 0)}/s in`);
    }
    this.before = now;
  }

  /** The colours of the page changed. */
  redraw() {
    for (const { plot } of [this.cpu, this.memory, this.disk, this.network]) plot.redraw();
  }
}
