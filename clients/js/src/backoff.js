/** When to come back after a connection has ended, and whether to. */

// The longest wait that a server may ask for; a longer one is more likely a broken clock.
const ASKED_MS_MAX = 10 * 60_000;

// The client's own fault by RFC 6455, 7.4.1, which a reconnect would not fix. 1000 is a normal end.
const STOPPING = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

// Temporary refusals below 500: a slow network (RFC 9110, 15.5.9), a proxy that does not replay
// early data (RFC 8470, 5.2), a rate limit (RFC 6585, 4).
const PASSING_STATUSES = new Set([408, 425, 429]);

/**
 * Returns what to do after an end: `stop`, `back_off`, or `at_once`.
 *
 * `status` is the HTTP status of a refused upgrade, if the platform shows it.
 */
export function verdict({ code, status }) {
  if (status !== undefined) return status >= 500 || PASSING_STATUSES.has(status) ? 'back_off' : 'stop';
  if (STOPPING.has(code) || hundreds(code) === 40) return 'stop';
  return hundreds(code) === 42 ? 'at_once' : 'back_off';
}

function hundreds(code) {
  return Math.floor(code / 100);
}

/** Exponential backoff with full jitter. It keeps no clock: it is told how long a connection lived. */
export class Backoff {
  #baseMs;
  #capMs;
  #settledMs;
  #random;
  #attempt = 0;
  #askedMs = 0;

  constructor({ baseMs, capMs, settledMs, random }) {
    this.#baseMs = baseMs;
    this.#capMs = capMs;
    this.#settledMs = settledMs;
    this.#random = random;
  }

  /** How many ends came in a row, without a connection that lasted. */
  get attempt() {
    return this.#attempt;
  }

  /** What the server asked for with the last end: the least of the delay. */
  get askedMs() {
    return this.#askedMs;
  }

  /** Begins anew. */
  reset() {
    this.#attempt = 0;
  }

  /**
   * Returns a random delay for clients that all see the same network change, so that they do not
   * reconnect at once.
   */
  spread() {
    return this.#random() * Math.min(this.#capMs, this.#baseMs);
  }

  /**
   * Returns the delay in milliseconds before the next connection, or `null` for none.
   *
   * `livedMs` is the duration of the session, `retryAfterMs` the delay from the HTTP answer, and
   * `reconnectAfterMs` that from a `closing` frame. `offline` says that the platform reports no
   * network.
   */
  after({ code, status, livedMs, retryAfterMs, reconnectAfterMs, offline = false }) {
    const means = verdict({ code, status });
    if (means === 'stop') return null;
    this.#askedMs = askedMs(reconnectAfterMs) ?? askedMs(retryAfterMs) ?? 0;
    // Attempts without a network are not counted. But the platform may be wrong: an established
    // connection proves it, and otherwise there is an occasional attempt.
    if (offline && livedMs === undefined) return this.#askedMs + (this.#capMs * (1 + this.#random())) / 2;
    if (livedMs !== undefined && livedMs >= this.#settledMs) this.#attempt = 0;
    const attempt = this.#attempt;
    this.#attempt += 1;
    const jitter = this.#random() * Math.min(this.#capMs, this.#baseMs * 2 ** attempt);
    const told = askedMs(reconnectAfterMs);
    // The server has already spread its clients, so its delay is used unchanged the first time. If
    // it repeats, it is only the minimum delay.
    if (told !== undefined) return attempt === 0 ? told : Math.max(told, jitter);
    if (means === 'at_once' && attempt === 0) return 0;
    return (askedMs(retryAfterMs) ?? 0) + jitter;
  }
}

/** A wait that the server asks for, within bounds; `undefined` if it is no number. */
export function askedMs(ms) {
  if (typeof ms !== 'number' || Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, 0), ASKED_MS_MAX);
}
