/**
 * A connection without a WebSocket: messages come as an event stream, the answer to one long GET, and go
 * as POSTs. `docs/protocol.md` has the protocol.
 */
import { addBounded } from './bounded.js';
import { EventParser, EventTooLarge } from './event-parser.js';
import { retryAfter } from './retry-after.js';

// The first event is sent with the head of the answer. What holds it back holds back all.
const FIRST_EVENT_MS = 5_000;

// What a proxy that fills a buffer first is given with each event, in bytes.
const PADDING = 8192;

// The addresses whose first event did not come: there the next stream is padded.
const heldBack = new Set();
const HELD_BACK_MAX = 100;

// The server is allowed a message of its own limit and this much more; one that is larger goes alone.
const POST_BYTES_MAX = 64 * 1024;

// A post without an answer is sent again: after so long, twice as long each time, and so often in all.
const REPOST_MS = 250;
const REPOST_MS_MAX = 5_000;
const POST_TRIES_MAX = 8;

// The longest that a busy server may ask for before a post is sent again.
const PAUSE_MS_MAX = 10_000;

// A server that was told to close has this long to say `closed`, and so has one that knows the stream
// no more: that answer may overtake the last events.
const LINGER_MS = 2_000;

// A post with one of these was not taken, or by nobody who knows of it: the same one is due again.
const PASSING_STATUSES = new Set([408, 425, 429, 500, 502, 503, 504]);

// The longest body of a refusal that is read.
const REFUSAL_LENGTH_MAX = 16 * 1024;

const encoder = new TextEncoder();

// As with a WebSocket, a page has no say in the headers.
const isNode = globalThis.process?.versions?.node !== undefined && !globalThis.window;

/** The same face as `NodeSocket`: see there. It is open with the first event. */
export class EventStream {
  onopen = null;
  onmessage = null;
  onlife = null;
  onclose = null;
  #url;
  #request;
  #firstEventMs;
  #begunAt = performance.now();
  #abort = new AbortController();
  #timers = new Set();
  // The secret that posts carry.
  #key = null;
  #posts = 0;
  #isPosting = false;
  // What waits to be posted: `{text, bytes}`.
  #waiting = [];
  #unsentBytes = 0;
  #isPingDue = false;
  // `{code, reason}` from `close` on.
  #closing = null;
  #isOver = false;

