// A console in its smallest form: registers agents, greets them, acknowledges what it has read, puts terminals together
// by offset, attaches again after a cut, and drops what arrives twice. A reference for authors, not a product: it keeps
// everything in memory and knows one key.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { EventEmitter, once } from "node:events";
import { randomUUID } from "node:crypto";
import { WebSocket, WebSocketServer } from "ws";
import { isAgentMessage, isRegistrationRequest } from "../../../src/protocol/schema/draupnir.js";
import type * as wire from "../../../src/protocol/schema/draupnir.js";

/** How a replay begins: the sequence that resets a terminal. */
const RESET = Buffer.from("\x1bc");

/** The part of bytes at `offset` that is new to one who has seen everything before `seen`. */
function after(seen: number, bytes: Buffer, offset: number): Buffer {
  return bytes.subarray(Math.max(0, seen - offset));
}

/** A terminal as a console keeps it. */
export interface Terminal {
  /** What was printed, in order, each byte once. */
  output: Buffer;
  /** What the browser that attached last is shown, from the last reset on. */
  screen: Buffer;
  /** The offset up to which that browser was shown the output; none before its first output. */
  shown?: number;
  /** The exit code, once the session is over. */
  exitCode?: number;
}

/** The console. It emits `change` whenever something arrived. */
export class Console extends EventEmitter {
  readonly instances = new Map<string, wire.RegistrationRequest>();
  readonly results = new Map<string, wire.CommandResult>();
  readonly terminals = new Map<string, Terminal>();
  readonly events: wire.AgentMessage[] = [];
  readonly usage: wire.UsageRecord[] = [];
  /** How many messages arrived that were there already. */
  repeats = 0;
  /** How many links there were. */
  links = 0;
  private readonly seen = new Set<string>();
  private readonly server: Server;
  private readonly sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  private readonly key: string;
  private link?: WebSocket;

  constructor(key: string) {
    super();
    this.key = key;
    this.server = createServer((request, response) => void this.register(request, response));
    this.server.on("upgrade", (request, socket, head) => {
      const id = String(request.headers["x-instance-id"]);
      this.sockets.handleUpgrade(request, socket, head, (link) => {
        // A refusal comes as a close frame: the agent reads code and reason.
        if (!this.isKey(request)) return link.close(1008, "Authentication required");
        if (!this.instances.has(id)) return link.close(1008, `Unknown instance ID: ${id}`);
        this.attach(link);
      });
    });
  }

  async listen(): Promise<string> {
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    const address = this.server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return `http://127.0.0.1:${address.port}`;
  }

  close(): void {
    this.link?.terminate();
    this.server.close();
  }

  /** Cuts the link without a word, as a broken network does. */
  cut(): void {
    this.link?.terminate();
  }

  /** Waits until something is so, at most 30 s: heartbeats do not prolong it. */
  async until(isSo: () => boolean): Promise<void> {
    const signal = AbortSignal.timeout(30_000);
    while (!isSo()) await once(this, "change", { signal });
  }

  /** Runs a command, once however often its id is sent, and gives its result. */
  async run(command: string, id: string = randomUUID()): Promise<wire.CommandResult> {
    this.send({ protocol_version: "1.0", type: "command:dispatch", payload: { command_id: id, command } });
    await this.until(() => this.results.has(id));
    return this.results.get(id)!;
  }

  /** Opens a terminal, or attaches to the live one of that id: then its screen comes again, as a replay. */
  open(session_id: string, cols = 80, rows = 24): Terminal {
    const terminal = this.terminals.get(session_id) ?? { output: Buffer.alloc(0), screen: Buffer.alloc(0) };
    this.terminals.set(session_id, terminal);
    this.send({ protocol_version: "1.0", type: "terminal:create", session_id, payload: { session_id, cols, rows } });
    return terminal;
  }

  type(session_id: string, text: string): void {
    const data = Buffer.from(text).toString("base64");
    this.send({ protocol_version: "1.0", type: "terminal:input", session_id, payload: { session_id, data } });
  }

  send(message: wire.ConsoleMessage): void {
    this.link?.send(JSON.stringify(message));
  }

  private isKey(request: IncomingMessage): boolean {
    return request.headers.authorization === `Bearer ${this.key}`;
  }

  private async register(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const isPath = request.method === "POST" && request.url === "/api/v1/instances/register";
    if (!isPath) return void response.writeHead(404).end();
    if (!this.isKey(request)) return void response.writeHead(401).end();
    let text = "";
    for await (const chunk of request) text += chunk;
    const body: unknown = JSON.parse(text);
    if (!isRegistrationRequest(body)) return void response.writeHead(422).end();
    this.instances.set(body.instance_id, body);
    response.writeHead(201, { "content-type": "application/json" }).end(JSON.stringify({ id: body.instance_id }));
  }

  private attach(link: WebSocket): void {
    this.link?.terminate();
    this.link = link;
    this.links += 1;
    // `ws` answers each Ping with its Pong in turn, after the frames before it were given to this handler: that is all
    // that an acknowledgement needs.
    link.on("message", (data) => {
      const message: unknown = JSON.parse(String(data));
      if (isAgentMessage(message)) this.take(message);
      this.emit("change");
    });
    // The first message is the greeting: the agent holds back what it has to tell until it arrives.
    this.send({ protocol_version: "1.0", type: "log:subscribe", payload: { paths: [] } });
    this.emit("change");
  }

  /** Whether this message is new; what is sent again has the same key. */
  private isNew(key: string): boolean {
    const isNew = !this.seen.has(key);
    if (!isNew) this.repeats += 1;
    this.seen.add(key);
    return isNew;
  }

  private take(message: wire.AgentMessage): void {
    switch (message.type) {
      case "event":
        if (this.isNew(message.payload.id)) this.events.push(message);
        break;
      case "command:result":
        if (this.isNew(message.payload.command_id)) this.results.set(message.payload.command_id, message.payload);
        break;
      case "llm_usage:batch":
        this.usage.push(...message.payload.records.filter((record) => this.isNew(record.traceId)));
        break;
      case "terminal:closed": {
        const terminal = this.terminals.get(message.session_id);
        if (terminal && this.isNew(message.payload.id)) terminal.exitCode = message.payload.exit_code;
        break;
      }
      case "terminal:output": {
        const terminal = this.terminals.get(message.session_id);
        const { data, offset, replay } = message.payload;
        const bytes = Buffer.from(data, "base64");
        if (!terminal) break;
        if (replay) {
          // A replay begins with a reset: the browser starts over, at whatever offset the output goes on.
          if (bytes.subarray(0, RESET.length).equals(RESET)) {
            terminal.screen = Buffer.alloc(0);
            delete terminal.shown;
          }
          terminal.screen = Buffer.concat([terminal.screen, bytes]);
        }
        if (offset === undefined) break;
        // Bytes that are there already are dropped; a gap means that the agent gave them up, and said so in an event.
        // The browser has an offset of its own: after a reset it needs bytes that are in `output` already.
        const fresh = after(terminal.output.length, bytes, offset);
        if (fresh.length < bytes.length) this.repeats += 1;
        terminal.output = Buffer.concat([terminal.output, fresh]);
        terminal.screen = Buffer.concat([terminal.screen, after(terminal.shown ?? offset, bytes, offset)]);
        terminal.shown = Math.max(terminal.shown ?? 0, offset + bytes.length);
        break;
      }
      case "registration":
      case "heartbeat":
      case "metrics":
      case "command:output":
        break;
    }
  }
}
