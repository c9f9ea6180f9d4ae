/** How a new connection becomes the session that was: `resume`, or joining all rooms again. */
import { Command, touches } from './command.js';
import { clean, isPattern, matches } from './session.js';
import { checkSeq } from './tracker.js';

const BROUGHT_MAX = 10_000;

export class Recovery {
  #session;
  #tracker;
  #outbox;
  #emit;
  #greeted;
  #live;
  #connection = null;
  #welcome = null;
  // What was sent before there was a session: `{messages, bytes}`.
  #sent = { messages: 0, bytes: 0 };
  // `greeting` until there is a session, `resuming` while its answer is awaited, then `rejoining`, then `live`.
  #phase = 'greeting';
  #rejoins = 0;
  // Rooms joined through a pattern of which the server has said nothing since the session was lost.
  #unconfirmed = new Set();
  // Rooms that the server joined through a pattern after the pattern was left: `{place, pattern}`.
  #brought = new Map();
  // The rooms whose gap waits to be fetched: one page is asked for at a time.
  #fetches = [];
  #isFetching = false;
  // Publishes that were sent before a new epoch of one of their rooms: their numbers may be of the earlier one.
  #doubtful = new WeakSet();
  // Rooms whose members were asked for and whose answer is still to come: it will be newer than the question.
  #asked = new Set();

  constructor({ session, tracker, outbox, emit, greeted, live }) {
    this.#session = session;
    this.#tracker = tracker;
    this.#outbox = outbox;
    this.#emit = emit;
    this.#greeted = greeted;
    this.#live = live;
  }

  opened(connection) {
    this.#connection = connection;
    this.#sent = { messages: 0, bytes: 0 };
    if (this.#session.token === null) return;
    this.#phase = 'resuming';
    const rooms = this.#tracker.names().map((room) => {
      const { epoch, seq } = this.#tracker.room(room);
      return { room, epoch, seq };
    });
    const { token, direct } = this.#session;
    const command = new Command({ type: 'resume', session: token, rooms, direct });
    this.#sent = { messages: 1, bytes: command.bytes };
    connection.ask(command, (error, answer) => {
      if (!error) return this.#resumed(answer);
      // Whatever the reason, only the identity from the welcome is left.
      this.#phase = 'greeting';
      if (this.#welcome) this.#begin(this.#welcome);
    });
  }

  /** Whether a frame belongs to the session. Before there is one, only the welcome does. */
  frame(frame) {
    if (frame.type === 'welcome') {
      this.#welcome = frame;
      if (this.#phase === 'greeting') this.#begin(frame);
      return false;
    }
    return this.#phase === 'live' || this.#phase === 'rejoining' || frame.type === 'closing';
  }

  over() {
    this.#connection = null;
    this.#welcome = null;
    this.#phase = 'greeting';
    this.#rejoins = 0;
    this.#unconfirmed.clear();
    this.#brought.clear();
    this.#fetches = [];
    this.#isFetching = false;
    this.#asked.clear();
  }

  /** A session that is new to the server. */
  #begin(welcome) {
    if (typeof welcome.client_id !== 'string') throw new TypeError('a welcome without client_id');
    const previous = this.#session.identify(welcome.client_id, welcome.session);
    this.#session.direct = 0;
    this.#phase = 'rejoining';
    this.#greeted(welcome, this.#sent);
    const event = { clientId: welcome.client_id, resumed: false, previous, welcome };
    this.#emit('session', event);
    const isFirst = previous === null;
    if (isFirst && welcome.room !== undefined) {
      if (!this.#isLeaving(welcome.room)) {
        this.#session.wanted.set(welcome.room, {});
        this.#tracker.start(welcome.room, { ...position(welcome), replay: true });
      }
    } else if (welcome.room !== undefined) {
      // The server joined it regardless of our position, or although we had left it.
      this.#leave(welcome.room);
    }
    if (!isFirst) this.#rejoinAll();
    this.#maybeLive();
  }

  #rejoinAll() {
    this.#unconfirmed = new Set(this.#tracker.names().filter((room) => this.#tracker.room(room).via));
    const names = [...this.#session.wanted.keys()];
    // A room that was joined through a pattern cannot be joined by name.
    for (const name of names) if (!isPattern(name)) this.#rejoin(name);
    for (const name of names) if (isPattern(name)) this.#rejoin(name);
  }

