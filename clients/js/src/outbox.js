/**
 * The commands that have no answer yet, in order, across connections.
 *
 * A command is sent again on the next connection if the one it was sent on ended first, and after a while if
 * the server was too busy for it.
 */
import { askedMs } from './backoff.js';
import { RustySocksError, refusal } from './errors.js';
import { boundWait } from './wait.js';

// What the server says when it would take the same command later.
const PASSING = new Set(['rate_limited', 'overloaded']);

// For a server that says so without saying when.
const RETRY_AFTER_MS = 1000;

export class Outbox {
  #entries = new Set();
  // Commands of the client's own, which the user's wait for; they end with their connection.
  #urgent = new Set();
  #connection = null;
  #isOpen = false;
  #bytesMax = Infinity;
  #window;
  #inFlight = 0;
  #timer = null;
  #clock;
  #max;
  #windowMax;
  #retriesMax;

  constructor({ clock, outboxMax, inFlightMax, retriesMax }) {
    this.#clock = clock;
    this.#max = outboxMax;
    this.#window = inFlightMax;
    this.#windowMax = inFlightMax;
    this.#retriesMax = retriesMax;
  }

  get size() {
    return this.#entries.size;
  }

  /**
   * Queues a command, and gives a promise of what `ok(answer)` returns. `ok` is called in the order of the
   * wire. `pardon(error, wasResent)` may return a value to take an error as success; `isOnce` commands are not
   * sent twice; `isBound` ones are sent whoever waits. The wait ends with `wait`, `{timeoutMs, signal}`.
   */
  add(command, { ok = (answer) => answer, pardon = () => undefined, isOnce = false, isBound = false, wait } = {}) {
    if (this.#entries.size >= this.#max) {
      const error = new RustySocksError('outbox_full', `${this.#max} commands wait for an answer already`);
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const entry = { command, ok, pardon, isOnce, isBound, resolve, reject, sends: 0, refusals: 0, isSent: false };
      this.#entries.add(entry);
      boundWait(entry, { ...wait, clock: this.#clock, end: (error) => this.#abandon(entry, error) });
      this.#pump();
    });
  }

  /** Queues a command before all others, for this connection only. `done(error, answer)` is called once. */
  addUrgent(command, done) {
    const entry = {
      command,
      ok: (answer) => done(null, answer),
      pardon: () => undefined,
      resolve: () => {},
      reject: (error) => done(error),
      sends: 0,
      refusals: 0,
      isSent: false,
    };
    this.#urgent.add(entry);
    this.#pump();
  }

  /** The first command that waits for an answer and that `matches(command, wasSent)` accepts. */
  find(matches) {
    for (const entry of this.#entries) if (matches(entry.command, entry.sends > 0)) return entry;
    return undefined;
  }

  /** Answers a command by what was learned in another way. */
  settle(entry, answer) {
    if (!this.#entries.delete(entry)) return;
    if (entry.isSent) this.#inFlight -= 1;
    this.#take(entry, answer);
  }

  /** There is a session on this connection; so far only urgent commands are sent. */
  attach(connection, { bytesMax }) {
    this.#connection = connection;
    this.#bytesMax = bytesMax ?? Infinity;
    this.#isOpen = false;
    this.#pump();
  }

  /** All commands are sent now. */
  open() {
    this.#isOpen = true;
    this.#pump();
  }

  /** The connection takes commands again. */
  drained() {
    this.#pump();
  }

  detach() {
    this.#connection = null;
    this.#isOpen = false;
    this.#inFlight = 0;
    this.#clock.clearTimeout(this.#timer);
    this.#timer = null;
    this.#urgent.clear();
    for (const entry of this.#entries) {
      if (entry.isSent && entry.isOnce) {
        this.#entries.delete(entry);
        const text = 'the connection was lost before the answer; it may have been done or not';
        entry.reject(new RustySocksError('answer_lost', text));
      }
      entry.isSent = false;
      if (entry.isAbandoned) this.#entries.delete(entry);
    }
  }

  /** Nothing will be sent any more. */
  fail(error) {
    this.detach();
    for (const entry of this.#entries) entry.reject(error);
    this.#entries.clear();
  }

  #pump() {
    if (!this.#connection || this.#timer !== null) return;
    this.#pumpFrom(this.#urgent);
    if (this.#isOpen) this.#pumpFrom(this.#entries);
  }

  #pumpFrom(entries) {
    for (const entry of entries) {
      if (this.#inFlight >= this.#window || this.#connection.isCongested) return;
      if (!entry.isSent) this.#send(entry, entries);
      // An answer may come from within, and a refusal stops everything.
      if (!this.#connection || this.#timer !== null) return;
    }
  }

  #send(entry, entries) {
    const bytes = byteLength(entry.command);
    if (bytes > this.#bytesMax) {
      // The server would end the connection, and for good.
      const text = `the command has ${bytes} bytes, and the server takes ${this.#bytesMax}`;
      entries.delete(entry);
      entry.reject(new RustySocksError('too_large', text));
      return;
    }
    entry.isSent = true;
    entry.sends += 1;
    this.#inFlight += 1;
    this.#connection.ask(entry.command, (error, answer) => {
      if (!entries.has(entry) || !entry.isSent) return;
      this.#inFlight -= 1;
      if (error) this.#refused(entry, entries, error);
      else {
        entries.delete(entry);
        this.#window = Math.min(this.#windowMax, this.#window + 1);
        this.#take(entry, answer);
      }
      this.#pump();
    });
  }

  /** An answer that makes no sense is told to whoever asked, and not to whoever reads the socket. */
  #take(entry, answer) {
    try {
      entry.resolve(entry.ok(answer));
    } catch ({ message }) {
      entry.reject(new RustySocksError('misbehaved', `the server's answer makes no sense: ${message}`));
    }
  }

  #refused(entry, entries, error) {
    entry.refusals += 1;
    if (PASSING.has(error.code) && entry.refusals <= this.#retriesMax && !entry.isAbandoned) {
      // Fewer at a time, because a server that counts errors in a row ends the connection.
      this.#window = Math.max(1, Math.floor(this.#window / 2));
      entry.isSent = false;
      this.#pause(askedMs(error.retry_after_ms) ?? RETRY_AFTER_MS);
      return;
    }
    entries.delete(entry);
    const pardoned = entry.pardon(error, entry.sends > 1);
    if (pardoned === undefined) entry.reject(refusal(error));
    else entry.resolve(pardoned);
  }

  /**
   * Nobody waits for this command any more. One that is out has its answer taken note of, because it tells what the
   * server did; it is not sent again.
   */
  #abandon(entry, makeError) {
    entry.reject(makeError(entry.sends > 0));
    if (entry.isBound) return;
    if (entry.isSent) entry.isAbandoned = true;
    else this.#entries.delete(entry);
  }

  /** What is refused goes first again, so nothing later overtakes it. */
  #pause(ms) {
    if (this.#timer !== null) return;
    this.#timer = this.#clock.setTimeout(() => {
      this.#timer = null;
      this.#pump();
    }, ms);
  }
}

// What `ref` adds to a command, at most.
const REF_BYTES = 30;

function byteLength(command) {
  return new TextEncoder().encode(JSON.stringify(command)).length + REF_BYTES;
}
