// The page in Chromium, against the real agent. `tests/console/web/run` starts it.
//
// The cases use one page, one after the other. Each wait has a limit; none sleeps. Screenshots go to target/web.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

const folder = process.env["DRAUPNIR_WEB"] ?? "";
const { chromium } = createRequire(`${folder}/`)("playwright-core");

// Longer than the agent's longest wait for a retry, on a busy machine.
const WAIT_MS = 90_000;
const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

/** @type {any} */
let browser;
/** @type {any} */
let page;
/** @type {import("node:child_process").ChildProcess} */
let demo;
let host = "";
const temporary = mkdtempSync(join(tmpdir(), "draupnir-page-"));
/** @type {string[]} */
const complaints = [];

/** The text of the terminal that is shown. */
function screen() {
  return page.locator(".screen:not([hidden]) .xterm-rows").innerText();
}

/** Waits until the terminal shows a text. @param {string | RegExp} text */
async function shows(text) {
  await page.locator(".screen:not([hidden]) .xterm-rows", { hasText: text }).waitFor();
}

/** Waits until the chart has been in a state since the last call of `forget`. @param {string} state */
async function reaches(state) {
  const has = (/** @type {string} */ wanted) => window.states.some((seen) => seen.startsWith(wanted));
  await page.waitForFunction(has, state);
}

/** Forgets the states so far. */
async function forget() {
  await page.evaluate(() => { window.states = []; });
}

/** A picture, after every colour has stopped changing. @param {string} name */
async function picture(name) {
  await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)));
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

before(async () => {
  const agent = process.env["DRAUPNIR_AGENT"] ?? "";
  const options = ["--plain", "--web", "--agent", agent, "--packages", folder];
  demo = spawn(process.env["DRAUPNIR_DEMO"] ?? "", options, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: /** @type {import("node:stream").Readable} */ (demo.stdout) });
  const url = await new Promise((found, failed) => {
    lines.once("line", (line) => found(/http:\S+/.exec(line)?.[0] ?? ""));
    demo.once("exit", () => failed(new Error("the demo ended")));
  });
  host = new URL(url).host;
  const executablePath = process.env["DRAUPNIR_CHROMIUM"];
  // A container's root has no sandbox, and its /dev/shm is small. The page is our own.
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  page = await browser.newPage({ viewport: DESKTOP, colorScheme: "light" });
  page.setDefaultTimeout(WAIT_MS);
  page.on("console", (/** @type {any} */ message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (/** @type {Error} */ error) => complaints.push(`exception: ${error.message}`));
  page.on("requestfailed", (/** @type {any} */ request) => complaints.push(`failed: ${request.url()}`));
  const visit = (/** @type {any} */ { url }) => {
    if (new URL(url()).host !== host) complaints.push(`another host: ${url()}`);
  };
  page.on("request", (/** @type {any} */ request) => visit({ url: () => request.url() }));
  page.on("websocket", (/** @type {any} */ socket) => visit({ url: () => socket.url() }));
  await page.addInitScript(() => {
    window.states = [];
    document.addEventListener("state", (event) => {
      window.states.push(/** @type {CustomEvent} */ (event).detail);
    });
  });
  await page.goto(url);
  await page.locator("body[data-live]").waitFor();
  await reaches("connected.ready");
});

after(async () => {
  await browser?.close();
  demo?.kill("SIGTERM");
  rmSync(temporary, { recursive: true });
});

test("the instance is shown with its version and tags", async () => {
  for (const text of [/version\s*\d+\.\d+\.\d+/, /tags\s*purpose=demo/, /uptime\s*\d+ s/, /heartbeat\s*\d+ s ago/]) {
    await page.locator("#instance", { hasText: text }).waitFor();
  }
  await page.locator("#events li", { hasText: "connection 1 is up" }).waitFor();
});

test("typing reaches the shell, and a paste does", async () => {
  await page.keyboard.type("echo ty''ped\n");
  await shows("typed");
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.setData("text/plain", "echo pas''ted");
    const target = document.querySelector(".screen:not([hidden]) textarea");
    target?.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
  });
  await page.keyboard.press("Enter"); // a shell does not run a pasted line by itself
  await shows("pasted");
});

test("output of a command streams", async () => {
  const gate = join(temporary, "gate");
  execFileSync("mkfifo", [gate]);
  await page.fill("#line", `echo fi''rst; read -r _ <${gate}; echo sec''ond`);
  await page.keyboard.press("Enter");
  const result = page.locator("#results li").first();
  await result.locator("pre", { hasText: "first" }).waitFor();
  assert.equal(await result.locator("[role=status]").innerText(), "runs");
  writeFileSync(gate, "go on\n");
  await result.locator("pre", { hasText: "second" }).waitFor();
  await result.locator("[role=status]", { hasText: "exit 0" }).waitFor();
});

