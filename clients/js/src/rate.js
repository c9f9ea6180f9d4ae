/**
 * How much may be sent on one connection: the server's own token buckets, seen from here.
 *
 * The server takes a message out of its bucket at some time between sending and answer. Here it is
 * reserved when it is sent and taken out at the answer, so this bucket never has more than the
 * server's: a network that delays messages and delivers them together causes no refusal.
 */

// The part of the server's refill that is used: pings are not counted here.
const SHARE = 0.95;

export class Rate {
  #messages;
  #bytes;
  #clock;

  /**
   * `messages` and `bytes` are what the server allows in a second; anything but a positive number
   * means no limit. `sent` is what this connection has sent already, `{messages, bytes}`.
   */
  constructor({ messages, bytes, sent = { messages: 0, bytes: 0 } }, clock) {
    this.#clock = clock;
    // One is kept for a ping that finds the bucket empty.
    this.#messages = bucket(messages, Math.max(1, messages - 1), sent.messages, clock.now());
    this.#bytes = bucket(bytes, bytes, sent.bytes, clock.now());
  }

  /** How long to wait before sending that many bytes, in milliseconds; `Infinity` until an answer comes. */
  waitMs(bytes) {
    const now = this.#clock.now();
    return Math.max(this.#messages?.waitMs(1, now) ?? 0, this.#bytes?.waitMs(bytes, now) ?? 0);
  }

  sent(bytes) {
    this.#messages?.sent(1);
    this.#bytes?.sent(bytes);
  }

  /** Takes the oldest message out: its answer has come. */
  answered(bytes) {
    const now = this.#clock.now();
    this.#messages?.answered(1, now);
    this.#bytes?.answered(bytes, now);
  }

  /** The message was refused, and may be sent again after that time. */
  refused(bytes, waitMs) {
    const now = this.#clock.now();
    this.#messages?.refused(1, waitMs, now);
    this.#bytes?.refused(bytes, waitMs, now);
  }
}

class Bucket {
  #size;
  #perMs;
  #level;
  #inFlight = 0;
  #at;

  constructor(size, perSecond, now) {
    this.#size = size;
    this.#level = size;
    this.#perMs = (perSecond / 1000) * SHARE;
    this.#at = now;
  }

  waitMs(amount, now) {
    this.#refill(now);
    // A message larger than the bucket passes when it is full, and is paid for afterwards.
    const wanted = Math.min(amount, this.#size) + this.#inFlight;
    if (wanted <= this.#level) return 0;
    return wanted > this.#size ? Infinity : (wanted - this.#level) / this.#perMs;
  }

  sent(amount) {
    this.#inFlight += amount;
  }

  answered(amount, now) {
    this.#refill(now);
    this.#inFlight -= amount;
    this.#level -= amount;
  }

  /** Corrects the bucket: it will hold enough for this message after `waitMs`, and no more. */
  refused(amount, waitMs, now) {
    this.#refill(now);
    this.#inFlight -= amount;
    this.#level = Math.min(this.#level, Math.min(amount, this.#size) - waitMs * this.#perMs);
  }

  #refill(now) {
    this.#level = Math.min(this.#size, this.#level + (now - this.#at) * this.#perMs);
    this.#at = now;
  }
}

function bucket(perSecond, size, sent, now) {
  if (!(Number.isFinite(perSecond) && perSecond > 0)) return null;
  const made = new Bucket(size, perSecond, now);
  made.sent(sent);
  made.answered(sent, now);
  return made;
}
