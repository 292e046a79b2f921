// The WebSocket of the page: JSON messages both ways.
//
// After a lost connection it waits for the demo, and loads the page again: the server then sends everything again.

const RETRY_MS = 2000;
// xterm.js hands over a paste in one piece; the server takes messages of at most 256 KiB.
const INPUT_CHARACTERS_MAX = 16384;

/** @typedef {{type: string, [key: string]: any}} Message */

export class Socket {
  /** @param {(message: Message) => void} take @param {(words: string) => void} lost */
  constructor(take, lost) {
    this.take = take;
    this.lost = lost;
    this.socket = this.connect();
    this.socket.addEventListener("message", (event) => take(JSON.parse(event.data)));
    this.socket.addEventListener("close", () => this.wait());
  }

  connect() {
    const url = new URL("socket", location.href);
    url.protocol = "ws:";
    return new WebSocket(url);
  }

  wait() {
    this.lost("the demo has ended, or reads too slowly");
    setTimeout(() => {
      const probe = this.connect();
      probe.addEventListener("open", () => location.reload());
      probe.addEventListener("close", () => this.wait());
    }, RETRY_MS);
  }

  /** @param {Message} message */
  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Sends typed or pasted text in pieces; no piece ends within a character. @param {string} id @param {string} text */
  input(id, text) {
    const characters = Array.from(text);
    for (let from = 0; from < characters.length; from += INPUT_CHARACTERS_MAX) {
      this.send({ type: "input", id, text: characters.slice(from, from + INPUT_CHARACTERS_MAX).join("") });
    }
  }
}

/** The bytes of base64. @param {string} data */
export function decode(data) {
  return Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
}

/** The element with this id. @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
}

/** A time of day with milliseconds. @param {number} wall_ms */
export function clock(wall_ms) {
  const date = new Date(wall_ms);
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const milliseconds = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${milliseconds}`;
}