test("cancel ends a command", async () => {
  await page.fill("#line", "echo beg''un; exec sleep 1000");
  await page.keyboard.press("Enter");
  const result = page.locator("#results li").first();
  await result.locator("pre", { hasText: "begun" }).waitFor();
  await result.getByRole("button", { name: /^Cancel/ }).click();
  await result.locator("[role=status]", { hasText: /exit [^0]/ }).waitFor();
});

test("after a cut the chart passes through connecting, and top is back", async () => {
  await page.locator(".screen:not([hidden]) textarea").focus();
  await page.keyboard.type("clear; top -d 1\n");
  await shows(/top - .*PID USER/s);
  const time = (/** @type {string} */ text) => /top - ([\d:]+)/.exec(text)?.[1];
  const old = time(await screen());
  await forget();
  await page.click("[data-fault=cut]");
  await reaches("connecting.waiting");
  await page.locator("#timeline li[data-state^=connecting]").first().waitFor();
  await reaches("connected.ready");
  await page.waitForFunction((/** @type {string} */ before) => {
    const text = document.querySelector(".screen:not([hidden]) .xterm-rows")?.textContent ?? "";
    const now = /top - ([\d:]+)/.exec(text)?.[1];
    return now !== undefined && now !== before;
  }, old);
  const text = await screen();
  assert.equal(text.split("PID USER").length, 2, `one header line: ${text}`);
  assert.match(text.trimStart(), /^top - /);
});

test("light and dark, at 1280 by 800", async () => {
  await page.fill("#line", "for step in 1 2 3; do echo step $step; sleep 0.2; done");
  await page.locator("#line").press("Enter");
  await page.locator("#results li").first().locator("[role=status]", { hasText: "exit 0" }).waitFor();
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.locator(`html[data-theme=${colorScheme}]`).waitFor();
    await picture(colorScheme);
  }
  await page.emulateMedia({ colorScheme: "light" });
  const chart = await page.locator("#chart").boundingBox();
  const terminal = await page.locator(".screen:not([hidden])").boundingBox();
  const plots = await page.locator("#plots").boundingBox();
  for (const box of [chart, terminal, plots]) assert.ok(box && box.y + box.height <= DESKTOP.height, "seen without scrolling");
});

test("after a reload the terminal is attached again", async () => {
  await page.locator(".screen:not([hidden]) textarea").focus();
  await page.keyboard.press("q");
  await page.keyboard.type("clear; echo be''fore the reload\n");
  await shows("before the reload");
  await page.reload();
  await shows("before the reload");
});

test("the keyboard alone is enough", async () => {
  await page.locator(".screen:not([hidden]) textarea").focus();
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("role") ?? document.activeElement?.id);
  await page.keyboard.press("Control+Shift+E");
  assert.equal(await focused(), "tab");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "open");
  await page.keyboard.press("Enter");
  await page.locator("[role=tab]").nth(1).waitFor();
  await page.keyboard.type("echo sec''ond terminal\n");
  await shows("second terminal");
  await page.keyboard.press("Control+Shift+E");
  await page.keyboard.press("ArrowLeft");
  await shows("before the reload");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Delete");
  await page.locator("[role=tab]").nth(1).waitFor({ state: "detached" });
});

test("a phone shows it in one column", async () => {
  await page.setViewportSize(PHONE);
  await page.click("#open");
  await page.locator("[role=tab]").nth(1).waitFor();
  await page.click("#close"); // a phone has no key for it
  await page.locator("[role=tab]").nth(1).waitFor({ state: "detached" });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= PHONE.width, `${width} pixels are wider than a phone`);
  await picture("phone");
  await page.setViewportSize(DESKTOP);
});

test("logs appear with the first line, and the filter hides the others", async () => {
  const panel = page.locator("#logs-panel");
  assert.equal(await panel.isVisible(), false);
  // As the server passes on a `log:batch`.
  await page.evaluate(async () => {
    const { Logs } = await import(new URL("lists.js", location.href).href);
    const lines = [{ line: "all is well", ts: 0, level: "info", source: "app" },
      { line: "disk <b>full</b>", ts: 1, level: "error", source: "system" }];
    new Logs().take({ wall_ms: 0, payload: { path: "a.log", lines } });
  });
  assert.equal(await panel.isVisible(), true);
  await page.fill("#log-filter", "FULL");
  const shown = panel.locator("li:visible");
  assert.equal(await shown.count(), 1);
  assert.match(await shown.innerText(), /error system disk <b>full<\/b>$/);
});

test("no console error, and no request to another host", () => {
  assert.deepEqual(complaints, []);
});
