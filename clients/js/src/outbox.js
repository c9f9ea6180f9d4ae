/**
 * The unanswered commands, in order, across connections.
 *
 * A command is sent again on the next connection if its connection ended before the answer, and
 * after a delay if the server was busy. Sending obeys the server's rate limits.
 */
import { askedMs } from './backoff.js';
import { Command, isMembership, touches } from './command.js';
import { RustySocksError, refusal } from './errors.js';
import { Rate } from './rate.js';
import { boundWait } from './wait.js';

// Errors after which the server would accept the command later.
const PASSING = new Set(['rate_limited', 'overloaded']);

// The delay if the server does not state one.
const RETRY_AFTER_MS = 1000;

// Fewer errors in a row than the server's limit, which is 10 by default.
const STREAK_MAX = 8;

const WAIT_MS_MAX = 10 * 60_000;

export class Outbox {
  #entries = new Set();
  // Internal commands, which go before the user's and end with their connection.
  #urgent = new Set();
  #bytes = 0;
  #connection = null;
  #isOpen = false;
  #isPumping = false;
  #isPumpDue = false;
  #commandBytesMax = Infinity;
  #rate;
  #window;
  #windowMax;
  #inFlight = 0;
  // The errors in a row that this connection may have once all sent commands are answered.
  #streak = 0;
  // Pauses sending until a refused command may be repeated.
  #pauseTimer = null;
  #pausedUntil = 0;
  // Pauses sending until the server's rate allows the next command.
  #rateTimer = null;
  #clock;
  #max;
  #bytesMax;
  #inFlightMax;
  #retriesMax;

  constructor({ clock, outboxMax, outboxBytesMax, inFlightMax, retriesMax }) {
    this.#clock = clock;
    this.#max = outboxMax;
    this.#bytesMax = outboxBytesMax;
    this.#inFlightMax = inFlightMax;
    this.#retriesMax = retriesMax;
    this.#rate = new Rate({}, clock);
    this.#window = inFlightMax;
    this.#windowMax = inFlightMax;
  }

  get size() {
    return this.#entries.size;
  }

