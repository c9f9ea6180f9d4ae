/** What a client must remember to resume: its session, its rooms, and which messages are its own. */
import { addBounded } from './bounded.js';

// Lost sessions in a row whose messages still count as own.
const OLD_IDS_MAX = 16;

const DECLINED_MAX = 1000;

export class Session {
  token = null;
  clientId = null;
  /** The number of the last direct message that was yielded. */
  direct = 0;
  /** How each wanted room and pattern was joined: `{presence, sender}`. */
  wanted = new Map();
  /**
   * Rooms that were left by name although a joined pattern matches them: a new session must leave
   * them out.
   */
  declined = new Set();
  #ids = new Set();
  // Ids of messages that were published with `echo` and have not come back yet.
  #echoes = new Set();
  #echoesMax;

  constructor({ echoesMax }) {
    this.#echoesMax = echoesMax;
  }

  /** Sets the identity of this connection. Returns the previous one. */
  identify(clientId, token) {
    const before = this.clientId;
    this.clientId = clientId;
    this.token = token ?? null;
    addBounded(this.#ids, clientId, OLD_IDS_MAX);
    return before;
  }

  isMine(message) {
    return this.#ids.has(message.client_id);
  }

  expectEcho(id) {
    addBounded(this.#echoes, id, this.#echoesMax);
  }

  /** Whether an own message was to come back. True once for each. */
  takeEcho(id) {
    return this.#echoes.delete(id);
  }

  /** Returns the session as plain data. */
  save(tracker) {
    const rooms = tracker.names().map((name) => {
      const { epoch, seq, via } = tracker.room(name);
      return { room: name, epoch, seq, ...(via ? { pattern: via } : {}), ...this.wanted.get(name) };
    });
    const patterns = [...this.wanted.keys()].filter(isPattern);
    const declined = this.declined.size > 0 ? { declined: [...this.declined] } : {};
    return { token: this.token, clientId: this.clientId, direct: this.direct, rooms, patterns, ...declined };
  }

  /** Reads what `save` returned. */
  restore(saved, tracker) {
    checkSaved(saved);
    const { token, clientId, direct, rooms = [], patterns = [], declined = [] } = saved;
    this.identify(clientId, token);
    this.direct = direct ?? 0;
    for (const pattern of patterns) this.wanted.set(pattern, {});
    for (const room of declined) this.decline(room);
    for (const { room, epoch, seq, pattern, presence, sender } of rooms) {
      if (!pattern) this.wanted.set(room, clean({ presence, sender }));
      tracker.start(room, { epoch, seq, via: pattern });
    }
    // The server has still to say where they go on.
    if (clientId) tracker.interrupt();
  }

  decline(room) {
    addBounded(this.declined, room, DECLINED_MAX);
  }

  /** The joined pattern that matches a room, if any. */
  patternOf(room) {
    return [...this.wanted.keys()].find((pattern) => isPattern(pattern) && matches(pattern, room));
  }
}

export function isPattern(name) {
  return name.endsWith('.*');
}

/** `prices.*` matches `prices.eur` and `prices.eur.spot`, and not `prices`. */
export function matches(pattern, room) {
  return room.startsWith(pattern.slice(0, -1)) && room.length >= pattern.length;
}

/** Drops the undefined fields, which JSON leaves out but `in` and a spread do not. */
export function clean(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/**
 * Checks what a store returned: it may be anything, and a wrong part would show only much later.
 */
function checkSaved(saved) {
  const isText = (value) => typeof value === 'string';
  const isTextOrNone = (value) => value === undefined || value === null || isText(value);
  const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
  const isTexts = (value) => value === undefined || (Array.isArray(value) && value.every(isText));
  const isPlace = (place) => isText(place?.room) && isText(place.epoch) && isCount(place.seq);
  const isRight =
    typeof saved === 'object' &&
    isTextOrNone(saved.token) &&
    isTextOrNone(saved.clientId) &&
    (saved.direct === undefined || isCount(saved.direct)) &&
    (saved.rooms === undefined || (Array.isArray(saved.rooms) && saved.rooms.every(isPlace))) &&
    isTexts(saved.patterns) &&
    isTexts(saved.declined);
  if (!isRight) throw new TypeError('the option session must be what client.session gave');
}
