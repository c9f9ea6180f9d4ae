/**
 * Tracks which messages of each room were yielded, and the order in which the rest may be: `tracked-room.js`
 * has what is kept of a room. No I/O and no clock.
 */
import { addBounded } from './bounded.js';
import {
  forgetPlaces,
  held,
  inOrder,
  isAhead,
  isBefore,
  placesOf,
  reach,
  seqIn,
  upTo,
  weigh,
  withHoles,
} from './tracked-room.js';
import { Weight } from './weight.js';

export class Tracker {
  #rooms = new Map();
  // The rooms with something in their queue.
  #busy = new Set();
  // Yielded messages to several rooms: joining one of these rooms later may deliver one again.
  #recent = new Set();
  #draining = false;
  #paused = false;
  #holdMax;
  #holdBytesMax;
  #weight;
  #roomsMax;
  #full;
  #deliver;
  #lost;
  #fetch;

  /**
   * `deliver(message, isReplay)` yields, `lost({room, epoch, from, to, reason})` reports, and
   * `fetch(room, after)` asks for a page of history, to be answered by `fill` or `unfilled`. `full()` is called
   * for a room beyond `roomsMax`, which is not followed.
   */
  constructor({ holdMax, holdBytesMax = Infinity, roomsMax = Infinity, full = () => {}, deliver, lost, fetch }) {
    this.#holdMax = holdMax;
    this.#holdBytesMax = holdBytesMax;
    this.#weight = new Weight(holdBytesMax);
    this.#roomsMax = roomsMax;
    this.#full = full;
    this.#deliver = deliver;
    this.#lost = lost;
    this.#fetch = fetch;
  }

  has(name) {
    return this.#rooms.has(name);
  }

  /** The room's record: `epoch`, `seq`, `overflow` and `via`, the pattern it was joined through. */
  room(name) {
    return this.#rooms.get(name);
  }

  names() {
    return [...this.#rooms.keys()];
  }

  /** How many messages and ranges wait in the queue of a room. */
  waiting(name) {
    const room = this.#rooms.get(name);
    return room ? held(room) : 0;
  }

  /** Follows a room from this position on. With `replay`, its older messages may come first. */
  start(name, { epoch, seq, overflow, via, replay = false }) {
    if (typeof name !== 'string') throw new TypeError(`${name} is no room`);
    checkEpoch(epoch);
    checkSeq(seq);
    this.stop(name);
    if (this.#rooms.size >= this.#roomsMax) return this.#full();
    this.#rooms.set(name, {
      name,
      epoch,
      seq,
      overflow,
      via,
      replay,
      queue: [],
      spare: new Map(),
      fetching: false,
      // Whether the connection was lost since, and the server has not said yet where the room stands.
      isAway: false,
    });
    return undefined;
  }

  stop(name) {
    const room = this.#rooms.get(name);
    if (!room) return;
    this.#rooms.delete(name);
    this.#busy.delete(room);
    // Rooms that waited for this one to reach a message that they share need not wait any more.
    this.#drain();
  }

  /** Takes a live message. */
  live(message) {
    this.#add(message);
    this.#drain();
  }

