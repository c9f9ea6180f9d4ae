/** How a new connection becomes the session that was: `resume`, or joining all rooms again. */
import { isPattern, clean } from './session.js';

export class Recovery {
  #session;
  #tracker;
  #outbox;
  #emit;
  #greeted;
  #live;
  #connection = null;
  #welcome = null;
  // `greeting` until there is a session, `resuming` while its answer is awaited, then `rejoining`, then `live`.
  #phase = 'greeting';
  #rejoins = 0;
  // The rooms whose gap waits to be fetched: one page is asked for at a time.
  #fetches = [];
  #isFetching = false;
  // The rooms whose members were asked for, with the answer still to come: it will be newer than the question.
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
    if (this.#session.token === null) return;
    this.#phase = 'resuming';
    const rooms = this.#tracker.names().map((room) => {
      const { epoch, seq } = this.#tracker.room(room);
      return { room, epoch, seq };
    });
    const { token, direct } = this.#session;
    connection.ask({ type: 'resume', session: token, rooms, direct }, (error, answer) => {
      if (!error) return this.#resumed(answer);
      // Whatever the reason, what is left is the identity of the welcome.
      this.#phase = 'greeting';
      if (this.#welcome) this.#begin(this.#welcome);
    });
  }

  /** Whether a frame is for the session; before there is one, all are void but the welcome. */
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
    this.#greeted(welcome);
    const event = { clientId: welcome.client_id, resumed: false, previous, welcome };
    this.#emit('session', event);
    const isFirst = previous === null;
    if (isFirst && welcome.room !== undefined) {
      this.#session.wanted.set(welcome.room, {});
      this.#tracker.start(welcome.room, { ...position(welcome), replay: true });
    } else if (welcome.room !== undefined) {
      // It is joined without regard to our position, or though we had left it.
      this.#ask({ type: 'leave', room: welcome.room }, () => {});
    }
    if (!isFirst) this.#rejoinAll();
    this.#maybeLive();
  }

  #rejoinAll() {
    const { wanted } = this.#session;
    for (const [room, { presence, sender }] of [...wanted]) {
      if (isPattern(room)) this.#rejoinPattern(room);
      else this.#rejoin(room, { presence, sender });
    }
  }

  #rejoin(room, { presence, sender }) {
    const known = this.#tracker.room(room);
    const since = known ? { epoch: known.epoch, seq: known.seq } : undefined;
    this.#ask(clean({ type: 'join', room, since, presence, sender }), (error, answer) => {
      if (error) return this.#dropped(room, error);
      if (known) this.#tracker.resume(room, answer);
      else this.#tracker.start(room, position(answer));
      return this.#tellMembers(answer);
    });
  }

  #rejoinPattern(pattern) {
    this.#ask({ type: 'join', room: pattern }, (error, answer) => {
      if (error) return this.#dropped(pattern, error);
      return this.#tracker.batch(() => {
        for (const place of answer.rooms) this.#takeUp({ ...place, recovered: false }, pattern);
      });
    });
  }

  #resumed(answer) {
    this.#session.identify(answer.client_id, answer.session);
    this.#phase = 'rejoining';
    this.#greeted(this.#welcome ?? undefined);
    this.#emit('session', { clientId: answer.client_id, resumed: true, previous: answer.client_id });
    const { wanted } = this.#session;
    const patterns = new Set(answer.patterns ?? []);
    this.#tracker.batch(() => {
      for (const pattern of patterns) this.#answerJoin(pattern, answer.rooms);
      const missing = new Set(this.#tracker.names());
      for (const place of answer.rooms) {
        missing.delete(place.room);
        if (place.error) this.#dropped(place.room, { code: place.error });
        else this.#takeUp(place, this.#session.patternOf(place.room));
        this.#tellMembers(place);
      }
      for (const room of missing) {
        if (wanted.has(room)) this.#rejoin(room, wanted.get(room));
        else this.#dropped(room, { code: 'not_member' });
      }
    });
    for (const pattern of wanted.keys()) {
      if (isPattern(pattern) && !patterns.has(pattern)) this.#rejoinPattern(pattern);
    }
    const { direct } = answer;
    if (direct && !direct.recovered && direct.seq > this.#session.direct) {
      this.#emit('lost', { direct: true, from: this.#session.direct + 1, to: direct.seq, reason: 'not_kept' });
    }
    this.#maybeLive();
  }

  /** A room that the server says the session is in, with what was missed. */
  #takeUp(place, pattern) {
    const { room } = place;
    if (this.#isLeaving(room)) return;
    if (this.#tracker.has(room)) return this.#tracker.resume(room, place);
    if (this.#answerJoin(room, [place])) return;
    if (pattern === undefined) {
      this.#session.wanted.set(room, {});
      this.#tracker.start(room, position(place));
      return;
    }
    // Matched while we were away, so that all of it is new to us.
    this.#tracker.start(room, { ...position(place), seq: 0, via: pattern });
    this.#emit('matched', { ...position(place), seq: 0, pattern, room });
    this.#tracker.resume(room, { ...place, recovered: false });
  }

  /** Whether a join of ours was waiting for an answer that the lost connection has swallowed. */
  #answerJoin(name, rooms) {
    const sent = this.#outbox.find(({ type, room }, wasSent) => type === 'join' && room === name && wasSent);
    if (!sent) return false;
    const matching = rooms.filter(({ room, error }) => !error && room.startsWith(name.slice(0, -1)));
    this.#outbox.settle(sent, isPattern(name) ? { room: name, rooms: matching } : rooms[0]);
    return true;
  }

  #isLeaving(name) {
    const isLeave = ({ type, room }) =>
      type === 'leave' && (room === name || (isPattern(room) && name.startsWith(room.slice(0, -1))));
    return !this.#tracker.has(name) && this.#outbox.find(isLeave) !== undefined;
  }

  /** A command that must be answered before the session is as it was. */
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
    this.#phase = 'live';
    this.#live();
  }

  #dropped(name, { code }) {
    this.left(name);
    this.#emit('dropped', { room: name, code });
  }

  /** The answer to a join of the user's. */
  joined({ room: name, since, presence, sender }, answer) {
    const { wanted } = this.#session;
    wanted.set(name, clean({ presence, sender }));
    if (isPattern(name)) {
      for (const place of answer.rooms) {
        if (!this.#tracker.has(place.room)) this.#tracker.start(place.room, { ...position(place), via: name });
      }
      return { room: name, rooms: answer.rooms.map(position) };
    }
    if (since) {
      this.#tracker.start(name, { ...position(answer), ...since });
      this.#tracker.resume(name, answer);
    } else {
      this.#tracker.start(name, position(answer));
    }
    const { recovered, members, count } = answer;
    return clean({ ...position(answer), recovered, members, count });
  }

  /** We are, or want to be, in a room no more: nothing of it is yielded from now on. */
  left(name) {
    this.#session.wanted.delete(name);
    this.#tracker.stop(name);
    if (!isPattern(name)) return;
    for (const room of this.#tracker.names()) if (this.#tracker.room(room).via === name) this.#tracker.stop(room);
  }

  matched(frame) {
    if (!this.#tracker.has(frame.room)) {
      this.#tracker.start(frame.room, { ...position(frame), via: frame.pattern });
    }
    this.#emit('matched', frame);
  }

  /** A message of ours was found in what we missed, so the command that published it needs no answer. */
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
    if (members) this.#emit('presence', { room, members, count });
  }

  fetch(room, after) {
    this.#fetches.push({ room, after });
    this.#fetchNext();
  }

  #fetchNext() {
    if (this.#isFetching || this.#fetches.length === 0 || !this.#connection) return;
    this.#isFetching = true;
    const { room, after } = this.#fetches.shift();
    const connection = this.#connection;
    this.#outbox.addUrgent({ type: 'history', room, after }, (error, answer) => {
      if (connection !== this.#connection) return;
      this.#isFetching = false;
      if (error) this.#tracker.unfilled(room);
      else this.#tracker.fill(room, answer);
      this.#fetchNext();
    });
  }
}

/** The fields of an answer that say where a room stands. */
function position({ room, epoch, seq, overflow }) {
  return clean({ room, epoch, seq, overflow });
}
