// The state chart, and the time line of its transitions.
//
// The boxes and arrows are those of fsm/src/machine/chart.rs; a test compares the names of the states.

import { clock, element } from "./socket.js";

const SVG = "http://www.w3.org/2000/svg";
const TIMELINE_MAX = 100;
// How long each state is shown while the agent is ahead: a dial on loopback takes a millisecond.
const STEP_MS = 350;
const HURRY_STEP_MS = 100;
const HURRY_FROM = 8;
const COUNTDOWN_MS = 100;

/** Name, then x, y, width and height. @type {Record<string, [number, number, number, number]>} */
const GROUPS = {
  running: [4, 4, 472, 268],
  registering: [20, 82, 190, 74],
  connecting: [230, 82, 230, 74],
  connected: [270, 186, 190, 74],
  draining: [4, 290, 360, 74],
};
/** @type {Record<string, [number, number, number, number]>} */
const LEAVES = {
  "unregistered": [20, 28, 190, 32],
  "registering.requesting": [28, 112, 84, 32],
  "registering.backing_off": [118, 112, 86, 32],
  "connecting.waiting": [237, 112, 68, 32],
  "connecting.probing": [311, 112, 68, 32],
  "connecting.dialling": [385, 112, 68, 32],
  "connected.greeting": [278, 216, 84, 32],
  "connected.ready": [368, 216, 84, 32],
  "draining.flushing": [14, 320, 84, 32],
  "draining.closing": [142, 320, 84, 32],
  "draining.unlinked": [270, 320, 84, 32],
  "stopped": [384, 320, 92, 32],
};
const ARROWS = [
  "M 60 60 V 82",
  "M 210 44 H 365 V 82",
  "M 210 119 H 230",
  "M 330 156 V 186",
  "M 400 186 V 156",
  "M 270 223 H 10 V 44 H 20",
  "M 180 272 V 290",
  "M 98 336 H 142",
  "M 226 336 H 270",
  "M 364 336 H 384",
];

/** @param {string} name @param {Record<string, string | number>} attributes @param {Element} parent */
function add(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  parent.append(made);
  return made;
}

/** The inputs of a line of the recording in one line of text. @param {any[]} inputs */
export function because(inputs) {
  return inputs.map((input) => {
    if (typeof input === "string") return input;
    const [name, fields] = Object.entries(input)[0] ?? ["", {}];
    const scalars = Object.entries(typeof fields === "object" && fields ? fields : { "": fields });
    const shown = scalars.filter(([, value]) => ["string", "number"].includes(typeof value));
    return [name, ...shown.map(([key, value]) => `${key} ${value}`.trim())].join(" ");
  }).join(", ") || "deadline";
}

export class Chart {
  constructor() {
    this.chart = element("chart");
    this.timeline = element("timeline");
    this.deadline = element("deadline");
    this.live = false;
    /** @type {any[]} */
    this.steps = [];
    this.walking = false;
    this.state = "";
    this.until_ms = 0;
    /** @type {Map<string, Element>} */
    this.boxes = new Map();
    this.draw();
    setInterval(() => this.count(), COUNTDOWN_MS);
  }

  draw() {
    const svg = add("svg", { viewBox: "0 0 480 368", role: "img" }, this.chart);
    this.label = add("title", {}, svg);
    const marker = add("marker", {
      id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse",
    }, add("defs", {}, svg));
    add("path", { d: "M 0 0 L 8 4 L 0 8 z", class: "head" }, marker);
    for (const [name, [x, y, width, height]] of Object.entries(GROUPS)) {
      const group = add("g", { class: "group" }, svg);
      add("rect", { x, y, width, height, rx: 8 }, group);
      add("text", { x: x + 10, y: y + 18, class: "title" }, group).textContent = name;
      this.boxes.set(name, group);
    }
    for (const d of ARROWS) add("path", { d, "marker-end": "url(#head)" }, svg);
    for (const [name, [x, y, width, height]] of Object.entries(LEAVES)) {
      const leaf = add("g", { class: "leaf" }, svg);
      add("rect", { x, y, width, height, rx: 6 }, leaf);
      const text = add("text", { x: x + width / 2, y: y + height / 2 + 5 }, leaf);
      text.textContent = name.split(".").pop() ?? name;
      this.boxes.set(name, leaf);
    }
  }

  /** A frame of the recording. @param {any} frame */
  take(frame) {
    if (frame.from !== frame.state) {
      const item = document.createElement("li");
      const time = document.createElement("time");
      time.textContent = clock(frame.wall_ms);
      item.append(time, `${frame.from ? `${frame.from} → ` : ""}${frame.state}  (${because(frame.because)})`);
      item.dataset["state"] = frame.state;
      this.timeline.prepend(item);
      if (this.timeline.children.length > TIMELINE_MAX) this.timeline.lastElementChild?.remove();
    }
    this.steps.push(frame);
    if (!this.live) this.steps.splice(0, this.steps.length - 1);
    else if (!this.walking) this.step();
  }

  /** The recording has ended. @param {string} why */
  end(why) {
    const item = document.createElement("li");
    item.textContent = why;
    this.timeline.prepend(item);
  }

  /** From now on states are shown one after the other. */
  begin() {
    this.live = true;
    this.step();
  }

  step() {
    const frame = this.steps.shift();
    this.walking = Boolean(frame);
    if (!frame) return;
    this.show(frame);
    setTimeout(() => this.step(), this.steps.length >= HURRY_FROM ? HURRY_STEP_MS : STEP_MS);
  }

  /** @param {any} frame */
  show(frame) {
    const before = this.state;
    this.state = frame.state;
    this.chart.dataset["state"] = frame.state;
    const group = frame.state.split(".")[0];
    const outside = group === "draining" || group === "stopped";
    const active = [frame.state, group, outside ? "" : "running"];
    for (const [name, box] of this.boxes) {
      box.classList.toggle("active", active.includes(name));
      box.classList.toggle("recent", name === before && before !== frame.state);
    }
    if (this.label) this.label.textContent = `The agent is in state ${frame.state}`;
    const waits = !frame.state.startsWith("connected") && typeof frame.next === "number";
    this.until_ms = waits ? frame.wall_ms + frame.next - frame.at_ms : 0;
    this.count();
    document.dispatchEvent(new CustomEvent("state", { detail: frame.state }));
  }

  /** Shows how long the agent waits at most. */
  count() {
    const left_ms = this.until_ms - Date.now();
    const words = left_ms > 0 ? `next deadline in ${(left_ms / 1000).toFixed(1)} s` : "";
    if (this.deadline.textContent !== words) this.deadline.textContent = words;
  }
}