  /**
   * Counts bytes that have come, with messages or without. When the waiting messages are too large
   * in total, the largest queue drops its own, to be fetched later.
   */
  received(bytes) {
    if (this.#weight.isDue(bytes)) this.#lighten();
  }

  /** Makes several changes at once: nothing is yielded before `change` has returned. */
  batch(change) {
    const outer = this.#draining;
    this.#draining = true;
    try {
      change();
    } finally {
      this.#draining = outer;
    }
    this.#drain();
  }

  /**
   * Takes the position at which the server resumes a room: the answer to `resume`, or to `join` with `since`.
   *
   * `messages` is everything after our position if `recovered`, and nothing otherwise. The epoch may be new
   * then too, if it began above our position.
   */
  resume(name, { epoch, seq, recovered, messages = [], overflow }) {
    const room = this.#rooms.get(name);
    if (!room) return;
    checkEpoch(epoch);
    checkSeq(seq);
    room.overflow = overflow ?? room.overflow;
    room.fetching = false;
    room.replay = false;
    room.isAway = false;
    const { spare } = room;
    room.spare = new Map();
    this.#clear(room);
    if (recovered) {
      room.epoch = epoch;
      for (const message of messages) {
        const at = seqIn(message, name);
        checkSeq(at);
        if (at > room.seq) this.#put(room, { kind: 'message', seq: at, message, isReplay: true });
      }
      this.#put(room, { kind: 'mark', seq });
    } else if (epoch !== room.epoch) {
      Object.assign(room, { epoch, seq });
      this.#lost({ room: name, epoch, from: null, to: null, reason: 'epoch' });
    } else if (seq > room.seq) {
      this.#putGap(room, room.seq + 1, seq, { spare });
    }
    this.#drain();
  }

  /**
   * The server says that the room goes on at this position, in a new epoch. Up to `seq` its numbers
   * mean what they meant; what is above is of the earlier epoch, and its numbers are given again.
   */
  epoch(name, { epoch, seq }) {
    const before = this.#rooms.get(name);
    if (!before) return;
    checkSeq(seq);
    checkEpoch(epoch);
    const { queue, spare } = before;
    // Own numbers may be ahead of messages that were never sent.
    const heard = reach(before.seq, queue.filter(({ kind }) => kind !== 'own'));
    const known = reach(before.seq, queue);
    const rest = queue.filter((item) => item.seq <= seq).map((item) => upTo(item, seq));
    // A page that is under way is for the record before, and so is not taken for one of this epoch.
    const room = { ...before, epoch, seq: Math.min(before.seq, seq), replay: false, fetching: false, queue: rest };
    room.spare = new Map([...spare].filter(([at]) => at <= seq));
    this.#busy.delete(before);
    this.#rooms.set(name, room);
    this.#noteBusy(room);
    for (const other of this.#rooms.values()) if (other !== room) forgetPlaces(other, name, seq);
    if (heard < seq) this.#putGap(room, heard + 1, seq, { isFinal: room.overflow === 'latest' });
    else if (reach(room.seq, rest) < seq) this.#put(room, { kind: 'mark', seq });
    if (known > seq && epoch !== before.epoch) {
      this.#lost({ room: name, epoch, from: null, to: null, reason: 'epoch' });
    }
    this.#drain();
  }

  /** The server says that it did not deliver `from..=to`. */
  gap(name, from, to) {
    const room = this.#rooms.get(name);
    if (!room) return;
    checkSeq(from);
    checkSeq(to);
    const first = Math.max(from, room.seq + 1);
    if (first <= to) this.#putGap(room, first, to, { isFinal: room.overflow === 'latest' });
    this.#drain();
  }

  /** An own message has this number, and the server will not send it back. */
  own(name, seq) {
    const room = this.#rooms.get(name);
    if (!room || seq <= room.seq) return;
    checkSeq(seq);
    // All earlier messages arrive before the answer to the next command.
    room.replay = false;
    this.#put(room, { kind: 'own', seq });
    this.#drain();
  }

  /** Takes a page of history for the gap at the head of a room. */
  fill(name, { epoch, seq, messages }) {
    const room = this.#rooms.get(name);
    const gap = room?.queue[0];
    if (!room?.fetching || gap?.kind !== 'gap') return;
    checkSeq(seq);
    for (const message of messages) checkSeq(seqIn(message, name));
    room.fetching = false;
    if (epoch !== room.epoch) {
      this.#clear(room);
      Object.assign(room, { epoch, seq });
      this.#lost({ room: name, epoch, from: null, to: null, reason: 'epoch' });
      this.#drain();
      return;
    }
    // A page begins with the oldest message that is kept, so what is missing before or between is gone.
    const last = messages.length > 0 ? seqIn(messages[messages.length - 1], name) : -1;
    const isNothingNew = last < gap.from;
    const upto = isNothingNew ? gap.to : Math.min(gap.to, last);
    const found = new Map([...gap.known].filter(([at]) => at <= upto));
    for (const message of messages) {
      const at = seqIn(message, name);
      if (at >= gap.from && at <= upto && !found.has(at)) {
        found.set(at, { kind: 'message', seq: at, message, isReplay: true });
      }
    }
    this.#addFromOthers(room, found, gap.from, upto);
    const items =
      gap.isSupposed && isNothingNew ? inOrder(found) : withHoles(found, gap.from, upto, 'not_kept');
    room.queue.shift();
    if (upto < gap.to) {
      const known = new Map([...gap.known].filter(([at]) => at > upto));
      room.queue.unshift({ ...gap, seq: upto + 1, from: upto + 1, known });
    }
    room.queue.unshift(...items);
    this.#noteBusy(room);
    this.#drain();
  }

  /** The page cannot be fetched: the messages of the gap are lost. */
  unfilled(name) {
    const room = this.#rooms.get(name);
    if (room) this.fill(name, { epoch: room.epoch, seq: room.seq, messages: [] });
  }

  /**
   * The connection is gone. Waiting messages are put aside: the server sends them again, or they fill a gap.
   */
  interrupt() {
    for (const room of this.#rooms.values()) {
      room.fetching = false;
      room.isAway = true;
      for (const item of room.queue) {
        if (item.kind === 'gap') for (const [at, known] of item.known) room.spare.set(at, known);
        if (item.kind === 'message' || item.kind === 'own') room.spare.set(item.seq, item);
      }
      this.#clear(room);
    }
  }

  /** While paused nothing is yielded, and new messages wait as if behind a gap. */
  set paused(paused) {
    this.#paused = paused;
    this.#drain();
  }

  #add(message) {
    for (const { room: name, seq } of message.rooms ?? [message]) {
      const room = this.#rooms.get(name);
      // Of a room that is away, the server has still to say from where it goes on.
      if (!room || room.isAway) continue;
      checkSeq(seq);
      if (room.replay) {
        // The first message after the welcome shows how far back the replay goes.
        room.seq = Math.min(room.seq, seq - 1);
        room.replay = false;
      }
      if (seq > room.seq) this.#put(room, { kind: 'message', seq, message, isReplay: false });
    }
  }

  /** Inserts in the order of `seq`; nearly always that is at the end. */
  #put(room, item) {
    const { queue } = room;
    let at = queue.length;
    while (at > 0 && queue[at - 1].seq > item.seq) at -= 1;
    const before = queue[at - 1];
    const isFull = held(room) >= this.#holdMax && item.kind !== 'mark';
    if (before && 'to' in before && item.seq <= before.to) {
      if (before === queue[0] && before.kind === 'gap' && !isFull) before.known.set(item.seq, item);
      // The fetch of the gap brings it anyway, so it need not be kept.
      else before.isSupposed = false;
    } else if (before?.seq === item.seq) {
      if (before.kind === 'mark') queue[at - 1] = item;
    } else if (!isFull || at < queue.length) {
      queue.splice(at, 0, item);
    } else if (item.kind === 'message') {
      this.#overflow(room, item.seq);
    }
    this.#noteBusy(room);
  }

