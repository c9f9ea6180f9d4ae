/** What must be remembered to go on as the same client: the session, its rooms, and whose messages are ours. */

// Sessions that were lost in a row, whose messages are still known as ours.
const OLD_IDS_MAX = 16;

export class Session {
  token = null;
  clientId = null;
  /** The number of the last direct message that was yielded. */
  direct = 0;
  /** How each room and pattern that we want to be in was joined: `{presence, sender}`. */
  wanted = new Map();
  #ids = new Set();
  // Ids of messages that we published with `echo` and have not been given yet.
  #echoes = new Set();
  #echoesMax;

  constructor({ echoesMax }) {
    this.#echoesMax = echoesMax;
  }

  /** The identity of this connection. Returns the one before. */
  identify(clientId, token) {
    const before = this.clientId;
    this.clientId = clientId;
    this.token = token ?? null;
    this.#ids.add(clientId);
    if (this.#ids.size > OLD_IDS_MAX) this.#ids.delete(this.#ids.values().next().value);
    return before;
  }

  isMine(message) {
    return this.#ids.has(message.client_id);
  }

  expectEcho(id) {
    this.#echoes.add(id);
    if (this.#echoes.size > this.#echoesMax) this.#echoes.delete(this.#echoes.values().next().value);
  }

  /** Whether a message of ours was to come back; asked once. */
  takeEcho(id) {
    return this.#echoes.delete(id);
  }

  /** As plain data. */
  save(tracker) {
    const rooms = tracker.names().map((name) => {
      const { epoch, seq, via } = tracker.room(name);
      return { room: name, epoch, seq, ...(via ? { pattern: via } : {}), ...this.wanted.get(name) };
    });
    const patterns = [...this.wanted.keys()].filter(isPattern);
    return { token: this.token, clientId: this.clientId, direct: this.direct, rooms, patterns };
  }

  /** From what `save` gave. */
  restore({ token, clientId, direct, rooms = [], patterns = [] }, tracker) {
    this.identify(clientId, token);
    this.direct = direct ?? 0;
    for (const pattern of patterns) this.wanted.set(pattern, {});
    for (const { room, epoch, seq, pattern, presence, sender } of rooms) {
      if (!pattern) this.wanted.set(room, clean({ presence, sender }));
      tracker.start(room, { epoch, seq, via: pattern });
    }
  }

  /** The pattern of ours that a room matches, if any. */
  patternOf(room) {
    return [...this.wanted.keys()].find((pattern) => isPattern(pattern) && matches(pattern, room));
  }
}

export function isPattern(name) {
  return name.endsWith('.*');
}

/** `prices.*` matches `prices.eur` and `prices.eur.spot`, and not `prices`. */
function matches(pattern, room) {
  return room.startsWith(pattern.slice(0, -1)) && room.length >= pattern.length;
}

/** Without the fields that are undefined, which JSON leaves out but `in` and a spread do not. */
export function clean(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
