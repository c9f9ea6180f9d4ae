/**
 * Schedules the next connection: after the backoff, or earlier after a change of network or page.
 */
import { setDatedTimeout } from './clock.js';

// The shortest time between two attempts caused by such changes.
const ATTEMPT_GAP_MS = 1_000;

// How often to check the clock, to detect that the machine has slept.
const TICK_MS = 10_000;

export class Reconnect {
  #clock;
  #platform;
  #backoff;
  #connect;
  #timer = null;
  #dueAt = Infinity;
  #begunAt = -Infinity;
  // The earliest time of an attempt that the server allows.
  #notBefore = -Infinity;
  #tick = null;
  #unwatch = () => {};

  /** `connect()` is called for each next connection. */
  constructor({ clock, platform, backoff, connect }) {
    this.#clock = clock;
    this.#platform = platform;
    this.#backoff = backoff;
    this.#connect = connect;
  }

  /** Calls `tell` with `online`, `offline` or `wake` from now on. */
  watch(tell) {
    this.#unwatch = this.#platform.watch(tell);
    const tick = () => {
      this.#tick = setDatedTimeout(
        this.#clock,
        (wasLate) => {
          tick();
          if (wasLate) tell('wake');
        },
        TICK_MS,
      );
    };
    tick();
  }

  /** A connection begins. */
  begun() {
    this.cancel();
    this.#begunAt = this.#clock.now();
  }

  /** Whether the connection that was begun last may be given up for another one. */
  get mayBeginAnew() {
    return this.#clock.now() - this.#begunAt >= ATTEMPT_GAP_MS;
  }

  /**
   * Plans the next connection after an end. Returns `{delayMs, attempt, offline}`, or `null` for
   * none.
   */
  after(end) {
    const offline = !this.#platform.isOnline();
    const backoffMs = this.#backoff.after({ ...end, offline });
    if (backoffMs === null) return null;
    this.#notBefore = this.#clock.now() + this.#backoff.askedMs;
    // That the page slept is told before its connection is found to be gone: the same change of the
    // world.
    const delayMs = end.wasChecked && !offline ? Math.min(backoffMs, this.#leastMs()) : backoffMs;
    this.#plan(delayMs);
    return { delayMs, attempt: this.#backoff.attempt, offline };
  }

  /** Brings the next connection forward, but not to before what the server has asked for. */
  hasten() {
    if (this.#timer !== null) this.#plan(this.#leastMs());
  }

  /** Begins a connection in a moment, whatever was planned; its backoff begins anew. */
  now() {
    this.#backoff.reset();
    this.#plan(0);
  }

  cancel() {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = null;
    this.#dueAt = Infinity;
  }

  /** Plans nothing any more, and watches nothing. */
  end() {
    this.cancel();
    this.#clock.clearTimeout(this.#tick);
    this.#unwatch();
  }

  /** How soon a change of the world may begin a connection. */
  #leastMs() {
    const least = Math.max(this.#notBefore, this.#begunAt + ATTEMPT_GAP_MS) - this.#clock.now();
    return Math.max(least, 0) + this.#backoff.spread();
  }

  /** The earlier of two plans holds. */
  #plan(delayMs) {
    const dueAt = this.#clock.now() + delayMs;
    if (dueAt >= this.#dueAt) return;
    this.cancel();
    this.#dueAt = dueAt;
    this.#timer = this.#clock.setTimeout(() => {
      this.cancel();
      this.#connect();
    }, delayMs);
  }
}