  /**
   * Queues a command, and gives a promise of what `ok(answer)` returns. `queued()` is called when
   * it has its place and nothing of it was sent, and `ok` in the order of the wire. `pardon(error,
   * wasResent)` may return a value to take an error as success. `isOnce` commands are not sent
   * twice, and `isFirm` ones are tried without end, whoever waits. The wait for the answer ends
   * with `wait`, `{timeoutMs, signal}`; `withdrawn()` is called if the command is given up with it.
   */
  add(
    command,
    { queued, withdrawn, ok = (answer) => answer, pardon = () => undefined, isOnce = false, isFirm = false, wait } = {},
  ) {
    if (this.#entries.size >= this.#max) {
      const error = new RustySocksError('outbox_full', `${this.#max} commands wait for an answer already`);
      return Promise.reject(error);
    }
    if (this.#bytes + command.bytes > this.#bytesMax) {
      const text = `the commands that wait for an answer have ${this.#bytes} bytes, and this one ${command.bytes}: more than ${this.#bytesMax}`;
      return Promise.reject(new RustySocksError('outbox_full', text));
    }
    return new Promise((resolve, reject) => {
      const entry = {
        command,
        withdrawn,
        ok,
        pardon,
        isOnce,
        isFirm,
        resolve,
        reject,
        sends: 0,
        refusals: 0,
        isSent: false,
        isAbandoned: false,
      };
      boundWait(entry, { ...wait, clock: this.#clock, end: (makeError) => this.#abandon(entry, makeError) });
      this.#entries.add(entry);
      this.#bytes += command.bytes;
      queued?.();
      this.#pump();
    });
  }

  /** Queues a command before all others, for this connection only. `done(error, answer)` is called once. */
  addUrgent(fields, done) {
    const entry = {
      command: new Command(fields),
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

  /** The commands that are sent and wait for an answer. */
  sent() {
    return [...this.#entries].filter(({ isSent }) => isSent).map(({ command }) => command);
  }

  /** The joins and leaves that wait for an answer, in order. */
  memberships() {
    return [...this.#entries].map(({ command }) => command).filter(isMembership);
  }

  /** Answers a command by what was learned in another way. */
  settle(entry, answer) {
    if (!this.#remove(entry, this.#entries)) return;
    if (entry.isSent) this.#answered(entry.command.bytes);
    this.#take(entry, answer);
  }

  /**
   * There is a session on this connection; so far only urgent commands are sent. `bytesMax` is the
   * largest command, `limits` what the welcome says of rates, absent from older servers, and `sent`
   * what was sent before.
   */
  attach(connection, { bytesMax, limits, sent }) {
    this.#connection = connection;
    this.#commandBytesMax = bytesMax ?? Infinity;
    this.#rate = new Rate({ messages: limits?.rate_messages, bytes: limits?.rate_bytes, sent }, this.#clock);
    // A server that tells no limits may have one, and all that is in flight would be refused by it
    // in a row.
    this.#windowMax = limits ? this.#inFlightMax : Math.min(this.#inFlightMax, STREAK_MAX);
    this.#window = Math.min(this.#window, this.#windowMax);
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
    this.#streak = 0;
    this.#clock.clearTimeout(this.#pauseTimer);
    this.#clock.clearTimeout(this.#rateTimer);
    this.#pauseTimer = null;
    this.#rateTimer = null;
    this.#urgent.clear();
    for (const entry of this.#entries) {
      if (entry.isSent && entry.isOnce) {
        this.#remove(entry, this.#entries);
        const text = 'the connection was lost before the answer; it may have been done or not';
        entry.reject(new RustySocksError('answer_lost', text));
      }
      entry.isSent = false;
      if (entry.isAbandoned) this.#withdraw(entry);
    }
  }

  /** Nothing will be sent any more. */
  fail(error) {
    this.detach();
    for (const entry of this.#entries) entry.reject(error);
    this.#entries.clear();
    this.#bytes = 0;
  }

  #pump() {
    // An answer may come from within a send; then the outermost call begins again.
    this.#isPumpDue = true;
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#isPumpDue) {
        this.#isPumpDue = false;
        this.#pumpFrom(this.#urgent);
        if (this.#isOpen) this.#pumpFrom(this.#entries);
      }
    } finally {
      this.#isPumping = false;
    }
  }

  #pumpFrom(entries) {
    const memberships = [];
    for (const entry of entries) {
      if (!this.#maySend()) return;
      const { command } = entry;
      if (isMembership(command)) {
        // Refused for the moment and sent again, the first would come after the second.
        const mustWait = memberships.some((room) => touches(room, command.room));
        if (!entry.isSent && mustWait) return;
        memberships.push(command.room);
      }
      if (!entry.isSent && !this.#send(entry, entries)) return;
    }
  }

  #maySend() {
    if (this.#connection === null || this.#connection.isCongested) return false;
    return this.#pauseTimer === null && this.#inFlight < this.#window;
  }

  /** Sends a command or refuses it for good, and says whether that could be done now. */
  #send(entry, entries) {
    const { bytes } = entry.command;
    if (bytes > this.#commandBytesMax) {
      // The server would close the connection with 1009, which ends the client.
      const text = `the command has ${bytes} bytes, and the server takes ${this.#commandBytesMax}`;
      this.#remove(entry, entries);
      entry.reject(new RustySocksError('too_large', text));
      return true;
    }
    if (this.#streak >= STREAK_MAX && !this.#sendPing()) return false;
    if (!this.#mayByRate(bytes)) return false;
    entry.isSent = true;
    entry.sends += 1;
    this.#streak += 1;
    const connection = this.#ask(entry.command, bytes, (error, answer) => {
      if (!entries.has(entry) || !entry.isSent) return;
      entry.isSent = false;
      this.#answered(entry.command.bytes, error);
      if (error) this.#refused(entry, entries, error);
      else {
        this.#remove(entry, entries);
        this.#succeeded();
        this.#window = Math.min(this.#windowMax, this.#window + 1);
        this.#take(entry, answer);
      }
      if (connection === this.#connection) this.#pump();
    });
    return true;
  }

  /**
   * Its answer ends a row of errors: a mistake of the caller's that is made often must not end the
   * connection.
   */
  #sendPing() {
    const ping = new Command({ type: 'ping' });
    if (!this.#mayByRate(ping.bytes)) return false;
    this.#streak = 0;
    const connection = this.#ask(ping, ping.bytes, (error) => {
      if (connection !== this.#connection) return;
      this.#answered(ping.bytes, error);
      if (!error) this.#succeeded();
      else {
        this.#streak = STREAK_MAX;
        if (PASSING.has(error.code)) this.#pause(error);
      }
      this.#pump();
    });
    return this.#maySend();
  }

  #ask(command, bytes, answer) {
    const connection = this.#connection;
    this.#inFlight += 1;
    this.#rate.sent(bytes);
    try {
      connection.ask(command, answer);
    } catch ({ message }) {
      // The socket is at fault, not the command.
      connection.abort(`the socket does not send: ${message}`);
    }
    return connection;
  }

  #mayByRate(bytes) {
    const waitMs = this.#rate.waitMs(bytes);
    if (waitMs <= 0) return true;
    this.#clock.clearTimeout(this.#rateTimer);
    this.#rateTimer = null;
    if (waitMs === Infinity) return false;
    this.#rateTimer = this.#clock.setTimeout(() => {
      this.#rateTimer = null;
      this.#pump();
    }, Math.min(Math.ceil(waitMs), WAIT_MS_MAX));
    return false;
  }

  #answered(bytes, error) {
    this.#inFlight -= 1;
    if (error?.code === 'rate_limited') this.#rate.refused(bytes, waitMs(error));
    else this.#rate.answered(bytes);
  }

  /** What was sent before it counts no more. */
  #succeeded() {
    this.#streak = Math.min(this.#streak, this.#inFlight);
  }

