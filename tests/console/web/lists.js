// The instance, the events and the logs.

import { clock, element } from "./socket.js";

const EVENTS_MAX = 200;
const LOG_LINES_MAX = 2000;

// How a connection ended, on the console's side.
/** @type {Record<string, string>} */
const ENDS = { Closed: "close handshake", Finished: "end of the stream", Reset: "reset by the agent",
  Ours: "reset by the console" };

/** What an event says. @param {string} what @param {any} fields @param {number} connection */
function words(what, fields, connection) {
  switch (what) {
    case "registration": return `registration answered ${fields.status}`;
    case "upgrade": return `connection ${connection} is asked for by ${fields.id ?? "no id"}`;
    case "opened": return `connection ${connection} is up`;
    case "closed": return `close ${fields.code ?? "without a code"} ${fields.reason}`;
    case "ended": return `connection ${connection} ended: ${ENDS[fields.how] ?? fields.how}`;
    case "poison": return `would bring Mimir down: ${fields.why}`;
    case "event": return `${fields.event_type} ${fields.message ?? ""}`;
    case "note": return fields.text;
    default: return `${what} ${fields.id ?? ""} exit ${fields.exit_code ?? "-"}`;
  }
}

/** @param {number} wall_ms @param {string} text */
function item(wall_ms, text) {
  const made = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = clock(wall_ms);
  made.append(time, text);
  return made;
}

export class Events {
  constructor() {
    this.list = element("events");
  }

  /** @param {any} frame */
  take({ what, wall_ms, fields, connection }) {
    this.list.prepend(item(wall_ms, words(what, fields, connection)));
    if (this.list.children.length > EVENTS_MAX) this.list.lastElementChild?.remove();
  }
}

/** The panel appears with the first line: an agent that sends no logs shows none. */
export class Logs {
  constructor() {
    this.list = element("logs");
    this.filter = /** @type {HTMLInputElement} */ (element("log-filter"));
    this.follow = /** @type {HTMLInputElement} */ (element("log-follow"));
    this.filter.addEventListener("input", () => {
      for (const line of this.list.children) this.sift(/** @type {HTMLElement} */ (line));
    });
  }

  /** @param {HTMLElement} line */
  sift(line) {
    line.hidden = !(line.textContent ?? "").toLowerCase().includes(this.filter.value.toLowerCase());
  }

  /** A `log:batch` or `log:line`. @param {any} frame */
  take({ wall_ms, payload }) {
    element("logs-panel").hidden = false;
    for (const { line, ts, level, source } of payload.lines ?? [payload]) {
      const text = `${level ?? ""} ${source ?? ""} ${line ?? ""}`;
      const made = item(typeof ts === "number" ? ts : wall_ms, text);
      if (level === "error") made.className = "failed";
      this.sift(made);
      this.list.append(made);
    }
    while (this.list.children.length > LOG_LINES_MAX) this.list.firstElementChild?.remove();
    if (this.follow.checked) this.list.scrollTop = this.list.scrollHeight;
  }
}

/** What is known of the instance. */
export class Instance {
  constructor() {
    this.list = element("instance");
    /** @type {Record<string, any>} */
    this.facts = {};
    this.uptime = 0;
    this.heartbeat_ms = 0;
    setInterval(() => this.draw(), 1000);
  }

  /** @param {any} payload */
  registration({ instance_id, hostname, provider, region, agent_version, os, arch }) {
    const system = [os, arch].filter(Boolean).join("/");
    const version = agent_version;
    Object.assign(this.facts, { instance: instance_id, host: hostname, provider, region, version, system });
    this.draw();
  }

  /** @param {any} tags */
  tags(tags) {
    const all = Object.entries(tags ?? {});
    this.facts["tags"] = all.map(([name, value]) => `${name}=${value}`).join(" ");
    this.draw();
  }

  /** @param {any} frame */
  heartbeat({ wall_ms, payload }) {
    this.heartbeat_ms = wall_ms;
    this.uptime = payload.uptime_seconds ?? 0;
    this.draw();
  }

  draw() {
    const age = (Date.now() - this.heartbeat_ms) / 1000;
    const beats = this.heartbeat_ms
      ? { uptime: `${Math.round(this.uptime + age)} s`, heartbeat: `${age.toFixed(0)} s ago` }
      : {};
    const shown = Object.entries({ ...this.facts, ...beats }).filter(([, value]) => value);
    this.list.replaceChildren(...shown.map(([name, value]) => {
      const row = document.createElement("div");
      const term = document.createElement("dt");
      term.textContent = name;
      const text = document.createElement("dd");
      text.textContent = String(value);
      row.append(term, text);
      return row;
    }));
  }
}