  /** The queue is full: from this message on, everything is fetched later. */
  #overflow(room, seq) {
    const last = room.queue[room.queue.length - 1];
    if (last?.kind === 'gap') Object.assign(last, { to: seq, isSupposed: false });
    else room.queue.push({ kind: 'gap', seq, from: seq, to: seq, known: new Map() });
  }

  #putGap(room, from, to, { spare = new Map(), isFinal = false, isSupposed = false }) {
    if (held(room) >= this.#holdMax) return this.#collapse(room, to);
    const known = new Map([...spare].filter(([at]) => at >= from && at <= to));
    const rest = [];
    for (const item of room.queue) {
      if (item.kind !== 'gap' && item.kind !== 'lost' && item.seq >= from && item.seq <= to) {
        if (item.kind !== 'mark') known.set(item.seq, item);
      } else rest.push(item);
    }
    const gap = { kind: 'gap', seq: from, from, to, known, isSupposed };
    const items = isFinal ? withHoles(known, from, to, 'latest') : [gap];
    const at = rest.findIndex((item) => item.seq > from);
    rest.splice(at < 0 ? rest.length : at, 0, ...items);
    room.queue = rest;
    return this.#noteBusy(room);
  }

  /** There are too many gaps: all that waits becomes one gap, which begins where a fetch may be under way. */
  #collapse(room, to) {
    const [head] = room.queue;
    const from = head.kind === 'gap' ? head.from : room.seq + 1;
    const last = room.queue.reduce((most, item) => Math.max(most, item.to ?? item.seq), to);
    room.queue = [{ kind: 'gap', seq: from, from, to: last, known: new Map() }];
  }

  #lighten() {
    const heaviest = [...this.#rooms.values()]
      .map((room) => ({ room, weight: weigh(room) }))
      .sort((a, b) => b.weight - a.weight);
    let total = heaviest.reduce((sum, { weight }) => sum + weight, 0);
    if (total <= this.#holdBytesMax) return;
    for (const { room, weight } of heaviest) {
      room.spare = new Map();
      if (room.queue.length > 0) this.#collapse(room, room.seq);
      total -= weight;
      if (total <= this.#holdBytesMax / 2) return;
    }
  }

  /** A message to several rooms that waits in the queue of another room is not lost for this one. */
  #addFromOthers(room, found, from, upto) {
    for (const other of this.#busy) {
      for (const item of other === room ? [] : other.queue) {
        const at = placesOf(item)?.find((place) => place.room === room.name)?.seq;
        if (at >= from && at <= upto && !found.has(at)) found.set(at, { ...item, seq: at });
      }
    }
  }

  #clear(room) {
    room.queue = [];
    this.#busy.delete(room);
  }

  #noteBusy(room) {
    if (room.queue.length > 0) this.#busy.add(room);
    else this.#busy.delete(room);
  }

  /** Yields all that may be yielded. A listener may call back into the tracker; the outermost call does the work. */
  #drain() {
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (;;) {
        let moved = false;
        for (const room of [...this.#busy]) {
          while (!this.#paused && this.#rooms.get(room.name) === room && this.#step(room, false)) {
            moved = true;
          }
        }
        if (!moved && !this.#breakCircle()) return;
      }
    } finally {
      this.#draining = false;
    }
  }

  /**
   * Two rooms cannot each wait for a message of the other, because a message is numbered in all its rooms at
   * one instant. If a server breaks this, order gives way, not delivery.
   */
  #breakCircle() {
    if (this.#paused) return false;
    const heads = [...this.#busy].map((room) => [room, room.queue[0]]);
    if (heads.some(([, head]) => head.kind === 'gap')) return false;
    const stuck = heads.find(([, head]) => head.kind === 'message');
    // What it waits for may also be a room that the server has still to speak of.
    if (stuck === undefined || [...this.#rooms.values()].some(({ isAway }) => isAway)) return false;
    return this.#step(stuck[0], true);
  }

  /** Takes the head of a room's queue if it may be taken, and says whether it was. */
  #step(room, isForced) {
    const head = room.queue[0];
    if (!head) return false;
    switch (head.kind) {
      case 'gap':
        if (!room.fetching) {
          room.fetching = true;
          this.#fetch(room.name, head.from - 1);
        }
        return false;
      case 'lost':
        this.#take(room, head.to);
        this.#lost({ room: room.name, epoch: room.epoch, from: head.from, to: head.to, reason: head.reason });
        return true;
      case 'own':
        if (isAhead(room, head.seq)) return false;
        this.#take(room, head.seq);
        return true;
      case 'mark':
        this.#take(room, head.seq);
        return true;
      default:
        return this.#stepMessage(room, head, isForced);
    }
  }

  #stepMessage(room, item, isForced) {
    const { seq, message, isReplay } = item;
    if (seq <= room.seq) {
      this.#take(room, seq);
      return true;
    }
    const places = (placesOf(item) ?? [])
      .map((place) => ({ room: this.#rooms.get(place.room), seq: place.seq }))
      .filter((place) => place.room && place.room !== room && (place.room.isAway || place.seq > place.room.seq));
    if (!isForced && this.#mustWait(item, places)) return false;
    this.#take(room, seq);
    // Where earlier messages are still to be yielded, it does not move the room.
    const moved = isForced ? [] : isReplay ? places.filter((place) => !isAhead(place.room, place.seq)) : places;
    for (const place of moved) this.#take(place.room, place.seq);
    if (message.rooms && !this.#isFirst(message)) return true;
    this.#deliver(message, isReplay);
    return true;
  }

  /**
   * Whether something must be yielded before a message in another of its rooms. A replay or a page may
   * overtake what is earlier there: that is asked for, once. If history does not have it, order gives way.
   */
  #mustWait(item, places) {
    if (places.some(({ room }) => room.isAway)) return true;
    const early = item.isReplay && !item.hasAsked ? places.filter(({ room, seq }) => isAhead(room, seq)) : [];
    for (const { room, seq } of early) {
      item.hasAsked = true;
      this.#putGap(room, room.seq + 1, seq - 1, { isSupposed: true });
      this.#step(room, false);
    }
    return places.some(({ room, seq }) => isBefore(room, seq));
  }

  /** Moves a room's position, and drops what is not above it. */
  #take(room, seq) {
    room.seq = Math.max(room.seq, seq);
    while (room.queue.length > 0 && !('to' in room.queue[0]) && room.queue[0].seq <= room.seq) {
      room.queue.shift();
    }
    if (room.queue[0]?.kind === 'lost' && room.queue[0].to <= room.seq) room.queue.shift();
    this.#noteBusy(room);
  }

  #isFirst({ id, rooms }) {
    const key = JSON.stringify([id, rooms[0].room, rooms[0].seq]);
    if (this.#recent.has(key)) return false;
    addBounded(this.#recent, key, this.#holdMax);
    return true;
  }
}

function checkEpoch(epoch) {
  if (typeof epoch !== 'string') throw new TypeError(`${epoch} is no epoch`);
}

/** Numbers end where a double is no longer exact, because one more could not be told apart. */
export function checkSeq(seq) {
  if (!Number.isSafeInteger(seq)) throw new TypeError(`${seq} is no number of a message`);
}
