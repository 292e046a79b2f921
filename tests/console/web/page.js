// The page of the demo: connects its parts to the server.
//
// The server first sends what has happened so far, then `live`. States before `live` are not shown one by one.

import { Chart } from "./chart.js";
import { Commands } from "./commands.js";
import { Events, Instance, Logs } from "./lists.js";
import { Plots } from "./plots.js";
import { element, Socket } from "./socket.js";
import { Terminals } from "./terminals.js";

const status = element("status");
const chart = new Chart();
const plots = new Plots();
const events = new Events();
const logs = new Logs();
const instance = new Instance();
const socket = new Socket(take, (words) => {
  status.textContent = words;
  status.dataset["up"] = "false";
});
const terminals = new Terminals(socket);
const commands = new Commands(socket);

/** @param {any} frame */
function take(frame) {
  switch (frame.type) {
    case "live":
      chart.begin();
      terminals.begin();
      document.body.dataset["live"] = "true";
      break;
    case "state": chart.take(frame); break;
    case "recording_ended": chart.end(frame.why); break;
    case "terminals": terminals.list(frame.ids); break;
    case "output": frame.stream ? commands.output(frame) : terminals.output(frame.id, frame.data); break;
    case "command": commands.begin(frame); break;
    case "result": commands.end(frame); break;
    case "event": events.take(frame); break;
    case "metrics": plots.take(frame); break;
    case "log": logs.take(frame); break;
    case "registration": instance.registration(frame.payload); break;
    case "heartbeat": instance.heartbeat(frame); break;
    case "tags": instance.tags(frame.tags); break;
    case "buttons": press(frame); break;
  }
}

for (const button of document.querySelectorAll("[data-fault]")) {
  const what = button.getAttribute("data-fault") ?? "";
  button.addEventListener("click", () => socket.send({ type: "fault", what }));
}

/** The state of the buttons that stay pressed. @param {Record<string, any>} frame */
function press(frame) {
  for (const button of document.querySelectorAll("[aria-pressed]")) {
    button.setAttribute("aria-pressed", String(frame[button.getAttribute("data-fault") ?? ""]));
  }
}

document.addEventListener("state", (event) => {
  const state = String(/** @type {CustomEvent} */ (event).detail);
  status.textContent = state;
  status.dataset["up"] = String(state.startsWith("connected"));
});

const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = localStorage.getItem("theme");

function paint() {
  const theme = chosen ?? (dark.matches ? "dark" : "light");
  document.documentElement.dataset["theme"] = theme;
  terminals.paint(theme);
  plots.redraw();
}

dark.addEventListener("change", paint);
element("theme").addEventListener("click", () => {
  chosen = document.documentElement.dataset["theme"] === "dark" ? "light" : "dark";
  localStorage.setItem("theme", chosen);
  paint();
});
paint();