  #remove(entry, entries) {
    const wasThere = entries.delete(entry);
    if (wasThere && entries === this.#entries) this.#bytes -= entry.command.bytes;
    return wasThere;
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
    const mayRetry = entry.isFirm || (entry.refusals <= this.#retriesMax && !entry.isAbandoned);
    if (PASSING.has(error.code)) {
      // Send fewer at a time, and nothing before the delay is over.
      this.#window = Math.max(1, Math.floor(this.#window / 2));
      this.#pause(error);
      if (mayRetry) return;
    } else if (error.code === 'not_member' && mayRetry && this.#isBehindMembership(entry)) {
      return;
    }
    this.#remove(entry, entries);
    const pardoned = entry.pardon(error, entry.sends > 1);
    if (pardoned === undefined) entry.reject(refusal(error));
    else entry.resolve(pardoned);
  }

  /**
   * Whether a join that was to come first was refused for the moment: then this one follows it
   * again.
   */
  #isBehindMembership({ command }) {
    for (const earlier of this.#entries) {
      if (earlier.command === command) return false;
      const names = command.rooms ?? [command.room];
      const isJoin = earlier.command.type === 'join' && names.some((room) => touches(earlier.command.room, room));
      if (isJoin) return true;
    }
    return false;
  }

  /**
   * Nobody waits for this command any more. One that is out has its answer taken note of, because
   * it tells what the server did; it is not sent again.
   */
  #abandon(entry, makeError) {
    entry.reject(makeError(entry.sends > 0));
    if (entry.isFirm) return;
    entry.isAbandoned = true;
    if (!entry.isSent) this.#withdraw(entry);
    this.#pump();
  }

  #withdraw(entry) {
    if (this.#remove(entry, this.#entries)) entry.withdrawn?.();
  }

  /** What is refused goes first again, so nothing later overtakes it. */
  #pause(error) {
    const ms = waitMs(error);
    const until = this.#clock.now() + ms;
    if (this.#pauseTimer !== null && until <= this.#pausedUntil) return;
    this.#clock.clearTimeout(this.#pauseTimer);
    this.#pausedUntil = until;
    this.#pauseTimer = this.#clock.setTimeout(() => {
      this.#pauseTimer = null;
      this.#pump();
    }, ms);
  }
}

/** When the server would take again what it refused for the moment. */
function waitMs(error) {
  return askedMs(error.retry_after_ms) ?? RETRY_AFTER_MS;
}
