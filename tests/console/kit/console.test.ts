// The real agent against the reference console: DRAUPNIR_AGENT names its program.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Console } from "./console.ts";
import * as guards from "../../../src/protocol/schema/draupnir.js";

const program = process.env["DRAUPNIR_AGENT"];
assert.ok(program, "DRAUPNIR_AGENT names the agent's program");

/** A console and an agent that is connected to it. */
async function start(context: TestContext): Promise<{ console: Console; agent: ChildProcess }> {
  const console = new Console("a-key-for-tests");
  const home = mkdtempSync(join(tmpdir(), "draupnir-kit-"));
  const environment = {
    HOME: home,
    PATH: process.env["PATH"],
    SHELL: "/bin/sh",
    SINDRI_CONSOLE_URL: await console.listen(),
    SINDRI_CONSOLE_API_KEY: "a-key-for-tests",
    SINDRI_INSTANCE_ID: "kit",
    SINDRI_AGENT_STATE_DIR: join(home, "state"),
    SINDRI_LLM_ADAPTER: "none",
  };
  const agent = spawn(program!, { env: environment, stdio: "ignore" });
  context.after(async () => {
    agent.kill("SIGKILL");
    if (agent.exitCode === null && agent.signalCode === null) await once(agent, "exit");
    console.close();
    rmSync(home, { recursive: true, force: true });
  });
  await console.until(() => has(console, "connect"));
  return { console, agent };
}

function has(console: Console, type: string): boolean {
  return console.events.some((message) => message.type === "event" && message.payload.event_type === type);
}

test("basic story: registers, runs a command, opens a terminal, drains", async (context) => {
  const { console, agent } = await start(context);
  assert.equal(console.instances.get("kit")?.os, process.platform === "darwin" ? "darwin" : "linux");
  const result = await console.run("echo out; echo err >&2; exit 3");
  assert.deepEqual([result.stdout, result.stderr, result.exit_code], ["out\n", "err\n", 3]);
  const terminal = console.open("s1");
  console.type("s1", "echo $((6*7)); exit 5\r");
  await console.until(() => terminal.exitCode !== undefined);
  assert.ok(terminal.output.includes("42\r\n"));
  assert.equal(terminal.exitCode, 5);
  agent.kill("SIGTERM");
  const [code] = await once(agent, "exit");
  assert.equal(code, 0);
});

test("cut: what was printed meanwhile comes once, in order", async (context) => {
  const { console } = await start(context);
  const terminal = console.open("s1");
  console.type("s1", "for i in $(seq 5000); do echo line-$i; done; echo en''d\r");
  await console.until(() => terminal.output.includes("line-100\r\n"));
  console.cut();
  await console.until(() => terminal.output.includes("end\r\n"));
  assert.equal(console.links, 2);
  const lines = [...terminal.output.toString().matchAll(/line-(\d+)\r\n/g)].map((match) => Number(match[1]));
  assert.deepEqual(lines, Array.from({ length: 5000 }, (_, index) => index + 1));
});

test("re-attach: the same shell, and its screen again", async (context) => {
  const { console } = await start(context);
  const terminal = console.open("s1");
  console.type("s1", "word=remembered; echo fir''st\r");
  await console.until(() => terminal.output.includes("first\r\n"));
  console.cut();
  await console.until(() => console.links === 2);
  console.open("s1", 100, 30);
  await console.until(() => terminal.screen.includes("\x1bc"));
  await console.until(() => terminal.screen.includes("first\r\n"));
  console.type("s1", "echo $word; stty size\r");
  await console.until(() => terminal.output.includes("remembered\r\n30 100\r\n"));
});

test("duplicate: a command runs once, and its repeated result is dropped by its id", async (context) => {
  const { console } = await start(context);
  const first = await console.run("echo x >>ran; cat ran", "c1");
  const payload = { command_id: "c1", command: "echo x >>ran; cat ran" };
  console.send({ protocol_version: "1.0", type: "command:dispatch", payload });
  await console.until(() => console.repeats === 1);
  assert.deepEqual(console.results.get("c1"), first);
  assert.equal((await console.run("cat ran")).stdout, "x\n");
});

test("the guards judge every vector as its note says", () => {
  interface Vector { from: string; note: string; valid: boolean; raw: string }
  const vectors = JSON.parse(readFileSync(new URL("./vectors.json", import.meta.url), "utf8")) as Vector[];
  for (const { from, note, valid, raw } of vectors) {
    // A reader of JSON keeps one of two equal keys, and no schema counts levels.
    if (["twice", "two of them", "nesting"].some((word) => note.includes(word))) continue;
    let value: unknown;
    try {
      value = JSON.parse(raw);
    } catch {
      assert.equal(valid, false, note);
      continue;
    }
    const holds = from === "agent" ? guards.isAgentMessage(value) : guards.isConsoleMessage(value);
    assert.equal(holds, valid, `${note}: ${raw}`);
  }
});
