// Commands: a line to run, and the output of each as it streams.

import { decode, element } from "./socket.js";

const COMMANDS_MAX = 20;
const OUTPUT_CHARACTERS_MAX = 200_000;
// Control sequences of a terminal: CSI, OSC and two-character ones. A command's output is shown as text.
const SEQUENCES = /\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])/g;

export class Commands {
  /** @param {import("./socket.js").Socket} socket */
  constructor(socket) {
    this.socket = socket;
    this.results = element("results");
    /** @type {Map<string, {item: HTMLElement, pre: HTMLElement, status: HTMLElement, cancel: HTMLButtonElement,
     *   decoders: Record<string, TextDecoder>}>} */
    this.all = new Map();
    const line = /** @type {HTMLInputElement} */ (element("line"));
    element("run").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!line.value.trim()) return;
      socket.send({ type: "run", line: line.value });
      line.value = "";
    });
  }

  /** A command begins; or it comes again, with its output after it. @param {{id: string, line: string}} frame */
  begin({ id, line }) {
    this.all.get(id)?.item.remove();
    const item = document.createElement("li");
    const row = document.createElement("div");
    row.className = "command";
    const code = document.createElement("code");
    code.textContent = line;
    const status = document.createElement("span");
    status.textContent = "runs";
    status.setAttribute("role", "status");
    const cancel = document.createElement("button");
    Object.assign(cancel, { type: "button", textContent: "Cancel" });
    cancel.setAttribute("aria-label", `Cancel ${line}`);
    cancel.addEventListener("click", () => this.socket.send({ type: "cancel", id }));
    const pre = document.createElement("pre");
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", `Output of ${line}`);
    row.append(code, status, cancel);
    item.append(row, pre);
    this.results.prepend(item);
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    this.all.set(id, { item, pre, status, cancel, decoders });
    if (this.results.children.length > COMMANDS_MAX) this.results.lastElementChild?.remove();
  }

  /** @param {{id: string, stream: string, data: string}} frame */
  output({ id, stream, data }) {
    const decoder = this.all.get(id)?.decoders[stream];
    if (decoder) this.show(id, stream, decoder.decode(decode(data), { stream: true }));
  }

  /** @param {{id: string, payload: any}} frame */
  end({ id, payload }) {
    const command = this.all.get(id);
    if (!command) return;
    for (const stream of ["stdout", "stderr"]) if (payload[stream]) this.show(id, stream, payload[stream]);
    command.cancel.remove();
    const took = ((payload.duration_ms ?? 0) / 1000).toFixed(3);
    command.status.textContent = `exit ${payload.exit_code} after ${took} s`;
    command.status.className = payload.exit_code === 0 ? "ok" : "failed";
  }

  /** @param {string} id @param {string} stream @param {string} text */
  show(id, stream, text) {
    const pre = this.all.get(id)?.pre;
    if (!pre) return;
    const follows = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    const last = /** @type {HTMLElement | null} */ (pre.lastElementChild);
    const clean = text.replace(SEQUENCES, "").replaceAll("\r\n", "\n");
    if (last?.className === stream) last.append(clean);
    else pre.append(Object.assign(document.createElement("span"), { className: stream, textContent: clean }));
    if ((pre.textContent?.length ?? 0) > OUTPUT_CHARACTERS_MAX) {
      pre.textContent = `…${pre.textContent?.slice(-OUTPUT_CHARACTERS_MAX / 2)}`;
    }
    if (follows) pre.scrollTop = pre.scrollHeight;
  }
}