  #rejoin(name) {
    if (isPattern(name)) this.#rejoinPattern(name);
    else this.#rejoinRoom(name);
  }

  #rejoinRoom(room) {
    const wish = this.#session.wanted.get(room);
    const known = this.#tracker.room(room);
    const since = known ? { epoch: known.epoch, seq: known.seq } : undefined;
    const { presence, sender } = wish;
    this.#ask({ type: 'join', room, since, presence, sender }, (error, answer) => {
      // It was left meanwhile, and perhaps joined again: that join has its own answer.
      if (this.#session.wanted.get(room) !== wish) return;
      if (error) return this.#dropped(room, error);
      if (known) this.#tracker.resume(room, answer);
      else this.#tracker.start(room, position(answer));
      return this.#tellMembers(answer);
    });
  }

  #rejoinPattern(pattern) {
    const wish = this.#session.wanted.get(pattern);
    this.#ask({ type: 'join', room: pattern }, (error, answer) => {
      const isWanted = this.#session.wanted.get(pattern) === wish;
      if (error) return isWanted ? this.#dropped(pattern, error) : undefined;
      return this.#tracker.batch(() => {
        for (const place of answer.rooms) this.#broughtAgain(place, isWanted ? pattern : this.#patternOf(place.room), pattern);
      });
    });
  }

  /** A room that a new session joins through `pattern`; `via`, if given, keeps the session in it. */
  #broughtAgain(place, via, pattern) {
    const { room } = place;
    this.#unconfirmed.delete(room);
    if (this.#tracker.has(room)) this.#tracker.resume(room, { ...place, recovered: false });
    else if (this.#isLeaving(room)) return;
    // The new session does not know yet that the room was left by name.
    else if (this.#session.declined.has(room)) this.#leave(room);
    else if (via === undefined) this.#bring(place, pattern);
    else this.#appear(place, via);
  }

  #resumed(answer) {
    this.#session.identify(answer.client_id, answer.session);
    this.#phase = 'rejoining';
    this.#greeted(this.#welcome ?? undefined, this.#sent);
    this.#emit('session', { clientId: answer.client_id, resumed: true, previous: answer.client_id });
    const { wanted } = this.#session;
    const patterns = new Set(answer.patterns ?? []);
    this.#tracker.batch(() => {
      for (const pattern of patterns) {
        const isKnown = wanted.has(pattern) || this.#settleJoin(pattern, answer.rooms) || this.#isLeaving(pattern);
        if (!isKnown) this.#leave(pattern);
      }
      const missing = new Set(this.#tracker.names());
      for (const place of answer.rooms) {
        missing.delete(place.room);
        if (!place.error) this.#takeUp(place, patterns);
        // The server could not just now.
        else if (place.error === 'overloaded' && wanted.has(place.room)) this.#rejoin(place.room);
        else if (this.#tracker.has(place.room)) this.#dropped(place.room, { code: place.error });
        this.#tellMembers(place);
      }
      for (const room of missing) {
        if (wanted.has(room)) this.#rejoin(room);
        else this.#dropped(room, { code: 'not_member' });
      }
    });
    for (const pattern of wanted.keys()) {
      if (isPattern(pattern) && !patterns.has(pattern)) this.#rejoin(pattern);
    }
    const { direct } = answer;
    if (direct && !direct.recovered && direct.seq > this.#session.direct) {
      this.#emit('lost', { direct: true, from: this.#session.direct + 1, to: direct.seq, reason: 'not_kept' });
    }
    this.#maybeLive();
  }

  /**
   * A room that the server says the session is in, with what was missed; `patterns` are those it is
   * in.
   */
  #takeUp(place, patterns) {
    const { room } = place;
    if (this.#tracker.has(room)) return this.#tracker.resume(room, place);
    if (this.#settleJoin(room, [place])) {
      // By that join or through a pattern: the server does not say which, and leaving the pattern would.
      if ([...patterns].some((pattern) => matches(pattern, room)) && this.#session.wanted.has(room)) {
        this.#leave(room);
        this.#rejoin(room);
      }
      return undefined;
    }
    // The room is still to be left, by name or with a pattern.
    const isLeft = (name) => !this.#session.wanted.has(name) && isPattern(name) && matches(name, room);
    if (this.#isLeaving(room)) return undefined;
    if (this.#session.wanted.has(room)) return this.#tracker.start(room, position(place));
    const pattern = this.#patternOf(room);
    if (pattern === undefined) {
      const left = [...patterns].find(isLeft);
      return left === undefined ? this.#leave(room) : this.#bring(place, left);
    }
    return this.#appear(place, pattern);
  }

  /** A room that a pattern matched while the client was away: all of its messages are new. */
  #appear(place, pattern) {
    const { room } = place;
    this.#session.declined.delete(room);
    this.#tracker.start(room, { ...position(place), seq: 0, via: pattern });
    this.#emit('matched', { ...position(place), seq: 0, pattern, room });
    this.#tracker.resume(room, { recovered: false, ...place });
  }

  /** Whether a join was waiting for an answer that was lost with the connection. */
  #settleJoin(name, rooms) {
    const sent = this.#outbox.find(({ type, room }, wasSent) => type === 'join' && room === name && wasSent);
    if (!sent) return false;
    const matching = rooms.filter(({ room, error }) => !error && matches(name, room));
    this.#outbox.settle(sent, isPattern(name) ? { room: name, rooms: matching } : rooms[0]);
    return true;
  }

  /**
   * Whether the user has called `leave` with this very name, and the server has not carried it out
   * yet.
   */
  #isLeaving(name) {
    return this.#outbox.find(({ type, room }) => type === 'leave' && room === name) !== undefined;
  }

  /**
   * The pattern that keeps the session in a room that was joined through a pattern: one that it has
   * joined or is about to join.
   */
  #patternOf(room) {
    const own = this.#session.patternOf(room);
    if (own !== undefined) return own;
    for (const { type, room: name } of this.#outbox.memberships()) {
      // A join after this leave is a new join.
      if (type === 'leave' && touches(name, room)) return undefined;
      if (type === 'join' && isPattern(name) && matches(name, room) && !this.#isLeaving(name)) return name;
    }
    return undefined;
  }

  /**
   * The session is in a room that the user has left: it was saved before, or the leave failed.
   */
  #leave(name) {
    this.#ask({ type: 'leave', room: name }, () => {});
  }

  /** A command that must be answered before the session is restored. */
  #ask(command, done) {
    this.#rejoins += 1;
    const connection = this.#connection;
    this.#outbox.addUrgent(command, (error, answer) => {
      if (connection !== this.#connection) return;
      done(error, answer);
      this.#rejoins -= 1;
      this.#maybeLive();
    });
  }

  #maybeLive() {
    if (this.#phase !== 'rejoining' || this.#rejoins > 0) return;
    // They ended with the session, and no one has made them again.
    for (const room of this.#unconfirmed) if (this.#tracker.has(room)) this.#dropped(room, { code: 'not_member' });
    this.#unconfirmed.clear();
    this.#phase = 'live';
    this.#live();
  }

  #dropped(name, { code }) {
    this.#end(name);
    this.#emit('dropped', { room: name, code });
  }

  /** A new token or new rules do not allow this room, and the server has taken us out of it. */
  excluded(room) {
    if (this.#tracker.has(room)) this.#dropped(room, { code: 'forbidden' });
  }

  /** Takes the answer to a join by the user. */
  joined({ room: name, since, presence, sender }, answer) {
    const { wanted, declined } = this.#session;
    // The user has called `leave` since, and it is still to be carried out.
    const isLeft = this.#isLeaving(name);
    if (isPattern(name)) {
      const rooms = answer.rooms.map(position);
      if (!isLeft) wanted.set(name, {});
      for (const place of rooms) {
        // The room stays when this pattern is left, because another one matches it.
        const via = isLeft ? this.#patternOf(place.room) : name;
        if (via === undefined) this.#bring(place, name);
        else this.#startThrough(via, place);
      }
      // Rooms that were joined before are not listed again.
      for (const { place } of isLeft ? [] : [...this.#brought.values()]) {
        if (matches(name, place.room)) this.#startThrough(name, place);
      }
      return { room: name, rooms };
    }
    if (!isLeft) {
      this.#tracker.start(name, { ...position(answer), ...since });
      wanted.set(name, clean({ presence, sender }));
      declined.delete(name);
      if (since) this.#tracker.resume(name, answer);
    }
    const { recovered, members, count } = answer;
    return clean({ ...position(answer), recovered, members, count });
  }

  #startThrough(pattern, place) {
    const { room } = place;
    if (this.#tracker.has(room) || this.#isLeaving(room)) return;
    this.#brought.delete(room);
    this.#session.declined.delete(room);
    this.#tracker.start(room, { ...position(place), via: pattern });
  }

  /**
   * The server has joined a room through a pattern that was left, and does not know that yet.
   */
  #bring(place, pattern) {
    if (this.#brought.size < BROUGHT_MAX) this.#brought.set(place.room, { place, pattern });
  }

  /** The server has carried out a leave. */
  leaveDone(name) {
    this.#brought.delete(name);
    for (const [room, entry] of this.#brought) {
      if (entry.pattern !== name) continue;
      const isOther = ({ type, room: other }) => type === 'leave' && isPattern(other) && other !== name && matches(other, room);
      const other = this.#outbox.find(isOther);
      if (other) entry.pattern = other.command.room;
      else this.#brought.delete(room);
    }
  }

  /** A join by the user was refused, so it no longer keeps rooms that another pattern matches. */
  notJoined(name) {
    if (isPattern(name) && !this.#session.wanted.has(name)) this.#end(name);
  }

  /**
   * The user leaves a room or pattern, and the command is queued: no more events of it from now on.
   * Returns the names that end, among them that of a join that is not answered yet.
   */
  left(name) {
    if (!isPattern(name) && this.#patternOf(name) !== undefined) this.#session.decline(name);
    const held = this.#tracker.names().map((room) => ({ room, ...position(this.#tracker.room(room)) }));
    const ended = this.#end(name);
    if (isPattern(name)) for (const place of held) if (ended.has(place.room)) this.#bring(place, name);
    if (this.#outbox.find(({ type, room }) => type === 'join' && room === name)) ended.add(name);
    return ended;
  }

  /**
   * There was nothing to leave, so nothing is blocked: a room that is made later is joined through
   * its pattern.
   */
  notLeft(name) {
    this.#session.declined.delete(name);
  }

  /** Forgets a name, and with a pattern the rooms that no other pattern matches. */
  #end(name) {
    const ended = new Set();
    if (this.#session.wanted.delete(name) || this.#tracker.has(name)) ended.add(name);
    this.#tracker.batch(() => {
      this.#tracker.stop(name);
      if (!isPattern(name)) return;
      for (const room of this.#tracker.names()) {
        const record = this.#tracker.room(room);
        if (record.via !== name) continue;
        record.via = this.#patternOf(room);
        if (record.via !== undefined) continue;
        ended.add(room);
        this.#tracker.stop(room);
      }
      const { declined } = this.#session;
      for (const room of declined) if (this.#patternOf(room) === undefined) declined.delete(room);
    });
    return ended;
  }

  matched(frame) {
    const { room, epoch, seq } = frame;
    checkSeq(seq);
    // The frame was on its way when the room or the pattern was left.
    if (this.#isLeaving(room)) return;
    const pattern = this.#isLeaving(frame.pattern) ? this.#patternOf(room) : frame.pattern;
    if (pattern === undefined) {
      this.#bring(position(frame), frame.pattern);
      return;
    }
    this.#session.declined.delete(room);
    if (!this.#tracker.has(room)) this.#tracker.start(room, { ...position(frame), via: pattern });
    else if (this.#tracker.room(room).epoch !== epoch) this.#tracker.resume(room, { ...frame, recovered: false });
    this.#emit('matched', frame);
  }

  /** A room goes on in a new epoch. */
  epoch(frame) {
    if (!this.#tracker.has(frame.room)) return;
    for (const command of this.#outbox.sent()) {
      const rooms = command.rooms ?? [command.room];
      if (command.type === 'publish' && rooms.includes(frame.room)) this.#doubtful.add(command);
    }
    this.#tracker.epoch(frame.room, frame);
  }

  /** Whether the numbers in the answer to a publish are not to be counted. True once for each. */
  takeDoubt(command) {
    return this.#doubtful.delete(command);
  }

  unmatched(frame) {
    if (!this.#isLeaving(frame.pattern)) this.#emit('unmatched', frame);
  }

  /** An own message was among those missed, so the command that published it needs no answer. */
  confirm({ id, room, seq, rooms }) {
    const entry = this.#outbox.find((command) => command.type === 'publish' && command.id === id);
    if (entry) this.#outbox.settle(entry, { ...(rooms ? { rooms } : { room, seq }), repeated: true });
  }

  askPresence(room) {
    if (!this.#tracker.has(room) || this.#asked.has(room)) return;
    this.#asked.add(room);
    const connection = this.#connection;
    this.#outbox.addUrgent({ type: 'presence', room }, (error, answer) => {
      if (connection !== this.#connection) return;
      this.#asked.delete(room);
      if (!error) this.#tellMembers({ room, ...answer });
    });
  }

  #tellMembers({ room, members, count }) {
    if (members && this.#tracker.has(room)) this.#emit('presence', { room, members, count });
  }

  fetch(room, after) {
    this.#fetches.push({ room, after, record: this.#tracker.room(room) });
    this.#fetchNext();
  }

  #fetchNext() {
    if (this.#isFetching || !this.#connection) return;
    // A room that was left, and perhaps joined again, asks for its own gap.
    const isCurrent = ({ room, record }) => this.#tracker.room(room) === record;
    const next = this.#fetches.findIndex(isCurrent);
    const [fetch] = next < 0 ? [] : this.#fetches.splice(0, next + 1).slice(-1);
    if (!fetch) {
      this.#fetches = [];
      return;
    }
    this.#isFetching = true;
    const { room, after } = fetch;
    const connection = this.#connection;
    this.#outbox.addUrgent({ type: 'history', room, after }, (error, answer) => {
      if (connection !== this.#connection) return;
      this.#isFetching = false;
      if (isCurrent(fetch)) {
        if (error) this.#tracker.unfilled(room);
        else this.#tracker.fill(room, answer);
      }
      this.#fetchNext();
    });
  }
}

/** The fields of an answer that say where a room stands. */
function position({ room, epoch, seq, overflow }) {
  return clean({ room, epoch, seq, overflow });
}
