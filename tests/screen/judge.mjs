// Compares, at each recorded moment, a terminal that never left with one that got a snapshot.
//
//   node judge.mjs FOLDER COUNTS [--update] [NUMBER: show what differs at this moment]
//
// Two classes: a moment is *exact* where the agent took its snapshot for that. Elsewhere the snapshot is the best that
// can be made. What differs is listed by its cause. An exact moment differs in nothing; COUNTS says how many of all do
// so, for each judge: that may only rise.
//
// The agent's model follows xterm.js. Where tmux shows the output itself otherwise than xterm.js does, a snapshot
// cannot be right for both: what differs there and nowhere else is tmux's own. It keeps a wide character of which a
// half was erased, gives rows that scroll in at the top the background of the pen, and takes pushed titles back. And
// what tmux does not find is xterm.js' own, if tmux looks for it: a cursor that moves in origin mode goes down by the
// rows above the scroll region.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { begin, end, show } from "./tmux.mjs";
import { XtermJs } from "./xterm.mjs";

const [folder, countsPath, ...options] = process.argv.slice(2);
const only = options.find((option) => /^\d+$/.test(option));
const moments = readFileSync(join(folder, "list.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line));

const read = (name) => readFileSync(join(folder, name));

// The kinds of state in which two terminals differ.
function differences(one, other) {
  const differ = (kind) => {
    if (kind === "serialized") {
      // Where only the marks of wrapped rows differ, so does what is written.
      const [[wraps, text], [otherWraps, otherText]] = [one[kind], other[kind]];
      return JSON.stringify(wraps) === JSON.stringify(otherWraps) && text !== otherText;
    }
    if (kind !== "history") return JSON.stringify(one[kind]) !== JSON.stringify(other[kind]);
    // The newest part of it is enough.
    const newest = other.history.length;
    return newest > 0 && JSON.stringify(one.history.slice(-newest)) !== JSON.stringify(other.history);
  };
  const found = Object.keys(one).filter(differ);
  if (only) for (const kind of found) print(kind, one[kind], other[kind]);
  return found;
}

// For a look at one moment.
function print(kind, one, other) {
  if (!Array.isArray(one)) return console.log(kind, JSON.stringify(one), JSON.stringify(other));
  for (const [place, value] of one.entries()) {
    const [a, b] = [JSON.stringify(value), JSON.stringify(other[place])];
    if (a !== b) console.log(`${kind} ${place}\n  ${a}\n  ${b}`);
  }
}

let blamed = 0;

// What is found with the add-on is no finding where the add-on itself writes other cells than the terminal has.
async function blame(found, terminals) {
  if (!found.includes("serialized")) return found;
  for (const terminal of terminals) {
    if (!(await terminal.isSerializedWell())) {
      blamed += 1;
      return found.filter((kind) => kind !== "serialized");
    }
  }
  return found;
}

// Each gets what the one before has found.
const judges = {
  tmux: async ({ cols, rows, at, snapshot }, output) => {
    writeFileSync(join(folder, "whole"), output.subarray(0, at));
    const states = ["whole", snapshot].map((name) => show(cols, rows, join(folder, name)));
    const other = new XtermJs(cols, rows);
    await other.write(output.subarray(0, at));
    const others = other.asTmuxSays();
    const found = differences(...states);
    const alike = (kind) => !differ(states[0][kind], others[kind]);
    same["both judges of the output"] += ["cells", "attributes"].every(alike);
    const isOwn = (kind) => isItsOwn(...states.map((state) => state[kind]), others[kind]);
    return found.map((kind) => (isOwn(kind) ? `${kind} ${OWN}` : kind));
  },
  "xterm.js": async ({ cols, rows, at, snapshot }, output, others) => {
    const terminals = [new XtermJs(cols, rows), new XtermJs(cols, rows)];
    await Promise.all([terminals[0].write(output.subarray(0, at)), terminals[1].write(read(snapshot))]);
    const found = await blame(differences(...terminals.map((terminal) => terminal.state())), terminals);
    await Promise.all(terminals.map((terminal) => terminal.write(output.subarray(at))));
    const later = await blame(differences(...terminals.map((terminal) => terminal.state())), terminals);
    const isOwn = others.length === 0 && found.every((kind) => ["cells", "attributes", "cursor"].includes(kind));
    if (found.length > 0 && isOwn) return found.map((kind) => `${kind} ${OWN}`);
    return [...found, ...later.filter((kind) => !found.includes(kind)).map((kind) => `${kind} later`)];
  },
};

const OWN = "(its own)";

const differ = (one, other) => JSON.stringify(one) !== JSON.stringify(other);

// Whether tmux and xterm.js differ about the output itself, in each row in which tmux differs about the snapshot.
function isItsOwn(whole, snapshot, others) {
  if (!Array.isArray(whole)) return others !== undefined && differ(whole.trim(), others);
  return whole.every((row, y) => !differ(row, snapshot[y]) || differ(row, others[y]));
}

begin();
process.on("exit", end);
const counts = {}, causes = {};
// Each line of COUNTS: who finds no difference, and at how many moments.
const same = { "both judges of the output": 0 };
for (const [number, moment] of moments.entries()) {
  if (only && number !== Number(only)) continue;
  const output = read(moment.output).subarray(0, moment.end);
  const kind = moment.exact ? "exact" : "best effort";
  let found = [];
  for (const [judge, judged] of Object.entries(judges)) {
    found = await judged(moment, output, found);
    const name = `${judge}, ${kind}`;
    counts[name] ??= { same: 0, own: 0, all: 0 };
    counts[name].all += 1;
    counts[name].same += found.length === 0 ? 1 : 0;
    counts[name].own += found.length > 0 && found.every((kind) => kind.endsWith(OWN)) ? 1 : 0;
    if (found.length > 0) {
      const cause = `${name}: ${moment.program}: ${found.join(", ")}`;
      (causes[cause] ??= []).push(number);
    }
  }
}

for (const [cause, numbers] of Object.entries(causes)) console.log(`${cause}: moments ${numbers.join(" ")}`);
const median = (key) => moments.map((moment) => moment[key]).sort((a, b) => a - b)[moments.length >> 1];
console.log(`${moments.length} moments; the median of the snapshots is ${median("snapshot_bytes")} bytes, and ` +
  `${median("screen_bytes")} without the history`);
console.log(`xterm.js: at ${blamed} looks its add-on writes other cells than the terminal has`);
for (const [name, { same, own, all }] of Object.entries(counts)) {
  console.log(`${name}: ${same} of ${all} without a difference, ${own} where only what is its own differs`);
}

const broken = [];
for (const [name, count] of Object.entries(counts)) {
  const [judge, kind] = name.split(", ");
  same[judge] = (same[judge] ?? 0) + count.same;
  const differ = count.all - count.same - count.own;
  if (kind === "exact" && differ > 0) broken.push(`${name}: ${differ} with a difference`);
}
const lines = readFileSync(countsPath, "utf8").trim().split("\n");
const pairs = lines.filter((line) => !line.startsWith("#")).map((line) => line.split(/ (?=\d+$)/));
const committed = Object.fromEntries(pairs);
const least = (judge) => Number(committed[judge] ?? 0);
for (const [judge, count] of Object.entries(same)) {
  const isAll = only === undefined;
  if (isAll && count < least(judge)) broken.push(`${judge}: ${count} without a difference, not ${least(judge)}`);
}
if (options.includes("--update")) {
  const risen = Object.entries(same).map(([judge, count]) => `${judge} ${Math.max(count, least(judge))}`);
  writeFileSync(countsPath, `${[...lines.filter((line) => line.startsWith("#")), ...risen].join("\n")}\n`);
}
for (const line of broken) console.log(`FAILED ${line}`);
process.exitCode = broken.length > 0 ? 1 : 0;
