/** One connection: commands and their answers, signs of life, and its one end. */
import { setDatedTimeout } from './clock.js';
import { textOf } from './command.js';

// The answer is recognised by its type, so all pings have one `ref`.
const PING = JSON.stringify({ type: 'ping', ref: 'ping' });

// How often to poll a congested connection; no platform has an event for it.
const DRAIN_POLL_MS = 50;

export class Connection {
  #socket;
  #clock;
  #handlers;
  #answers = new Map();
  #nextRef = 1;
  #isOver = false;
  #openTimer;
  #lifeTimer = null;
  #pingMs;
  #graceMs;
  // The unanswered ping: `{graceMs, isCheck, wasAsleep, unsent}`.
  #ping = null;
  #unsentBytesMax;
  #drainTimer = null;
  #silenceMs = Infinity;
  #reconnectAfterMs;
  #greetedAt;
  // Whether any frame has come.
  #hasHeard = false;

  /**
   * The handlers are `open()`, `received(bytes)` for each text, `frame(frame)` for each frame that
   * is not an answer, `drained()` when the connection is no longer congested, and `over(end)`,
   * once, with `code`, `reason`, `livedMs`, `wasChecked`, `hasHeard` and the delays that the server
   * asked for.
   */
  constructor({ socket, clock, openTimeoutMs, unsentBytesMax, open, received, frame, drained, over }) {
    this.#socket = socket;
    this.#clock = clock;
    this.#unsentBytesMax = unsentBytesMax;
    this.#handlers = { received, frame, drained, over };
    this.#openTimer = clock.setTimeout(
      () => this.abort(`no session within ${openTimeoutMs} ms`),
      openTimeoutMs,
    );
    socket.onopen = () => this.#isOver || open();
    socket.onmessage = ({ data }) => this.#received(data);
    socket.onlife = () => this.#heard();
    socket.onclose = (end) => this.#over(end);
  }

  /** Whether there is a session on it. */
  get isGreeted() {
    return this.#greetedAt !== undefined;
  }

  /** Whether so much waits to be sent that commands should wait instead. */
  get isCongested() {
    return this.#socket.bufferedAmount >= this.#unsentBytesMax;
  }

  /**
   * Sends a command. `answer(error, frame)` is called in the order of the answers, before the next
   * frame is handled; never, if the connection ends first.
   */
  ask(command, answer) {
    if (this.#isOver) return;
    const ref = this.#nextRef;
    this.#nextRef += 1;
    this.#answers.set(ref, answer);
    this.#socket.send(textOf(command, ref));
    if (this.isCongested) this.#awaitDrain();
  }

  /** There is a session: from now on a quiet server is asked whether it is still there. */
  greeted({ pingMs, silenceMs }) {
    this.#clock.clearTimeout(this.#openTimer);
    this.#greetedAt = this.#clock.now();
    this.#silenceMs = silenceMs;
    this.#pingMs = pingMs;
    this.#graceMs = Math.max(silenceMs - pingMs, 1);
    this.#awaitQuiet();
  }

  /**
   * Pings the server now, and aborts the connection if it does not answer within `graceMs`. Returns
   * `false` if there is no session.
   */
  check(graceMs) {
    if (this.#isOver || !this.isGreeted) return false;
    if (!this.#ping?.isCheck) this.#sendPing(graceMs, true);
    return true;
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** Gives the connection up. The session is kept by the server. */
  abort(reason) {
    if (this.#isOver) return;
    this.#over({ code: 1006, reason });
    this.#socket.terminate();
  }

  /** As `abort`, without telling anybody. */
  discard() {
    this.#handlers.over = () => {};
    this.abort('discarded');
  }

  #received(data) {
    if (this.#isOver) return;
    const frame = parse(data);
    this.#hasHeard = true;
    this.#heard(frame?.type === 'pong');
    if (!frame) return this.abort('the server sent what is no JSON object');
    this.#handlers.received(data.length);
    if (frame.type === 'closing') this.#reconnectAfterMs = frame.reconnect_after_ms;
    const isAnswer = ['ok', 'pong', 'error'].includes(frame.type);
    const answer = isAnswer ? this.#answers.get(frame.ref) : undefined;
    this.#answers.delete(frame.ref);
    try {
      if (!answer) this.#handlers.frame(frame);
      else if (frame.type === 'error') answer(frame);
      else answer(null, frame);
    } catch ({ message }) {
      // Missing or malformed fields. The session can be resumed.
      this.abort(`the server sent a frame that makes no sense: ${message}`);
    }
    return undefined;
  }

  #awaitQuiet() {
    this.#ping = null;
    this.#clock.clearTimeout(this.#lifeTimer);
    this.#lifeTimer = this.#clock.setTimeout(() => this.#sendPing(this.#graceMs, false), this.#pingMs);
  }

  #sendPing(graceMs, isCheck) {
    // On a congested connection the ping would wait too long, so any sign of life counts.
    const isAsked = !this.isCongested;
    if (isAsked) this.#socket.send(PING);
    this.#ping = { graceMs, isCheck: isCheck && isAsked, wasAsleep: false, unsent: this.#unsent };
    this.#awaitSign();
  }

  #awaitSign() {
    this.#clock.clearTimeout(this.#lifeTimer);
    this.#lifeTimer = setDatedTimeout(this.#clock, (wasLate) => this.#missedSign(wasLate), this.#ping.graceMs);
  }

  #missedSign(wasLate) {
    const { graceMs, isCheck, wasAsleep, unsent } = this.#ping;
    if (this.#unsent > 0 && this.#unsent < unsent) {
      // The ping may wait behind earlier data. A server that reads that data is alive.
      this.#ping.unsent = this.#unsent;
      this.#awaitSign();
    } else if (wasLate && !wasAsleep) {
      // The page or the machine slept, and the answer may not have been read. Ping once more.
      this.#sendPing(graceMs, isCheck);
      this.#ping.wasAsleep = true;
    } else {
      this.abort('the server went silent');
    }
  }

  get #unsent() {
    return this.#socket.bufferedAmount ?? 0;
  }

  /**
   * Notes a sign of life. Only the answer ends a check, because other data may be older than the
   * check.
   */
  #heard(isPong = false) {
    if (!this.#ping) return;
    if (this.#ping.isCheck && !isPong) this.#awaitSign();
    else this.#awaitQuiet();
  }

  /**
   * Polls until there is less to send. Aborts the connection if the server reads nothing for as
   * long as it may be silent; otherwise commands could wait forever.
   */
  #awaitDrain() {
    if (this.#drainTimer !== null) return;
    let least = Infinity;
    let movedAt = this.#clock.now();
    const look = () => {
      this.#drainTimer = null;
      const bytes = this.#socket.bufferedAmount;
      if (bytes < this.#unsentBytesMax) return this.#handlers.drained();
      const now = this.#clock.now();
      if (bytes < least) movedAt = now;
      least = Math.min(least, bytes);
      if (now - movedAt >= this.#silenceMs) {
        return this.abort(`the server takes nothing: ${bytes} bytes wait to be sent`);
      }
      this.#drainTimer = this.#clock.setTimeout(look, DRAIN_POLL_MS);
      return undefined;
    };
    look();
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#clock.clearTimeout(this.#openTimer);
    this.#clock.clearTimeout(this.#lifeTimer);
    this.#clock.clearTimeout(this.#drainTimer);
    this.#answers.clear();
    const wasChecked = this.#ping?.isCheck ?? false;
    const livedMs = this.#greetedAt === undefined ? undefined : this.#clock.now() - this.#greetedAt;
    this.#handlers.over({ ...end, livedMs, wasChecked, hasHeard: this.#hasHeard, reconnectAfterMs: this.#reconnectAfterMs });
  }
}

function parse(data) {
  if (typeof data !== 'string') return null;
  try {
    const frame = JSON.parse(data);
    return typeof frame === 'object' && frame !== null && !Array.isArray(frame) ? frame : null;
  } catch {
    return null;
  }
}
