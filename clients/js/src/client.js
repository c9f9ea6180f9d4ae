/** The client: one session over as many connections as it takes. */
import { Backoff } from './backoff.js';
import { systemClock } from './clock.js';
import * as commands from './command.js';
import { Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { RustySocksError } from './errors.js';
import { Outbox } from './outbox.js';
import { systemPlatform } from './platform.js';
import { Loops } from './queue.js';
import { Reconnect } from './reconnect.js';
import { Recovery } from './recovery.js';
import { Rooms } from './rooms.js';
import { Session, clean, isPattern } from './session.js';
import { Tracker, checkSeq } from './tracker.js';
import { FALLBACKS, Transport } from './transport.js';
import { settleable, waitFault } from './wait.js';

/** What an option is if it is not given. `index.d.ts` says what each is for. */
export const DEFAULTS = Object.freeze({
  protocols: Object.freeze(['rusty-socks.v1']),
  fallback: 'auto',
  openTimeoutMs: 20_000,
  closeTimeoutMs: 3_000,
  checkTimeoutMs: 5_000,
  pingMsMax: 25_000,
  silenceExtraMs: 15_000,
  backoffBaseMs: 250,
  backoffCapMs: 30_000,
  settledMs: 5_000,
  attemptsMax: Infinity,
  outboxMax: 1_000,
  outboxBytesMax: 64 * 1024 * 1024,
  inFlightMax: 64,
  retriesMax: 10,
  holdMax: 10_000,
  holdBytesMax: 64 * 1024 * 1024,
  queueMax: 1_000,
  queueBytesMax: 64 * 1024 * 1024,
  backlogMax: 1_000,
  roomsMax: 100_000,
  roomLingerMs: 0,
  membersMax: 1_000,
  echoesMax: 1_000,
  messageBytesMax: 64 * 1024 * 1024,
  unsentBytesMax: 1024 * 1024,
});

// A standard WebSocket takes the last two as well.
const PROTOCOLS = ['ws:', 'wss:', 'http:', 'https:'];

// Used for a server that does not ping.
const PING_S = 30;

// The accepted range of `ping_s`: below it the client would ping constantly, and above it a timer
// would overflow.
const PING_S_MIN = 1;
const PING_S_MAX = 24 * 3600;

export class Client {
  #options;
  #clock;
  #emitter = new Emitter();
  #session;
  #tracker;
  #outbox;
  #recovery;
  #backoff;
  #reconnect;
  #loops;
  // The loops that have fallen behind as far as they may.
  #full = new Set();
  #rooms;
  #receivedBytes = 0;
  #transport;
  #connection = null;
  #closeTimer = null;
  // The attempt whose token is awaited, or the last one.
  #attempts = 0;
  #closed = new RustySocksError('closed', 'the client is closed');
  // The reason for ending this client.
  #fault = null;
  #state = 'idle';
  #closeOnAbort = () => this.close();
  #readiness = settleable();
  #ending = settleable();

  constructor(url, options = {}) {
    const { protocol } = new URL(url);
    if (!PROTOCOLS.includes(protocol)) throw new TypeError(`the address must begin with ws:// or wss://, not ${protocol}`);
    // A WebSocket that is given may go ways that `fetch` does not know.
    const fallback = options.WebSocket ? 'off' : DEFAULTS.fallback;
    this.#options = { ...DEFAULTS, fallback, ...clean(options) };
    checkNumbers(this.#options);
    checkToken(this.#options.token);
    if (!FALLBACKS.includes(this.#options.fallback)) throw new TypeError(`the option fallback must be one of ${FALLBACKS.join(', ')}`);
    this.#clock = options.clock ?? systemClock;
    const platform = options.platform ?? systemPlatform;
    this.#transport = new Transport({ url: String(url), options: this.#options, clock: this.#clock, platform });
    this.#session = new Session(this.#options);
    this.#tracker = new Tracker({
      holdMax: this.#options.holdMax,
      holdBytesMax: this.#options.holdBytesMax,
      roomsMax: this.#options.roomsMax,
      full: () => this.#tooManyRooms(),
      deliver: (message, isReplay) => this.#deliver(message, isReplay),
      lost: (range) => this.#emit('lost', range),
      fetch: (room, after) => this.#recovery.fetch(room, after),
    });
    this.#loops = new Loops({
      ...this.#options,
      hold: (isFull) => this.#hold(this.#loops, isFull),
      lost: (range) => this.#emitter.emit('lost', range),
    });
    this.#outbox = new Outbox({ ...this.#options, clock: this.#clock });
    this.#recovery = new Recovery({
      session: this.#session,
      tracker: this.#tracker,
      outbox: this.#outbox,
      emit: (name, event) => this.#emit(name, event),
      greeted: (welcome, sent) => this.#greeted(welcome, sent),
      live: () => this.#live(),
    });
    this.#backoff = new Backoff({
      baseMs: this.#options.backoffBaseMs,
      capMs: this.#options.backoffCapMs,
      settledMs: this.#options.settledMs,
      random: options.random ?? Math.random,
    });
    this.#reconnect = new Reconnect({
      clock: this.#clock,
      platform,
      backoff: this.#backoff,
      connect: () => this.#connect(),
    });
    this.#rooms = new Rooms(this.#roomsLink());
    if (options.session) this.#session.restore(options.session, this.#tracker);
    // An unobserved rejection must not end the program.
    this.#readiness.promise.catch(() => {});
    if (this.#options.signal?.aborted) this.close();
    else if (this.#options.connect !== false) this.connect();
  }

  /** Begins to connect a client that was made with `connect: false`. */
  connect() {
    if (this.#state === 'idle') {
      const { signal } = this.#options;
      // Not before: a client that is made and never connected is held by nothing.
      signal?.addEventListener('abort', this.#closeOnAbort);
      this.#state = 'connecting';
      if (signal?.aborted) this.close();
      else this.#begin();
    }
    return this.ready;
  }

  get ready() {
    return this.#readiness.promise;
  }

  get closed() {
    return this.#ending.promise;
  }

  get state() {
    return this.#state;
  }

  get transport() {
    return this.#connection?.isGreeted ? this.#transport.kind : null;
  }

  get clientId() {
    return this.#session.clientId;
  }

  get session() {
    return this.#session.save(this.#tracker);
  }

  get rooms() {
    return this.#tracker.names();
  }

  get pending() {
    return this.#outbox.size;
  }

  on(name, listener, options) {
    return this.#emitter.on(name, listener, options);
  }

  once(name, listener, options) {
    return this.#emitter.once(name, listener, options);
  }

  off(name, listener) {
    this.#emitter.off(name, listener);
  }

  /** A room for one of its users: a part of a page, or of a program. */
  room(name) {
    // A wrong name would be found out late, and far from here.
    commands.leave(name);
    if (isPattern(name)) throw new RustySocksError('bad_request', `${name} is a pattern, and not one room`);
    return this.#rooms.open(name);
  }

  async join(room, options) {
    const command = commands.join(room, options);
    const ok = (answer) => this.#recovery.joined(command, answer);
    const notJoined = () => this.#recovery.notJoined(room);
    return this.#add(command, { ok, pardon: notJoined, withdrawn: notJoined, wait: options });
  }

  async leave(room, options) {
    let ended;
    const queued = () => {
      ended = this.#recovery.left(room);
      this.#loops.forget(ended);
      this.#rooms.left(ended);
    };
    // A leave that is repeated, or sent after the session was lost, has nothing to do.
    const pardon = ({ code }, wasResent) => {
      if (code === 'not_member' && (wasResent || ended.size > 0)) return { room };
      this.#recovery.notLeft(room);
      return undefined;
    };
    const ok = () => {
      this.#recovery.leaveDone(room);
      return { room };
    };
    return this.#add(commands.leave(room), { queued, ok, pardon, isFirm: true, wait: options });
  }

  async publish(to, content, options) {
    const command = commands.publish(to, content, options, uuid);
    const { id, echo } = command;
    const queued = () => echo && this.#session.expectEcho(id);
    const ok = (answer) => {
      const places = answer.rooms ?? [answer];
      for (const { room, seq } of places) {
        if (typeof room !== 'string') throw new TypeError(`${room} is no room`);
        checkSeq(seq);
      }
      // With echo the message itself arrives, before or after this answer, and moves the position.
      if (!echo && !this.#recovery.takeDoubt(command)) for (const { room, seq } of places) this.#tracker.own(room, seq);
      const rooms = answer.rooms ? { rooms: places } : {};
      return { room: places[0].room, seq: places[0].seq, ...rooms, id, repeated: answer.repeated === true };
    };
    return this.#add(command, { queued, ok, wait: options });
  }

  async direct(to, content, options) {
    const command = commands.direct(to, content, options, uuid);
    const { id } = command;
    return this.#add(command, { ok: (answer) => ({ to, id, repeated: answer.repeated === true }), wait: options });
  }

  async broadcast(content, options) {
    const command = commands.broadcast(content, options, uuid);
    const { id } = command;
    // The server does not recognise a repeated broadcast, so it is sent only once.
    return this.#add(command, { ok: () => ({ id }), isOnce: true, wait: options });
  }

  async history(room, options) {
    const command = commands.history(room, options);
    return this.#add(command, { ok: ({ epoch, seq, messages }) => ({ room, epoch, seq, messages }), wait: options });
  }

  async presence(room, options) {
    return this.#listMembers(room, options);
  }

  /** Begins another connection now, whatever was planned, and goes on with the session there. */
  reconnect() {
    if (this.#state === 'idle' || this.#state === 'closing' || this.#state === 'closed') return;
    // An attempt in progress is enough.
    if (this.#state === 'connecting' && !this.#connection?.isGreeted) return;
    this.#reconnect.now();
  }

  /** Ends the session, on the server too. */
  close() {
    if (this.#state !== 'closed') this.#closeByUser();
    return this.closed;
  }

  [Symbol.asyncIterator]() {
    return this.#loops.open();
  }

  /** `listed(answer)` is called before anything else is read. */
  async #listMembers(room, options, listed = (answer) => answer) {
    const command = commands.presence(room, options);
    const { watch } = command;
    const ok = ({ members, count }) => {
      const wanted = this.#session.wanted.get(room);
      if (wanted && watch !== undefined) wanted.presence = watch;
      const answer = { room, members, count };
      listed(answer);
      return answer;
    };
    return this.#add(command, { ok, wait: options });
  }

  /** What the rooms of the program need; see `Rooms`. */
  #roomsLink() {
    const { roomLingerMs, membersMax } = this.#options;
    return {
      client: this,
      clock: this.#clock,
      options: this.#options,
      lingerMs: roomLingerMs,
      membersMax,
      closedError: () => this.#closedError(),
      isIn: (room) => this.#tracker.has(room) && this.#closedError() === null,
      position: (room) => this.#place(room),
      receivedBytes: () => this.#receivedBytes,
      hold: (loops, isFull) => this.#hold(loops, isFull),
      leave: (room) => this.leave(room),
      watch: (room, watch, done) => this.#listMembers(room, { watch }, done),
      join: (room, options, hooks) => this.#joinFor(room, options, hooks),
    };
  }

  async #joinFor(room, options, { joined, withdrawn }) {
    const command = commands.join(room, options);
    const ok = (answer) => joined(this.#recovery.joined(command, answer), true);
    const pardon = ({ code }) => {
      this.#recovery.notJoined(room);
      // It was joined in another way before: by the server, or through a pattern.
      return code === 'already_member' && this.#tracker.has(room) ? joined(this.#place(room), false) : undefined;
    };
    return this.#add(command, { ok, pardon, withdrawn, wait: options });
  }

  #place(room) {
    const place = this.#tracker.room(room);
    return place && clean({ room, epoch: place.epoch, seq: place.seq, overflow: place.overflow });
  }

  /** Nothing is yielded while one loop has fallen behind as far as it may. */
  #hold(loops, isFull) {
    if (isFull) this.#full.add(loops);
    else this.#full.delete(loops);
    this.#tracker.paused = this.#full.size > 0;
  }

  #emit(name, event) {
    this.#emitter.emit(name, event);
    this.#rooms.event(name, event);
  }

  /** The error of what is asked of a client that has ended, or is about to; otherwise `null`. */
  #closedError() {
    return this.#state === 'closing' || this.#state === 'closed' ? this.#closed : null;
  }

  #add(command, how) {
    const fault = this.#closedError() ?? waitFault(how.wait);
    return fault ? Promise.reject(fault) : this.#outbox.add(command, how);
  }

  async #begin() {
    try {
      await this.#transport.prepare();
    } catch (error) {
      this.#finish({ code: 1006, reason: error.message }, error);
      return;
    }
    if (this.#state === 'closed') return;
    this.#reconnect.watch((change) => this.#worldChanged(change));
    this.#connect();
  }

  #connect() {
    if (this.#connection) {
      this.#connection.discard();
      this.#disconnected();
    }
    this.#reconnect.begun();
    this.#setState('connecting', { attempt: this.#backoff.attempt });
    // A listener may have closed the client.
    if (this.#state !== 'connecting') return;
    this.#attempts += 1;
    const loading = this.#transport.choose();
    if (this.#options.token === undefined && !loading) this.#open();
    else this.#openLater(this.#attempts, loading);
  }

  /**
   * Waits for what an event stream needs, and for a token for this connection. Without them, the
   * attempt has failed like any other.
   */
  async #openLater(attempt, loading) {
    let token;
    let fault = null;
    let what = 'event stream';
    try {
      await loading;
      what = 'token';
      if (this.#options.token !== undefined) token = await this.#newToken();
    } catch (error) {
      // A token is nothing that the transport could be blamed for.
      fault = { code: 1006, reason: `there is no ${what}: ${messageOf(error)}`, isBlameless: what === 'token' };
    }
    // The client was closed meanwhile, or another attempt begun.
    if (attempt !== this.#attempts || this.#state !== 'connecting') return;
    if (fault) this.#over(fault);
    else this.#open(token);
  }

  async #newToken() {
    const { token } = this.#options;
    const given = typeof token === 'function' ? await token() : token;
    if (typeof given !== 'string') throw new TypeError(`a token must be a string, not ${typeof given}`);
    return given;
  }

  #open(token) {
    let socket;
    try {
      socket = this.#transport.open();
    } catch (error) {
      this.#finish({ code: 1006, reason: error.message }, error);
      return;
    }
    const connection = new Connection({
      socket,
      clock: this.#clock,
      openTimeoutMs: this.#options.openTimeoutMs,
      unsentBytesMax: this.#options.unsentBytesMax,
      open: () => {
        // In the first frame, so that a page sees why a token is refused.
        if (token !== undefined) this.#authenticate(connection, token);
        this.#recovery.opened(connection);
      },
      received: (bytes) => {
        this.#receivedBytes += bytes;
        this.#tracker.received(bytes);
        this.#loops.received(bytes);
      },
      frame: (frame) => this.#frame(frame),
      drained: () => this.#outbox.drained(),
      over: (end) => this.#over(end),
    });
    this.#connection = connection;
  }

  /** Says who this client is. A server that refuses the token says why, and closes. */
  #authenticate(connection, token) {
    connection.ask({ type: 'auth', token }, (error, answer) => {
      if (error) this.#emitter.emit('error', error);
      else for (const room of answer.left ?? []) this.#recovery.excluded(room);
    });
  }

  /** Sends a new token before the one before ends. */
  async #renew() {
    const connection = this.#connection;
    try {
      const token = await this.#newToken();
      if (connection === this.#connection) this.#authenticate(connection, token);
    } catch (error) {
      // The server closes the connection when the token has ended, and the next one asks again.
      const message = `the token is not renewed: ${messageOf(error)}`;
      this.#emitter.emit('error', { type: 'error', code: 'no_token', message });
    }
  }

  /** There is a session; its rooms are still being taken up again. */
  #greeted({ ping_s: pingS, max_message_bytes: bytesMax, limits } = {}, sent) {
    const seconds = pingS > 0 ? Math.min(Math.max(pingS, PING_S_MIN), PING_S_MAX) : PING_S;
    const pingMs = Math.min((seconds * 1000) / 2, this.#options.pingMsMax);
    const silenceMs = this.#options.silenceMs ?? seconds * 1000 + this.#options.silenceExtraMs;
    this.#connection.greeted({ pingMs, silenceMs });
    this.#transport.worked();
    this.#outbox.attach(this.#connection, { bytesMax, limits, sent });
  }

  #live() {
    this.#setState('open', {});
    this.#readiness.resolve();
    this.#outbox.open();
    this.#rooms.live();
  }

  #frame(frame) {
    if (this.#state === 'closing' || !this.#recovery.frame(frame)) return undefined;
    switch (frame.type) {
      case 'message':
        return this.#tracker.live(frame);
      case 'direct':
        // Direct messages repeated after a resume are skipped by their number.
        checkSeq(frame.seq);
        if (frame.seq <= this.#session.direct) return undefined;
        this.#session.direct = frame.seq;
        return this.#emitter.emit('direct', frame);
      case 'gap':
        if (frame.presence) return this.#recovery.askPresence(frame.room);
        return this.#tracker.gap(frame.room, frame.from, frame.to);
      case 'epoch':
        return this.#recovery.epoch(frame);
      case 'matched':
        return this.#recovery.matched(frame);
      case 'left':
        // Not of our own accord: the rules of the server have changed.
        if (frame.client_id === this.#session.clientId) return this.#recovery.excluded(frame.room);
      // falls through
      case 'joined':
        // It was in flight when the room was left.
        return this.#tracker.has(frame.room) ? this.#emit(frame.type, frame) : undefined;
      case 'presence':
        return this.#presenceChanged(frame);
      case 'unmatched':
        return this.#recovery.unmatched(frame);
      case 'token_expires':
        if (this.#options.token !== undefined) this.#renew();
        return undefined;
      case 'broadcast':
      case 'closing':
      case 'error':
        return this.#emitter.emit(frame.type, frame);
      default:
        return undefined;
    }
  }

  /** Many came and went within a moment: told as if one by one. */
  #presenceChanged({ room, joined = [], left = [] }) {
    const changes = { joined, left };
    for (const type of ['joined', 'left']) {
      for (const { client_id, sender, user } of changes[type]) {
        // A listener may have left the room, and we are no news to ourselves.
        if (!this.#tracker.has(room)) return;
        if (client_id === this.#session.clientId) continue;
        this.#emit(type, clean({ type, room, client_id, sender, user }));
      }
    }
  }

  #deliver(message, isReplay) {
    const { id } = message;
    if (this.#session.isMine(message)) {
      const isEcho = this.#session.takeEcho(id);
      if (isReplay) this.#recovery.confirm(message);
      // The server sends an own message back only in a replay, or with `echo`.
      if (isReplay && !isEcho) return;
    }
    this.#emitter.emit('message', message);
    this.#rooms.message(message);
    // A listener may have left all its rooms.
    const places = (message.rooms ?? [message]).filter(({ room }) => this.#tracker.has(room));
    if (places.length === 0) return;
    this.#loops.push(
      message,
      places.map(({ room, seq }) => ({ room, seq, epoch: this.#tracker.room(room).epoch })),
    );
  }

  /**
   * Handles a change of the network or the page: checks an open connection, or reconnects at once.
   */
  #worldChanged(change) {
    if (this.#state === 'closing') return;
    if (!this.#connection) {
      if (change !== 'offline') this.#reconnect.hasten();
      return;
    }
    if (this.#connection.check(this.#options.checkTimeoutMs)) return;
    // An attempt that began on another network, or on none, may hang, so begin a new one.
    if (change === 'online' && this.#reconnect.mayBeginAnew) this.#connect();
  }

  #disconnected() {
    this.#connection = null;
    this.#recovery.over();
    this.#outbox.detach();
    this.#tracker.interrupt();
  }

  #over(end) {
    this.#disconnected();
    if (this.#state === 'closing') return this.#finish({ code: 1000, reason: 'closed by the client' }, this.#fault);
    // A status that would end the client is no word of the server's, where the transport is to blame.
    const known = this.#transport.ended(end) ? { ...end, status: undefined } : end;
    const plan = this.#options.reconnect === false ? null : this.#reconnect.after(known);
    if (plan === null || plan.attempt > this.#options.attemptsMax) {
      return this.#finish(end, stopped(end));
    }
    return this.#setState('waiting', { ...plan, end: pick(end) });
  }

  /** A server that lists rooms without end would fill our memory. */
  #tooManyRooms() {
    const text = `the server put this client in more than ${this.#options.roomsMax} rooms`;
    this.#fault ??= new RustySocksError('misbehaved', text);
    this.close();
  }

  #closeByUser() {
    this.#reconnect.cancel();
    const connection = this.#connection;
    if (!connection) return this.#finish({ code: 1000, reason: 'closed by the client' });
    if (this.#state === 'closing') return undefined;
    this.#setState('closing', {});
    connection.close(1000, '');
    this.#closeTimer = this.#clock.setTimeout(() => connection.abort('no answer to the close'), this.#options.closeTimeoutMs);
    return undefined;
  }

  #finish(end, error = null) {
    if (this.#state === 'closed') return;
    this.#reconnect.end();
    this.#clock.clearTimeout(this.#closeTimer);
    const reason = error ?? new RustySocksError('closed', 'the client was closed');
    this.#readiness.reject(reason);
    this.#outbox.fail(reason);
    this.#loops.end(error);
    this.#rooms.end(error, reason);
    const told = { ...pick(end), error };
    this.#setState('closed', { end: told });
    // Objects that outlive this client, such as signals, must not hold references to it.
    this.#emitter.close();
    this.#options.signal?.removeEventListener('abort', this.#closeOnAbort);
    this.#ending.resolve(told);
  }

  #setState(state, details) {
    this.#state = state;
    this.#emitter.emit('state', { state, ...details });
  }
}

/** Wrong numbers would be found out late, and far from here. */
function checkNumbers(options) {
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    if (typeof standard !== 'number') continue;
    // With 0 for one of these, nothing would be sent or yielded.
    const least = ['inFlightMax', 'queueMax', 'unsentBytesMax'].includes(name) ? 1 : 0;
    const value = options[name];
    if (typeof value !== 'number' || !(value >= least)) {
      throw new TypeError(`the option ${name} must be a number from ${least} up, not ${String(value)}`);
    }
  }
}

function checkToken(token) {
  if (!['undefined', 'string', 'function'].includes(typeof token)) {
    throw new TypeError(`the option token must be a string or a function, not ${String(token)}`);
  }
}

function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

function stopped(end) {
  const what = end.status === undefined ? `close code ${end.code}` : `HTTP status ${end.status}`;
  const details = { end: pick(end) };
  return new RustySocksError('stopped', `the client does not come back after ${what}: ${end.reason}`, details);
}

function pick({ code, reason, status }) {
  return clean({ code, reason, status });
}

/** A random UUID. `crypto.randomUUID` is missing in pages that were not loaded over TLS. */
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