  constructor(url, { headers = {}, messageBytesMax, firstEventMs = FIRST_EVENT_MS }) {
    const { address, authorization } = addressOf(url);
    this.#url = address;
    this.#request = {
      headers: { ...(isNode ? headers : {}), ...authorization },
      cache: 'no-store',
      credentials: 'include',
      redirect: 'error',
      signal: this.#abort.signal,
    };
    this.#firstEventMs = firstEventMs;
    this.#listen(messageBytesMax);
  }

  /** How many bytes wait to be posted, or for the answer to their post. */
  get bufferedAmount() {
    return this.#unsentBytes;
  }

  send(text) {
    if (this.#isOver || this.#closing) return;
    const bytes = encoder.encode(text).length + 1;
    this.#unsentBytes += bytes;
    this.#waiting.push({ text, bytes });
    this.#postSoon();
  }

  /** Asks for the end, after what waits; `onclose` follows within a bounded time. */
  close(code, reason) {
    if (this.#isOver || this.#closing) return;
    if (this.#key === null) return this.terminate();
    this.#closing = { code, reason };
    this.#overAfter(LINGER_MS, { code: 1006, reason: 'the server did not answer the close' });
    this.#postSoon();
  }

  /** Ends the connection without a word. */
  terminate() {
    const end = { code: 1006, reason: 'given up' };
    const isLate = this.#key === null && performance.now() - this.#begunAt >= this.#firstEventMs;
    if (isLate) this.#heldBack(end);
    else this.#over(end);
  }

  /** Reads the stream from its beginning to its end. */
  async #listen(lengthMax) {
    const accept = `text/event-stream${heldBack.has(this.#url.href) ? `; padding=${PADDING}` : ''}`;
    const response = await this.#fetch({ headers: { ...this.#request.headers, accept } });
    if (this.#isOver) return;
    if (response instanceof Error) return this.#over({ code: 1006, reason: messageOf(response) });
    const { status, headers, body } = response;
    if (status !== 200) {
      const reason = `the event stream was refused with ${status}`;
      const retryAfterMs = retryAfter(headers.get('retry-after')) ?? (await retryAfterIn(body));
      return this.#over({ code: 1006, reason, status, retryAfterMs });
    }
    if (!/^text\/event-stream\b/i.test(headers.get('content-type'))) {
      return this.#over({ code: 1006, reason: 'the answer is no event stream' });
    }
    this.#later(this.#firstEventMs, () => {
      const reason = `no event within ${this.#firstEventMs} ms: a proxy may hold the answer back`;
      if (this.#key === null) this.#heldBack({ code: 1006, reason });
    });
    const parser = new EventParser({ event: (name, data) => this.#event(name, data), lengthMax });
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      if (done) return this.#over({ code: 1006, reason: 'the connection was lost' });
      try {
        parser.push(value);
      } catch (error) {
        if (!(error instanceof EventTooLarge)) throw error;
        // A reconnect would bring it again.
        this.#over({ code: 1009, reason: `the server sent ${error.message}` });
      }
      if (this.#isOver) return;
    }
  }

  #event(name, data) {
    if (this.#isOver) return;
    if (name === 'closed') return this.#closed(parse(data));
    if (this.#key === null) {
      const { connection } = parse(data);
      const isFirst = name === 'connection' && typeof connection === 'string';
      if (!isFirst) return this.#over({ code: 1006, reason: 'the event stream began with something else' });
      this.#key = connection;
      return this.onopen?.();
    }
    if (name === 'message') return this.onmessage?.({ data });
    if (name === 'ping') {
      // A post that is out may have come before it.
      this.#isPingDue = true;
      this.#postSoon();
      this.onlife?.();
    }
    return undefined;
  }

  #closed({ code, reason }) {
    this.#over({ code: Number.isInteger(code) ? code : 1006, reason: typeof reason === 'string' ? reason : '' });
  }

  /** Posts what is sent in one turn of the event loop together. */
  #postSoon() {
    if (this.#isPosting) return;
    this.#isPosting = true;
    queueMicrotask(() => this.#postAll());
  }

  async #postAll() {
    while (!this.#isOver && (this.#waiting.length > 0 || this.#isPingDue || this.#closing)) {
      const { lines, bytes } = this.#gather();
      const isLast = this.#closing !== null && this.#waiting.length === 0;
      this.#isPingDue = false;
      this.#posts += 1;
      const head = { connection: this.#key, post: this.#posts, ...(isLast ? { close: this.#closing } : {}) };
      const isTaken = await this.#post([JSON.stringify(head), ...lines].join('\n'));
      // The stream says the rest.
      if (!isTaken || isLast) return;
      this.#unsentBytes -= bytes;
    }
    this.#isPosting = false;
  }

  /** Takes as many messages as one post may have, and one at least. */
  #gather() {
    let count = 0;
    let bytes = 0;
    for (const message of this.#waiting) {
      if (count > 0 && bytes + message.bytes > POST_BYTES_MAX) break;
      count += 1;
      bytes += message.bytes;
    }
    return { lines: this.#waiting.splice(0, count).map(({ text }) => text), bytes };
  }

  /**
   * Sends one post until it has its answer, and says whether the server took it. It takes it once,
   * because it has a number.
   */
  async #post(body) {
    const request = { method: 'POST', body, headers: { ...this.#request.headers, 'content-type': 'text/plain' } };
    for (let tries = 1; ; tries += 1) {
      const response = await this.#fetch(request);
      if (this.#isOver) return false;
      const { ok, status, headers, body: rest } = response;
      // Otherwise the connection would be held by an answer that nobody reads.
      rest?.cancel().catch(() => {});
      if (ok) return true;
      const isPassing = status === undefined || PASSING_STATUSES.has(status);
      if (!isPassing || tries === POST_TRIES_MAX) return this.#failed(response);
      const pauseMs = Math.min(REPOST_MS * 2 ** (tries - 1), REPOST_MS_MAX);
      await this.#pause(Math.min(retryAfter(headers?.get('retry-after')) ?? pauseMs, PAUSE_MS_MAX));
    }
  }

  /** A post is not taken, and will not be. */
  #failed(response) {
    const { status } = response;
    const what = status === undefined ? `had no answer: ${messageOf(response)}` : `was refused with ${status}`;
    const end = { code: status === 413 ? 1009 : 1006, reason: `a post ${what}` };
    if (status === 404 || status === 410) this.#overAfter(LINGER_MS, end);
    else this.#over(end);
    return false;
  }

  /** The answer, or the error instead of one. */
  #fetch(more) {
    return fetch(this.#url, { ...this.#request, ...more }).catch((error) => error);
  }

  #overAfter(ms, end) {
    this.#later(ms, () => this.#over(end));
  }

  #pause(ms) {
    return new Promise((resolve) => this.#later(ms, resolve));
  }

  /** Calls `run` after `ms`, or when the connection is over: nobody waits for a timer then. */
  #later(ms, run) {
    const timer = { run };
    timer.id = setTimeout(() => {
      this.#timers.delete(timer);
      run();
    }, ms);
    this.#timers.add(timer);
  }

  #heldBack(end) {
    if (!this.#isOver) addBounded(heldBack, this.#url.href, HELD_BACK_MAX);
    this.#over(end);
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const { id, run } of this.#timers) {
      clearTimeout(id);
      run();
    }
    this.#timers.clear();
    this.#waiting = [];
    this.#unsentBytes = 0;
    this.#abort.abort();
    this.onclose?.(end);
  }
}

/** What to fetch for this address of a WebSocket, without the name and password that `fetch` refuses. */
function addressOf(url) {
  const address = new URL(url.replace(/^ws/i, 'http'));
  const { username, password } = address;
  Object.assign(address, { username: '', password: '', hash: '' });
  if (username === '') return { address, authorization: {} };
  const bytes = encoder.encode(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
  return { address, authorization: { authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` } };
}

/** When to come back by the body of a refusal: pages of other origins are not shown `Retry-After`. */
async function retryAfterIn(body) {
  const decoder = new TextDecoder();
  let text = '';
  try {
    for (const reader = body.getReader(); text.length < REFUSAL_LENGTH_MAX; ) {
      const { done, value } = await reader.read();
      if (done) return askedIn(text);
      text += decoder.decode(value, { stream: true });
    }
  } catch {
    // It was lost, or there is none.
  }
  return undefined;
}

function askedIn(text) {
  const { retry_after_s: seconds } = parse(text);
  return typeof seconds === 'number' ? seconds * 1000 : undefined;
}

/** The object of an event that is not a message; nothing else makes sense there. */
function parse(data) {
  try {
    return Object(JSON.parse(data));
  } catch {
    return {};
  }
}

/** In Node, `fetch` says why it failed in the cause alone. */
function messageOf({ message, cause }) {
  return cause?.message || message;
}
