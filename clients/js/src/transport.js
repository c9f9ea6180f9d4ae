/**
 * What the next connection is made by: a WebSocket, or an event stream on networks that let no
 * WebSocket pass.
 */
import { socketFactory } from './socket.js';

const WEBSOCKET = 'websocket';
const EVENT_STREAM = 'event-stream';

export const FALLBACKS = ['auto', 'off', 'only'];

// For so long a server that was reached by an event stream is reached by one first.
const REMEMBERED_MS = 10 * 60_000;

// Servers that are remembered.
const REMEMBERED_MAX = 100;

// Where a WebSocket had a session once, so many must fail in a row: the server is more likely away.
const KNOWN_FAILURES_MAX = 3;

// Refusals of an upgrade by what does not know it. With any other status the server itself speaks, or
// it is away.
const NO_UPGRADE_STATUSES = new Set([400, 405, 426, 501]);

// Until when each server is remembered, for the other clients of this page or program.
const remembered = new Map();

export class Transport {
  #url;
  #options;
  #clock;
  #platform;
  #server;
  #openWebSocket = null;
  #EventStream = null;
  #kind = WEBSOCKET;
  // By what the last connection was tried, if it had no session.
  #failed = null;
  // How many WebSockets in a row had none.
  #failures = 0;
  #failuresMax = 1;
  // Whether the last WebSocket was refused with a status, and not by a network that is silent about it.
  #wasRefused = false;

  constructor({ url, options, clock, platform }) {
    this.#url = url;
    this.#options = options;
    this.#clock = clock;
    this.#platform = platform;
    const { protocol, host, pathname } = new URL(url);
    this.#server = `rusty-socks.event-stream:${protocol}//${host}${pathname}`;
  }

  /** Finds the WebSocket of this platform. */
  async prepare() {
    if (this.#options.fallback !== 'only') this.#openWebSocket = await socketFactory(this.#options);
  }

  /** `websocket` or `event-stream`. */
  get kind() {
    return this.#kind;
  }

  /** Decides on the next connection. Gives a promise if something is to be loaded for it. */
  choose() {
    this.#kind = this.#next();
    return this.#kind === EVENT_STREAM && !this.#EventStream ? this.#load() : null;
  }

  open() {
    if (this.#kind === WEBSOCKET) return this.#openWebSocket(this.#url);
    const { headers, messageBytesMax } = this.#options;
    return new this.#EventStream(this.#url, { headers, messageBytesMax });
  }

  /** There is a session on the connection. */
  worked() {
    this.#failed = null;
    this.#failures = 0;
    if (this.#kind === WEBSOCKET) this.#failuresMax = KNOWN_FAILURES_MAX;
    if (this.#options.fallback === 'auto') this.#remember(this.#kind === EVENT_STREAM);
  }

  /**
   * Takes note of an end, and says whether the transport is to blame, so that another one may do.
   * It is not if a frame has come, or if no transport could have done, which is `isBlameless`.
   */
  ended({ code, status, hasHeard, isBlameless }) {
    if (this.#options.fallback !== 'auto' || code !== 1006 || hasHeard || isBlameless) return false;
    if (this.#kind === EVENT_STREAM) {
      this.#failed = EVENT_STREAM;
      // Where both ways were refused with a status, that is the server's word.
      return !(this.#wasRefused && status !== undefined);
    }
    if ((status !== undefined && !NO_UPGRADE_STATUSES.has(status)) || !this.#platform.isOnline()) return false;
    this.#failed = WEBSOCKET;
    this.#failures += 1;
    this.#wasRefused = status !== undefined;
    return true;
  }

  #next() {
    const { fallback } = this.#options;
    if (fallback !== 'auto') return fallback === 'only' ? EVENT_STREAM : WEBSOCKET;
    if (this.#failed === null) return this.#isRemembered() ? EVENT_STREAM : WEBSOCKET;
    if (this.#failed === EVENT_STREAM || this.#failures < this.#failuresMax) return WEBSOCKET;
    // The next row of failures.
    this.#failures = 0;
    return EVENT_STREAM;
  }

  async #load() {
    const { EventStream } = await import('./event-stream.js');
    this.#EventStream = EventStream;
  }

  #date() {
    return this.#clock.date?.() ?? this.#clock.now();
  }

  #isRemembered() {
    const until = remembered.get(this.#server) ?? inStorage((storage) => storage.getItem(this.#server));
    return this.#date() < until;
  }

  #remember(isWanted) {
    // Not for longer with each reconnect: a WebSocket is to be tried again some time.
    if (isWanted === this.#isRemembered()) return;
    const until = isWanted ? this.#date() + REMEMBERED_MS : 0;
    remembered.set(this.#server, until);
    if (remembered.size > REMEMBERED_MAX) remembered.delete(remembered.keys().next().value);
    inStorage((storage) => storage.setItem(this.#server, until));
  }
}

/** Uses what a page keeps until its tab is closed, if there is such a thing, and it may be used. */
function inStorage(use) {
  try {
    return use(globalThis.sessionStorage);
  } catch {
    return undefined;
  }
}
