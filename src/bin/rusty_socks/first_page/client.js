// The session client of Rusty Socks 0.1.0, MIT licence: import { Client } from this file, in a page
// or in Node 20 or newer. Made of clients/js/src by clients/js/scripts/bundle.mjs; do not edit.
const backoff_js = (() => {
const ASKED_MS_MAX = 10 * 60_000;

const STOPPING = new Set([1000, 1002, 1003, 1007, 1008, 1009]);

const PASSING_STATUSES = new Set([408, 425, 429]);

function verdict({ code, status }) {
  if (status !== undefined) return status >= 500 || PASSING_STATUSES.has(status) ? 'back_off' : 'stop';
  if (STOPPING.has(code) || hundreds(code) === 40) return 'stop';
  return hundreds(code) === 42 ? 'at_once' : 'back_off';
}

function hundreds(code) {
  return Math.floor(code / 100);
}

class Backoff {
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

  get attempt() {
    return this.#attempt;
  }

  get askedMs() {
    return this.#askedMs;
  }

  reset() {
    this.#attempt = 0;
  }

  spread() {
    return this.#random() * Math.min(this.#capMs, this.#baseMs);
  }

  after({ code, status, livedMs, retryAfterMs, reconnectAfterMs, offline = false }) {
    const means = verdict({ code, status });
    if (means === 'stop') return null;
    this.#askedMs = askedMs(reconnectAfterMs) ?? askedMs(retryAfterMs) ?? 0;
    if (offline && livedMs === undefined) return this.#askedMs + (this.#capMs * (1 + this.#random())) / 2;
    if (livedMs !== undefined && livedMs >= this.#settledMs) this.#attempt = 0;
    const attempt = this.#attempt;
    this.#attempt += 1;
    const jitter = this.#random() * Math.min(this.#capMs, this.#baseMs * 2 ** attempt);
    const told = askedMs(reconnectAfterMs);
    if (told !== undefined) return attempt === 0 ? told : Math.max(told, jitter);
    if (means === 'at_once' && attempt === 0) return 0;
    return (askedMs(retryAfterMs) ?? 0) + jitter;
  }
}

function askedMs(ms) {
  if (typeof ms !== 'number' || Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, 0), ASKED_MS_MAX);
}
return { verdict, Backoff, askedMs };
})();
const clock_js = (() => {
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

const systemClock = {
  now: () => performance.now(),
  date: () => Date.now(),
  setTimeout: (run, ms) => setTimeout(run, Math.min(ms, TIMEOUT_MS_MAX)),
  clearTimeout: (timer) => clearTimeout(timer),
};

const LATE_MS = 5_000;

function setDatedTimeout(clock, run, ms) {
  const date = () => clock.date?.() ?? clock.now();
  const due = date() + ms;
  return clock.setTimeout(() => run(date() - due > LATE_MS), ms);
}
return { TIMEOUT_MS_MAX, systemClock, setDatedTimeout };
})();
const errors_js = (() => {
const BRAND = Symbol.for('rusty-socks.RustySocksError');

class RustySocksError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'RustySocksError';
    this.code = code;
    Object.assign(this, details);
  }

  get [BRAND]() {
    return true;
  }

  static [Symbol.hasInstance](value) {
    if (this === RustySocksError) return value?.[BRAND] === true;
    return Function.prototype[Symbol.hasInstance].call(this, value);
  }
}

function refusal(frame) {
  const details = frame.retry_after_ms === undefined ? {} : { retryAfterMs: frame.retry_after_ms };
  return new RustySocksError(frame.code, frame.message ?? frame.code, details);
}
return { RustySocksError, refusal };
})();
const session_js = (() => {
const OLD_IDS_MAX = 16;

const DECLINED_MAX = 1000;

class Session {
  token = null;
  clientId = null;
  direct = 0;
  wanted = new Map();
  declined = new Set();
  #ids = new Set();
  #echoes = new Set();
  #echoesMax;

  constructor({ echoesMax }) {
    this.#echoesMax = echoesMax;
  }

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

  takeEcho(id) {
    return this.#echoes.delete(id);
  }

  save(tracker) {
    const rooms = tracker.names().map((name) => {
      const { epoch, seq, via } = tracker.room(name);
      return { room: name, epoch, seq, ...(via ? { pattern: via } : {}), ...this.wanted.get(name) };
    });
    const patterns = [...this.wanted.keys()].filter(isPattern);
    const declined = this.declined.size > 0 ? { declined: [...this.declined] } : {};
    return { token: this.token, clientId: this.clientId, direct: this.direct, rooms, patterns, ...declined };
  }

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
    if (clientId) tracker.interrupt();
  }

  decline(room) {
    this.declined.add(room);
    if (this.declined.size > DECLINED_MAX) this.declined.delete(this.declined.values().next().value);
  }

  patternOf(room) {
    return [...this.wanted.keys()].find((pattern) => isPattern(pattern) && matches(pattern, room));
  }
}

function isPattern(name) {
  return name.endsWith('.*');
}

function matches(pattern, room) {
  return room.startsWith(pattern.slice(0, -1)) && room.length >= pattern.length;
}

function clean(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

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
return { Session, isPattern, matches, clean };
})();
const command_js = (() => {
const { RustySocksError } = errors_js;
const { clean, isPattern } = session_js;

const REF_BYTES = 30;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NIL = /^[0-]*$/;
const RFC_3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
const LONE_SURROGATE = /\p{Surrogate}/u;

const encoder = new TextEncoder();

class Command {
  #text;
  #bytes;

  constructor(fields, content) {
    Object.assign(this, clean(fields));
    const head = JSON.stringify(this).slice(0, -1);
    this.#text = content === undefined ? head : `${head},"content":${content}`;
    this.#bytes = encoder.encode(this.#text).length + REF_BYTES;
  }

  get bytes() {
    return this.#bytes;
  }

  text(ref) {
    return `${this.#text},"ref":${ref}}`;
  }
}

function join(room, options) {
  const { since, presence, sender } = given(options);
  const name = text('room', room);
  if (isPattern(name) && ((since ?? null) !== null || presence === true)) {
    throw wrong('a join of a pattern must have neither since nor presence');
  }
  return new Command({
    type: 'join',
    room: name,
    since: optional(since, (value) => position(value)),
    presence: optional(presence, (value) => flag('presence', value)),
    sender: optional(sender, (value) => text('sender', value)),
  });
}

function leave(room) {
  return new Command({ type: 'leave', room: text('room', room) });
}

function publish(to, content, options, freshId) {
  const { echo } = given(options);
  const fields = {
    type: 'publish',
    ...(Array.isArray(to) ? { rooms: names(to) } : { room: text('room', to) }),
    ...messageFields(options, freshId),
    echo: optional(echo, (value) => flag('echo', value)),
  };
  return new Command(fields, contentText(content));
}

function direct(to, content, options, freshId) {
  const fields = { type: 'direct', to: text('to', to), ...messageFields(options, freshId) };
  return new Command(fields, contentText(content));
}

function broadcast(content, options, freshId) {
  return new Command({ type: 'broadcast', ...messageFields(options, freshId) }, contentText(content));
}

function history(room, options) {
  const { before, after, limit } = given(options);
  if ((before ?? null) !== null && (after ?? null) !== null) throw wrong('history must have before or after, not both');
  return new Command({
    type: 'history',
    room: text('room', room),
    before: optional(before, (value) => count('before', value)),
    after: optional(after, (value) => count('after', value)),
    limit: optional(limit, (value) => count('limit', value)),
  });
}

function presence(room, options) {
  const { watch, after, limit } = given(options);
  return new Command({
    type: 'presence',
    room: text('room', room),
    watch: optional(watch, (value) => flag('watch', value)),
    after: optional(after, (value) => text('after', value)),
    limit: optional(limit, (value) => count('limit', value)),
  });
}

function textOf(command, ref) {
  return command instanceof Command ? command.text(ref) : JSON.stringify({ ...command, ref });
}

function isMembership({ type }) {
  return type === 'join' || type === 'leave';
}

function touches(name, other) {
  return name === other || isBelow(name, other) || isBelow(other, name);
}

function isBelow(name, pattern) {
  return isPattern(pattern) && name.startsWith(pattern.slice(0, -1));
}

function messageFields(options, freshId) {
  const { id, sender, timestamp } = given(options);
  return {
    id: optional(id, uuid) ?? freshId(),
    sender: optional(sender, (value) => text('sender', value)),
    timestamp: optional(timestamp, time),
  };
}

function contentText(content) {
  let json;
  try {
    json = JSON.stringify(content);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new RustySocksError('bad_request', `content cannot be made JSON: ${why}`, { cause: error });
  }
  if (json === undefined) throw wrong(`content must be a value that JSON has, not ${kind(content)}`);
  return json;
}

function given(options) {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object') throw wrong(`options must be an object, not ${kind(options)}`);
  return options;
}

function optional(value, check) {
  return value === undefined || value === null ? undefined : check(value);
}

function names(list) {
  if (list.length === 0) throw wrong('rooms must be a list of at least one name');
  return Array.from(list, (room) => text('each of rooms', room));
}

function text(field, value) {
  if (typeof value !== 'string') throw wrong(`${field} must be a string, not ${kind(value)}`);
  if (LONE_SURROGATE.test(value)) throw wrong(`${field} must be text, and has half of a surrogate pair`);
  return value;
}

function flag(field, value) {
  if (typeof value !== 'boolean') throw wrong(`${field} must be true or false, not ${kind(value)}`);
  return value;
}

function count(field, value) {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  const what = typeof value === 'number' ? value : kind(value);
  throw wrong(`${field} must be a whole number from 0 to 2^53 - 1, not ${what}`);
}

function position(since) {
  if (typeof since !== 'object') throw wrong(`since must be {epoch, seq}, not ${kind(since)}`);
  return { epoch: text('since.epoch', since.epoch), seq: count('since.seq', since.seq) };
}

function uuid(value) {
  if (typeof value === 'string' && UUID.test(value) && !NIL.test(value)) return value.toLowerCase();
  throw wrong(`id must be a UUID other than the nil one, not ${typeof value === 'string' ? `"${value}"` : kind(value)}`);
}

function time(value) {
  const stamp = value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString() : value;
  if (typeof stamp === 'string' && RFC_3339.test(stamp)) return stamp;
  throw wrong('timestamp must be an RFC 3339 time such as 2026-11-21T07:29:01.771Z');
}

function wrong(message) {
  return new RustySocksError('bad_request', message);
}

function kind(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (value === undefined) return 'undefined';
  return `${typeof value === 'object' ? 'an' : 'a'} ${typeof value}`;
}
return { Command, join, leave, publish, direct, broadcast, history, presence, textOf, isMembership, touches };
})();
const connection_js = (() => {
const { setDatedTimeout } = clock_js;
const { textOf } = command_js;

const PING = JSON.stringify({ type: 'ping', ref: 'ping' });

const DRAIN_POLL_MS = 50;

class Connection {
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
  #ping = null;
  #unsentBytesMax;
  #drainTimer = null;
  #silenceMs = Infinity;
  #reconnectAfterMs;
  #greetedAt;

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

  get isGreeted() {
    return this.#greetedAt !== undefined;
  }

  get isCongested() {
    return this.#socket.bufferedAmount >= this.#unsentBytesMax;
  }

  ask(command, answer) {
    if (this.#isOver) return;
    const ref = this.#nextRef;
    this.#nextRef += 1;
    this.#answers.set(ref, answer);
    this.#socket.send(textOf(command, ref));
    if (this.isCongested) this.#awaitDrain();
  }

  greeted({ pingMs, silenceMs }) {
    this.#clock.clearTimeout(this.#openTimer);
    this.#greetedAt = this.#clock.now();
    this.#silenceMs = silenceMs;
    this.#pingMs = pingMs;
    this.#graceMs = Math.max(silenceMs - pingMs, 1);
    this.#awaitQuiet();
  }

  check(graceMs) {
    if (this.#isOver || !this.isGreeted) return false;
    if (!this.#ping?.isCheck) this.#sendPing(graceMs, true);
    return true;
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  abort(reason) {
    if (this.#isOver) return;
    this.#over({ code: 1006, reason });
    this.#socket.terminate();
  }

  discard() {
    this.#handlers.over = () => {};
    this.abort('discarded');
  }

  #received(data) {
    if (this.#isOver) return;
    const frame = parse(data);
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
      this.#ping.unsent = this.#unsent;
      this.#awaitSign();
    } else if (wasLate && !wasAsleep) {
      this.#sendPing(graceMs, isCheck);
      this.#ping.wasAsleep = true;
    } else {
      this.abort('the server went silent');
    }
  }

  get #unsent() {
    return this.#socket.bufferedAmount ?? 0;
  }

  #heard(isPong = false) {
    if (!this.#ping) return;
    if (this.#ping.isCheck && !isPong) this.#awaitSign();
    else this.#awaitQuiet();
  }

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
    this.#handlers.over({ ...end, livedMs, wasChecked, reconnectAfterMs: this.#reconnectAfterMs });
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
return { Connection };
})();
const emitter_js = (() => {
class Emitter {
  #registrations = new Map();
  #isClosed = false;

  on(name, listener, options) {
    return this.#add(name, listener, options, false);
  }

  once(name, listener, options) {
    return this.#add(name, listener, options, true);
  }

  off(name, listener) {
    const registration = this.#registrations.get(name)?.findLast((candidate) => candidate.listener === listener);
    registration?.end();
  }

  has(name) {
    return this.#registrations.has(name);
  }

  emit(name, event) {
    for (const registration of this.#registrations.get(name) ?? []) {
      if (registration.hasEnded) continue;
      if (registration.isOnce) registration.end();
      try {
        registration.listener(event);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  close() {
    this.#isClosed = true;
    for (const registration of [...this.#registrations.values()].flat()) registration.end();
  }

  #add(name, listener, { signal } = {}, isOnce) {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    if (signal?.aborted || this.#isClosed) return () => {};
    const registration = { listener, isOnce, hasEnded: false };
    registration.end = () => {
      if (registration.hasEnded) return;
      registration.hasEnded = true;
      signal?.removeEventListener('abort', registration.end);
      const rest = this.#registrations.get(name).filter((other) => other !== registration);
      if (rest.length > 0) this.#registrations.set(name, rest);
      else this.#registrations.delete(name);
    };
    signal?.addEventListener('abort', registration.end);
    this.#registrations.set(name, [...(this.#registrations.get(name) ?? []), registration]);
    return registration.end;
  }
}
return { Emitter };
})();
const rate_js = (() => {
const SHARE = 0.95;

class Rate {
  #messages;
  #bytes;
  #clock;

  constructor({ messages, bytes, sent = { messages: 0, bytes: 0 } }, clock) {
    this.#clock = clock;
    this.#messages = bucket(messages, Math.max(1, messages - 1), sent.messages, clock.now());
    this.#bytes = bucket(bytes, bytes, sent.bytes, clock.now());
  }

  waitMs(bytes) {
    const now = this.#clock.now();
    return Math.max(this.#messages?.waitMs(1, now) ?? 0, this.#bytes?.waitMs(bytes, now) ?? 0);
  }

  sent(bytes) {
    this.#messages?.sent(1);
    this.#bytes?.sent(bytes);
  }

  answered(bytes) {
    const now = this.#clock.now();
    this.#messages?.answered(1, now);
    this.#bytes?.answered(bytes, now);
  }

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
return { Rate };
})();
const wait_js = (() => {
const { TIMEOUT_MS_MAX } = clock_js;
const { RustySocksError } = errors_js;

function waitFault(wait) {
  const { timeoutMs, signal } = wait ?? {};
  const isTime = typeof timeoutMs === 'number' && timeoutMs >= 0;
  if (timeoutMs !== undefined && !isTime) {
    return new RustySocksError('bad_request', `timeoutMs must be a number of milliseconds from 0 up, not ${String(timeoutMs)}`);
  }
  if (signal && typeof signal.addEventListener !== 'function') {
    return new RustySocksError('bad_request', `signal must be an AbortSignal, not ${String(signal)}`);
  }
  return signal?.aborted ? aborted(signal, false) : null;
}

function boundWait(settleable, { timeoutMs, signal, clock, end }) {
  if (timeoutMs === undefined && !signal) return;
  let timer = null;
  const onAbort = () => end((wasSent) => aborted(signal, wasSent));
  const onTime = () => end((wasSent) => timedOut(timeoutMs, wasSent));
  const { resolve, reject } = settleable;
  const release = () => {
    clock.clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  };
  settleable.resolve = (value) => {
    release();
    resolve(value);
  };
  settleable.reject = (error) => {
    release();
    reject(error);
  };
  if (timeoutMs <= TIMEOUT_MS_MAX) timer = clock.setTimeout(onTime, timeoutMs);
  signal?.addEventListener('abort', onAbort);
}

function aborted(signal, wasSent) {
  return new RustySocksError('aborted', `the wait was aborted; ${fate(wasSent)}`, { cause: signal.reason, wasSent });
}

function timedOut(timeoutMs, wasSent) {
  return new RustySocksError('timeout', `no answer within ${timeoutMs} ms; ${fate(wasSent)}`, { wasSent });
}

function fate(wasSent) {
  return wasSent ? 'the command was sent, and may be carried out' : 'the command was not sent';
}
return { waitFault, boundWait };
})();
const outbox_js = (() => {
const { askedMs } = backoff_js;
const { Command, isMembership, touches } = command_js;
const { RustySocksError, refusal } = errors_js;
const { Rate } = rate_js;
const { boundWait } = wait_js;

const PASSING = new Set(['rate_limited', 'overloaded']);

const RETRY_AFTER_MS = 1000;

const STREAK_MAX = 8;

const WAIT_MS_MAX = 10 * 60_000;

class Outbox {
  #entries = new Set();
  #urgent = new Set();
  #bytes = 0;
  #connection = null;
  #isOpen = false;
  #isPumping = false;
  #isPumpDue = false;
  #commandBytesMax = Infinity;
  #rate;
  #window;
  #windowMax;
  #inFlight = 0;
  #streak = 0;
  #pauseTimer = null;
  #pausedUntil = 0;
  #rateTimer = null;
  #clock;
  #max;
  #bytesMax;
  #inFlightMax;
  #retriesMax;

  constructor({ clock, outboxMax, outboxBytesMax, inFlightMax, retriesMax }) {
    this.#clock = clock;
    this.#max = outboxMax;
    this.#bytesMax = outboxBytesMax;
    this.#inFlightMax = inFlightMax;
    this.#retriesMax = retriesMax;
    this.#rate = new Rate({}, clock);
    this.#window = inFlightMax;
    this.#windowMax = inFlightMax;
  }

  get size() {
    return this.#entries.size;
  }

  add(
    command,
    { queued, withdrawn, ok = (answer) => answer, pardon = () => undefined, isOnce = false, isFirm = false, wait } = {},
  ) {
    if (this.#entries.size >= this.#max) {
      const error = new RustySocksError('outbox_full', `${this.#max} commands wait for an answer already`);
      return Promise.reject(error);
    }
    if (this.#bytes + command.bytes > this.#bytesMax) {
      const text = `the commands that wait for an answer have ${this.#bytes} bytes, and this one ${command.bytes}: more than ${this.#bytesMax}`;
      return Promise.reject(new RustySocksError('outbox_full', text));
    }
    return new Promise((resolve, reject) => {
      const entry = {
        command,
        withdrawn,
        ok,
        pardon,
        isOnce,
        isFirm,
        resolve,
        reject,
        sends: 0,
        refusals: 0,
        isSent: false,
        isAbandoned: false,
      };
      boundWait(entry, { ...wait, clock: this.#clock, end: (makeError) => this.#abandon(entry, makeError) });
      this.#entries.add(entry);
      this.#bytes += command.bytes;
      queued?.();
      this.#pump();
    });
  }

  addUrgent(fields, done) {
    const entry = {
      command: new Command(fields),
      ok: (answer) => done(null, answer),
      pardon: () => undefined,
      resolve: () => {},
      reject: (error) => done(error),
      sends: 0,
      refusals: 0,
      isSent: false,
    };
    this.#urgent.add(entry);
    this.#pump();
  }

  find(matches) {
    for (const entry of this.#entries) if (matches(entry.command, entry.sends > 0)) return entry;
    return undefined;
  }

  sent() {
    return [...this.#entries].filter(({ isSent }) => isSent).map(({ command }) => command);
  }

  memberships() {
    return [...this.#entries].map(({ command }) => command).filter(isMembership);
  }

  settle(entry, answer) {
    if (!this.#remove(entry, this.#entries)) return;
    if (entry.isSent) this.#answered(entry.command.bytes);
    this.#take(entry, answer);
  }

  attach(connection, { bytesMax, limits, sent }) {
    this.#connection = connection;
    this.#commandBytesMax = bytesMax ?? Infinity;
    this.#rate = new Rate({ messages: limits?.rate_messages, bytes: limits?.rate_bytes, sent }, this.#clock);
    this.#windowMax = limits ? this.#inFlightMax : Math.min(this.#inFlightMax, STREAK_MAX);
    this.#window = Math.min(this.#window, this.#windowMax);
    this.#isOpen = false;
    this.#pump();
  }

  open() {
    this.#isOpen = true;
    this.#pump();
  }

  drained() {
    this.#pump();
  }

  detach() {
    this.#connection = null;
    this.#isOpen = false;
    this.#inFlight = 0;
    this.#streak = 0;
    this.#clock.clearTimeout(this.#pauseTimer);
    this.#clock.clearTimeout(this.#rateTimer);
    this.#pauseTimer = null;
    this.#rateTimer = null;
    this.#urgent.clear();
    for (const entry of this.#entries) {
      if (entry.isSent && entry.isOnce) {
        this.#remove(entry, this.#entries);
        const text = 'the connection was lost before the answer; it may have been done or not';
        entry.reject(new RustySocksError('answer_lost', text));
      }
      entry.isSent = false;
      if (entry.isAbandoned) this.#withdraw(entry);
    }
  }

  fail(error) {
    this.detach();
    for (const entry of this.#entries) entry.reject(error);
    this.#entries.clear();
    this.#bytes = 0;
  }

  #pump() {
    this.#isPumpDue = true;
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      while (this.#isPumpDue) {
        this.#isPumpDue = false;
        this.#pumpFrom(this.#urgent);
        if (this.#isOpen) this.#pumpFrom(this.#entries);
      }
    } finally {
      this.#isPumping = false;
    }
  }

  #pumpFrom(entries) {
    const memberships = [];
    for (const entry of entries) {
      if (!this.#maySend()) return;
      const { command } = entry;
      if (isMembership(command)) {
        const mustWait = memberships.some((room) => touches(room, command.room));
        if (!entry.isSent && mustWait) return;
        memberships.push(command.room);
      }
      if (!entry.isSent && !this.#send(entry, entries)) return;
    }
  }

  #maySend() {
    if (this.#connection === null || this.#connection.isCongested) return false;
    return this.#pauseTimer === null && this.#inFlight < this.#window;
  }

  #send(entry, entries) {
    const { bytes } = entry.command;
    if (bytes > this.#commandBytesMax) {
      const text = `the command has ${bytes} bytes, and the server takes ${this.#commandBytesMax}`;
      this.#remove(entry, entries);
      entry.reject(new RustySocksError('too_large', text));
      return true;
    }
    if (this.#streak >= STREAK_MAX && !this.#sendPing()) return false;
    if (!this.#mayByRate(bytes)) return false;
    entry.isSent = true;
    entry.sends += 1;
    this.#streak += 1;
    const connection = this.#ask(entry.command, bytes, (error, answer) => {
      if (!entries.has(entry) || !entry.isSent) return;
      entry.isSent = false;
      this.#answered(entry.command.bytes, error);
      if (error) this.#refused(entry, entries, error);
      else {
        this.#remove(entry, entries);
        this.#succeeded();
        this.#window = Math.min(this.#windowMax, this.#window + 1);
        this.#take(entry, answer);
      }
      if (connection === this.#connection) this.#pump();
    });
    return true;
  }

  #sendPing() {
    const ping = new Command({ type: 'ping' });
    if (!this.#mayByRate(ping.bytes)) return false;
    this.#streak = 0;
    const connection = this.#ask(ping, ping.bytes, (error) => {
      if (connection !== this.#connection) return;
      this.#answered(ping.bytes, error);
      if (!error) this.#succeeded();
      else {
        this.#streak = STREAK_MAX;
        if (PASSING.has(error.code)) this.#pause(error);
      }
      this.#pump();
    });
    return this.#maySend();
  }

  #ask(command, bytes, answer) {
    const connection = this.#connection;
    this.#inFlight += 1;
    this.#rate.sent(bytes);
    try {
      connection.ask(command, answer);
    } catch ({ message }) {
      connection.abort(`the socket does not send: ${message}`);
    }
    return connection;
  }

  #mayByRate(bytes) {
    const waitMs = this.#rate.waitMs(bytes);
    if (waitMs <= 0) return true;
    this.#clock.clearTimeout(this.#rateTimer);
    this.#rateTimer = null;
    if (waitMs === Infinity) return false;
    this.#rateTimer = this.#clock.setTimeout(() => {
      this.#rateTimer = null;
      this.#pump();
    }, Math.min(Math.ceil(waitMs), WAIT_MS_MAX));
    return false;
  }

  #answered(bytes, error) {
    this.#inFlight -= 1;
    if (error?.code === 'rate_limited') this.#rate.refused(bytes, waitMs(error));
    else this.#rate.answered(bytes);
  }

  #succeeded() {
    this.#streak = Math.min(this.#streak, this.#inFlight);
  }

  #remove(entry, entries) {
    const wasThere = entries.delete(entry);
    if (wasThere && entries === this.#entries) this.#bytes -= entry.command.bytes;
    return wasThere;
  }

  #take(entry, answer) {
    try {
      entry.resolve(entry.ok(answer));
    } catch ({ message }) {
      entry.reject(new RustySocksError('misbehaved', `the server's answer makes no sense: ${message}`));
    }
  }

  #refused(entry, entries, error) {
    entry.refusals += 1;
    const mayRetry = entry.isFirm || (entry.refusals <= this.#retriesMax && !entry.isAbandoned);
    if (PASSING.has(error.code)) {
      this.#window = Math.max(1, Math.floor(this.#window / 2));
      this.#pause(error);
      if (mayRetry) return;
    } else if (error.code === 'not_member' && mayRetry && this.#isBehindMembership(entry)) {
      return;
    }
    this.#remove(entry, entries);
    const pardoned = entry.pardon(error, entry.sends > 1);
    if (pardoned === undefined) entry.reject(refusal(error));
    else entry.resolve(pardoned);
  }

  #isBehindMembership({ command }) {
    for (const earlier of this.#entries) {
      if (earlier.command === command) return false;
      const names = command.rooms ?? [command.room];
      const isJoin = earlier.command.type === 'join' && names.some((room) => touches(earlier.command.room, room));
      if (isJoin) return true;
    }
    return false;
  }

  #abandon(entry, makeError) {
    entry.reject(makeError(entry.sends > 0));
    if (entry.isFirm) return;
    entry.isAbandoned = true;
    if (!entry.isSent) this.#withdraw(entry);
    this.#pump();
  }

  #withdraw(entry) {
    if (this.#remove(entry, this.#entries)) entry.withdrawn?.();
  }

  #pause(error) {
    const ms = waitMs(error);
    const until = this.#clock.now() + ms;
    if (this.#pauseTimer !== null && until <= this.#pausedUntil) return;
    this.#clock.clearTimeout(this.#pauseTimer);
    this.#pausedUntil = until;
    this.#pauseTimer = this.#clock.setTimeout(() => {
      this.#pauseTimer = null;
      this.#pump();
    }, ms);
  }
}

function waitMs(error) {
  return askedMs(error.retry_after_ms) ?? RETRY_AFTER_MS;
}
return { Outbox };
})();
const platform_js = (() => {
const systemPlatform = {
  isOnline: () => globalThis.navigator?.onLine !== false,

  watch(tell) {
    const { document } = globalThis;
    const events = [
      [globalThis, 'online', () => tell('online')],
      [globalThis, 'offline', () => tell('offline')],
      [globalThis, 'pageshow', ({ persisted }) => persisted && tell('wake')],
      [document, 'visibilitychange', () => document.visibilityState === 'visible' && tell('wake')],
      [document, 'resume', () => tell('wake')],
    ].filter(([target]) => typeof target?.addEventListener === 'function');
    for (const [target, name, listener] of events) target.addEventListener(name, listener);
    return () => {
      for (const [target, name, listener] of events) target.removeEventListener(name, listener);
    };
  },
};
return { systemPlatform };
})();
const weight_js = (() => {
class Weight {
  #max;
  #since = 0;

  constructor(max) {
    this.#max = max;
  }

  isDue(bytes) {
    this.#since += bytes;
    if (this.#since < this.#max / 4) return false;
    this.#since = 0;
    return true;
  }
}

const weights = new WeakMap();

function weightOf(message) {
  let weight = weights.get(message);
  if (weight === undefined) {
    weight = JSON.stringify(message).length;
    weights.set(message, weight);
  }
  return weight;
}
return { Weight, weightOf };
})();
const queue_js = (() => {
const { Weight, weightOf } = weight_js;

class Queue {
  max;
  #items;
  #readers = [];
  #end = null;
  #onRead;
  #onReturn;

  constructor(items, { max, onRead, onReturn }) {
    this.max = max;
    this.#items = items;
    this.#onRead = onRead;
    this.#onReturn = onReturn;
  }

  get length() {
    return this.#items.length;
  }

  push(value) {
    if (this.#end) return;
    const reader = this.#readers.shift();
    if (reader) reader.resolve({ value, done: false });
    else this.#items.push(value);
  }

  get weight() {
    return weigh(this.#items);
  }

  change(rest) {
    this.#items = rest(this.#items);
  }

  end(error = null) {
    if (this.#end) return;
    this.#end = { error };
    for (const reader of this.#readers.splice(0)) this.#finish(reader);
  }

  next() {
    return new Promise((resolve, reject) => {
      const reader = { resolve, reject };
      if (this.#items.length > 0) {
        resolve({ value: this.#items.shift(), done: false });
        this.#onRead();
      } else if (this.#end) {
        this.#finish(reader);
      } else {
        this.#readers.push(reader);
      }
    });
  }

  async return(value) {
    const unread = this.#items;
    this.#items = [];
    this.end();
    this.#end = { error: null };
    this.#onReturn(unread);
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  #finish({ resolve, reject }) {
    const { error } = this.#end;
    if (!error) return resolve({ value: undefined, done: true });
    this.#end = { error: null };
    reject(error);
  }
}

class Loops {
  #queues = new Set();
  #backlog = [];
  #unread = new Map();
  #end = null;
  #queueMax;
  #queueBytesMax;
  #weight;
  #backlogMax;
  #hold;
  #lost;

  constructor({ queueMax, queueBytesMax, backlogMax, hold, lost }) {
    this.#queueMax = queueMax;
    this.#queueBytesMax = queueBytesMax;
    this.#weight = new Weight(queueBytesMax);
    this.#backlogMax = backlogMax;
    this.#hold = hold;
    this.#lost = lost;
  }

  push(message, places) {
    for (const queue of this.#queues) queue.push({ message, places });
    if (this.#queues.size === 0) {
      this.#backlog.push({ message, places });
      this.#trim();
    } else if (this.#isFull()) this.#hold(true);
  }

  received(bytes) {
    if (!this.#weight.isDue(bytes)) return;
    if (weigh(this.#backlog) > this.#queueBytesMax) this.#drop(this.#backlog.length / 2);
    for (const queue of this.#queues) {
      if (queue.weight > this.#queueBytesMax) queue.max = Math.min(queue.max, queue.length);
    }
    if (this.#isFull()) this.#hold(true);
  }

  open() {
    const queue = new Queue(this.#backlog, {
      max: this.#queueMax,
      onRead: () => {
        if (queue.length > queue.max / 2) return;
        queue.max = this.#queueMax;
        this.#look();
      },
      onReturn: (unread) => this.#close(queue, unread),
    });
    const unread = [...this.#unread.values()];
    this.#backlog = [];
    this.#unread.clear();
    this.#queues.add(queue);
    if (this.#end) queue.end(this.#end.error);
    if (this.#isFull()) this.#hold(true);
    for (const range of unread) this.#lost({ ...range, reason: 'not_read' });
    return iterator(queue);
  }

  forget(rooms) {
    const rest = (items) =>
      items
        .map(({ message, places }) => ({ message, places: places.filter(({ room }) => !rooms.has(room)) }))
        .filter(({ places }) => places.length > 0);
    for (const queue of this.#queues) queue.change(rest);
    this.#backlog = rest(this.#backlog);
    for (const room of rooms) this.#unread.delete(room);
    this.#look();
  }

  end(error) {
    this.#end = { error };
    for (const queue of this.#queues) queue.end(error);
  }

  #close(queue, unread) {
    if (!this.#queues.delete(queue)) return;
    if (this.#queues.size === 0) {
      this.#backlog = unread;
      this.#trim();
    }
    this.#look();
  }

  #trim() {
    this.#drop(Math.max(0, this.#backlog.length - this.#backlogMax));
  }

  #drop(count) {
    for (const { places } of this.#backlog.splice(0, Math.ceil(count))) {
      for (const { room, epoch, seq } of places) {
        const range = this.#unread.get(room);
        if (range && (range.epoch === epoch || seq > range.to)) Object.assign(range, { epoch, to: Math.max(range.to, seq) });
        else this.#unread.set(room, { room, epoch, from: seq, to: seq });
      }
    }
  }

  #isFull() {
    for (const { length, max } of this.#queues) if (length >= max) return true;
    return false;
  }

  #look() {
    if (!this.#isFull()) this.#hold(false);
  }
}

function weigh(items) {
  return items.reduce((sum, { message }) => sum + weightOf(message), 0);
}

function iterator(queue) {
  return {
    next: () => queue.next().then(({ value, done }) => ({ value: value?.message, done })),
    return: (value) => queue.return(value),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
return { Loops };
})();
const reconnect_js = (() => {
const { setDatedTimeout } = clock_js;

const ATTEMPT_GAP_MS = 1_000;

const TICK_MS = 10_000;

class Reconnect {
  #clock;
  #platform;
  #backoff;
  #connect;
  #timer = null;
  #dueAt = Infinity;
  #begunAt = -Infinity;
  #notBefore = -Infinity;
  #tick = null;
  #unwatch = () => {};

  constructor({ clock, platform, backoff, connect }) {
    this.#clock = clock;
    this.#platform = platform;
    this.#backoff = backoff;
    this.#connect = connect;
  }

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

  begun() {
    this.cancel();
    this.#begunAt = this.#clock.now();
  }

  get mayBeginAnew() {
    return this.#clock.now() - this.#begunAt >= ATTEMPT_GAP_MS;
  }

  after(end) {
    const offline = !this.#platform.isOnline();
    const backoffMs = this.#backoff.after({ ...end, offline });
    if (backoffMs === null) return null;
    this.#notBefore = this.#clock.now() + this.#backoff.askedMs;
    const delayMs = end.wasChecked && !offline ? Math.min(backoffMs, this.#leastMs()) : backoffMs;
    this.#plan(delayMs);
    return { delayMs, attempt: this.#backoff.attempt, offline };
  }

  hasten() {
    if (this.#timer !== null) this.#plan(this.#leastMs());
  }

  now() {
    this.#backoff.reset();
    this.#plan(0);
  }

  cancel() {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = null;
    this.#dueAt = Infinity;
  }

  end() {
    this.cancel();
    this.#clock.clearTimeout(this.#tick);
    this.#unwatch();
  }

  #leastMs() {
    const least = Math.max(this.#notBefore, this.#begunAt + ATTEMPT_GAP_MS) - this.#clock.now();
    return Math.max(least, 0) + this.#backoff.spread();
  }

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
return { Reconnect };
})();
const tracked_room_js = (() => {
const { weightOf } = weight_js;

function seqIn(message, name) {
  return message.rooms?.find(({ room }) => room === name)?.seq ?? message.seq;
}

function isAhead({ seq: reached, queue }, seq) {
  return seq > reached + 1 && queue.every(({ kind }) => kind === 'own');
}

function isBefore(room, seq) {
  const head = room.queue[0];
  return head !== undefined && !(head.kind === 'message' && head.seq === seq) && head.seq <= seq;
}

function reach(seq, items) {
  return items.reduce((most, item) => Math.max(most, item.to ?? item.seq), seq);
}

function upTo(item, seq) {
  if (!('to' in item) || item.to <= seq) return item;
  const known = item.known && new Map([...item.known].filter(([at]) => at <= seq));
  return { ...item, to: seq, ...(known ? { known } : {}) };
}

function placesOf({ message, places }) {
  return places ?? message?.rooms;
}

function forgetPlaces(room, name, seq) {
  const isGone = (place) => place.room === name && place.seq > seq;
  const change = (item) => {
    if (placesOf(item)?.some(isGone)) item.places = placesOf(item).filter((place) => !isGone(place));
  };
  for (const item of [...room.queue, ...room.spare.values()]) {
    change(item);
    if (item.kind === 'gap') for (const known of item.known.values()) change(known);
  }
}

function held(room) {
  const gap = room.queue[0]?.kind === 'gap' ? room.queue[0].known.size : 0;
  return room.queue.length + gap;
}

function weigh(room) {
  const items = [...room.queue, ...room.spare.values()];
  for (const item of room.queue) if (item.kind === 'gap') items.push(...item.known.values());
  return items.reduce((sum, { message }) => sum + (message ? weightOf(message) : 0), 0);
}

function inOrder(found) {
  return [...found.values()].sort((a, b) => a.seq - b.seq);
}

function withHoles(found, from, to, reason) {
  const items = [];
  let next = from;
  const hole = (end) => {
    if (next <= end) items.push({ kind: 'lost', seq: next, from: next, to: end, reason });
  };
  for (const item of inOrder(found)) {
    hole(item.seq - 1);
    items.push(item);
    next = item.seq + 1;
  }
  hole(to);
  return items;
}
return { seqIn, isAhead, isBefore, reach, upTo, placesOf, forgetPlaces, held, weigh, inOrder, withHoles };
})();
const tracker_js = (() => {
const {
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
} = tracked_room_js;
const { Weight } = weight_js;

class Tracker {
  #rooms = new Map();
  #busy = new Set();
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

  room(name) {
    return this.#rooms.get(name);
  }

  names() {
    return [...this.#rooms.keys()];
  }

  waiting(name) {
    const room = this.#rooms.get(name);
    return room ? held(room) : 0;
  }

  start(name, { epoch, seq, overflow, via, replay = false }) {
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
      isAway: false,
    });
    return undefined;
  }

  stop(name) {
    const room = this.#rooms.get(name);
    if (!room) return;
    this.#rooms.delete(name);
    this.#busy.delete(room);
    this.#drain();
  }

  live(message) {
    this.#add(message);
    this.#drain();
  }

  received(bytes) {
    if (this.#weight.isDue(bytes)) this.#lighten();
  }

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

  resume(name, { epoch, seq, recovered, messages = [], overflow }) {
    const room = this.#rooms.get(name);
    if (!room) return;
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

  epoch(name, { epoch, seq }) {
    const before = this.#rooms.get(name);
    if (!before) return;
    checkSeq(seq);
    if (typeof epoch !== 'string') throw new TypeError(`${epoch} is no epoch`);
    const { queue, spare } = before;
    const heard = reach(before.seq, queue.filter(({ kind }) => kind !== 'own'));
    const known = reach(before.seq, queue);
    const rest = queue.filter((item) => item.seq <= seq).map((item) => upTo(item, seq));
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

  gap(name, from, to) {
    const room = this.#rooms.get(name);
    if (!room) return;
    checkSeq(from);
    checkSeq(to);
    const first = Math.max(from, room.seq + 1);
    if (first <= to) this.#putGap(room, first, to, { isFinal: room.overflow === 'latest' });
    this.#drain();
  }

  own(name, seq) {
    const room = this.#rooms.get(name);
    if (!room || seq <= room.seq) return;
    checkSeq(seq);
    room.replay = false;
    this.#put(room, { kind: 'own', seq });
    this.#drain();
  }

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

  unfilled(name) {
    const room = this.#rooms.get(name);
    if (room) this.fill(name, { epoch: room.epoch, seq: room.seq, messages: [] });
  }

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

  set paused(paused) {
    this.#paused = paused;
    this.#drain();
  }

  #add(message) {
    for (const { room: name, seq } of message.rooms ?? [message]) {
      const room = this.#rooms.get(name);
      if (!room || room.isAway) continue;
      checkSeq(seq);
      if (room.replay) {
        room.seq = Math.min(room.seq, seq - 1);
        room.replay = false;
      }
      if (seq > room.seq) this.#put(room, { kind: 'message', seq, message, isReplay: false });
    }
  }

  #put(room, item) {
    const { queue } = room;
    let at = queue.length;
    while (at > 0 && queue[at - 1].seq > item.seq) at -= 1;
    const before = queue[at - 1];
    const isFull = held(room) >= this.#holdMax && item.kind !== 'mark';
    if (before && 'to' in before && item.seq <= before.to) {
      if (before === queue[0] && before.kind === 'gap' && !isFull) before.known.set(item.seq, item);
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

  #breakCircle() {
    if (this.#paused) return false;
    const heads = [...this.#busy].map((room) => [room, room.queue[0]]);
    if (heads.some(([, head]) => head.kind === 'gap')) return false;
    const stuck = heads.find(([, head]) => head.kind === 'message');
    if (stuck === undefined || [...this.#rooms.values()].some(({ isAway }) => isAway)) return false;
    return this.#step(stuck[0], true);
  }

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
    const moved = isForced ? [] : isReplay ? places.filter((place) => !isAhead(place.room, place.seq)) : places;
    for (const place of moved) this.#take(place.room, place.seq);
    if (message.rooms && !this.#isFirst(message)) return true;
    this.#deliver(message, isReplay);
    return true;
  }

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
    this.#recent.add(key);
    if (this.#recent.size > this.#holdMax) this.#recent.delete(this.#recent.values().next().value);
    return true;
  }
}

function checkSeq(seq) {
  if (!Number.isSafeInteger(seq)) throw new TypeError(`${seq} is no number of a message`);
}
return { Tracker, checkSeq };
})();
const recovery_js = (() => {
const { Command, touches } = command_js;
const { clean, isPattern, matches } = session_js;
const { checkSeq } = tracker_js;

const BROUGHT_MAX = 10_000;

class Recovery {
  #session;
  #tracker;
  #outbox;
  #emit;
  #greeted;
  #live;
  #connection = null;
  #welcome = null;
  #sent = { messages: 0, bytes: 0 };
  #phase = 'greeting';
  #rejoins = 0;
  #unconfirmed = new Set();
  #brought = new Map();
  #fetches = [];
  #isFetching = false;
  #doubtful = new WeakSet();
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
      this.#phase = 'greeting';
      if (this.#welcome) this.#begin(this.#welcome);
    });
  }

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
      this.#leave(welcome.room);
    }
    if (!isFirst) this.#rejoinAll();
    this.#maybeLive();
  }

  #rejoinAll() {
    this.#unconfirmed = new Set(this.#tracker.names().filter((room) => this.#tracker.room(room).via));
    const names = [...this.#session.wanted.keys()];
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

  #broughtAgain(place, via, pattern) {
    const { room } = place;
    this.#unconfirmed.delete(room);
    if (this.#tracker.has(room)) this.#tracker.resume(room, { ...place, recovered: false });
    else if (this.#isLeaving(room)) return;
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

  #takeUp(place, patterns) {
    const { room } = place;
    if (this.#tracker.has(room)) return this.#tracker.resume(room, place);
    if (this.#settleJoin(room, [place])) {
      if ([...patterns].some((pattern) => matches(pattern, room)) && this.#session.wanted.has(room)) {
        this.#leave(room);
        this.#rejoin(room);
      }
      return undefined;
    }
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

  #appear(place, pattern) {
    const { room } = place;
    this.#session.declined.delete(room);
    this.#tracker.start(room, { ...position(place), seq: 0, via: pattern });
    this.#emit('matched', { ...position(place), seq: 0, pattern, room });
    this.#tracker.resume(room, { ...place, recovered: false });
  }

  #settleJoin(name, rooms) {
    const sent = this.#outbox.find(({ type, room }, wasSent) => type === 'join' && room === name && wasSent);
    if (!sent) return false;
    const matching = rooms.filter(({ room, error }) => !error && matches(name, room));
    this.#outbox.settle(sent, isPattern(name) ? { room: name, rooms: matching } : rooms[0]);
    return true;
  }

  #isLeaving(name) {
    return this.#outbox.find(({ type, room }) => type === 'leave' && room === name) !== undefined;
  }

  #patternOf(room) {
    const own = this.#session.patternOf(room);
    if (own !== undefined) return own;
    for (const { type, room: name } of this.#outbox.memberships()) {
      if (type === 'leave' && touches(name, room)) return undefined;
      if (type === 'join' && isPattern(name) && matches(name, room) && !this.#isLeaving(name)) return name;
    }
    return undefined;
  }

  #leave(name) {
    this.#ask({ type: 'leave', room: name }, () => {});
  }

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
    for (const room of this.#unconfirmed) if (this.#tracker.has(room)) this.#dropped(room, { code: 'not_member' });
    this.#unconfirmed.clear();
    this.#phase = 'live';
    this.#live();
  }

  #dropped(name, { code }) {
    this.#end(name);
    this.#emit('dropped', { room: name, code });
  }

  excluded(room) {
    if (this.#tracker.has(room)) this.#dropped(room, { code: 'forbidden' });
  }

  joined({ room: name, since, presence, sender }, answer) {
    const { wanted, declined } = this.#session;
    const isLeft = this.#isLeaving(name);
    if (isPattern(name)) {
      const rooms = answer.rooms.map(position);
      if (!isLeft) wanted.set(name, {});
      for (const place of rooms) {
        const via = isLeft ? this.#patternOf(place.room) : name;
        if (via === undefined) this.#bring(place, name);
        else this.#startThrough(via, place);
      }
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

  #bring(place, pattern) {
    if (this.#brought.size < BROUGHT_MAX) this.#brought.set(place.room, { place, pattern });
  }

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

  notJoined(name) {
    if (isPattern(name) && !this.#session.wanted.has(name)) this.#end(name);
  }

  left(name) {
    if (!isPattern(name) && this.#patternOf(name) !== undefined) this.#session.decline(name);
    const held = this.#tracker.names().map((room) => ({ room, ...position(this.#tracker.room(room)) }));
    const ended = this.#end(name);
    if (isPattern(name)) for (const place of held) if (ended.has(place.room)) this.#bring(place, name);
    if (this.#outbox.find(({ type, room }) => type === 'join' && room === name)) ended.add(name);
    return ended;
  }

  notLeft(name) {
    this.#session.declined.delete(name);
  }

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

  epoch(frame) {
    if (!this.#tracker.has(frame.room)) return;
    for (const command of this.#outbox.sent()) {
      const rooms = command.rooms ?? [command.room];
      if (command.type === 'publish' && rooms.includes(frame.room)) this.#doubtful.add(command);
    }
    this.#tracker.epoch(frame.room, frame);
  }

  takeDoubt(command) {
    return this.#doubtful.delete(command);
  }

  unmatched(frame) {
    if (!this.#isLeaving(frame.pattern)) this.#emit('unmatched', frame);
  }

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

function position({ room, epoch, seq, overflow }) {
  return clean({ room, epoch, seq, overflow });
}
return { Recovery };
})();
const members_js = (() => {
class Members {
  #byId = new Map();
  #count = 0;
  #max;
  #list = null;

  constructor({ members, count }, max) {
    this.#max = max;
    for (const { client_id, sender, user } of members) this.#put(client_id, sender, user);
    this.#count = Number.isSafeInteger(count) ? Math.max(count, this.#byId.size) : this.#byId.size;
  }

  get count() {
    return this.#count;
  }

  get list() {
    this.#list ??= Object.freeze([...this.#byId.values()]);
    return this.#list;
  }

  joined({ client_id, sender, user }) {
    if (!this.#byId.has(client_id)) this.#count += 1;
    this.#put(client_id, sender, user);
    this.#list = null;
  }

  left({ client_id }) {
    const isListed = this.#byId.delete(client_id);
    if (isListed || this.#count > this.#byId.size) this.#count -= 1;
    this.#list = null;
  }

  #put(client_id, sender, user) {
    const isKnown = this.#byId.has(client_id);
    if (!isKnown && this.#byId.size >= this.#max) return;
    const member = { client_id };
    if (sender !== undefined) member.sender = sender;
    if (user !== undefined) member.user = user;
    this.#byId.set(client_id, Object.freeze(member));
  }
}
return { Members };
})();
const subscription_js = (() => {
const { RustySocksError } = errors_js;
const { Members } = members_js;
const { boundWait } = wait_js;

class Subscription {
  #name;
  #link;
  #forget;
  #users = new Set();
  #waiters = new Set();
  #leavers = [];
  #phase = 'out';
  #isOurs = false;
  #join = null;
  #linger = null;
  #unwatching = null;
  #members = null;
  #isWatched = false;
  #wasWatched = false;
  #asking = null;
  #isTelling = false;

  constructor(name, link, forget) {
    this.#name = name;
    this.#link = link;
    this.#forget = forget;
  }

  get members() {
    return this.#members;
  }

  get isIn() {
    return this.#phase === 'in';
  }

  enter(user, options) {
    this.#users.add(user);
    this.#link.clock.clearTimeout(this.#linger);
    this.#linger = null;
    for (const resolve of this.#leavers.splice(0)) resolve();
    const waiter = { user };
    waiter.promise = new Promise((resolve, reject) => Object.assign(waiter, { resolve, reject }));
    const { timeoutMs, signal } = options;
    const end = (makeError) => this.#giveUp(waiter, makeError(false));
    boundWait(waiter, { timeoutMs, signal, clock: this.#link.clock, end });
    this.#waiters.add(waiter);
    if (this.#phase === 'out' && this.#link.isIn(this.#name)) this.#phase = 'in';
    if (this.#phase === 'out') this.#begin(options);
    this.#look();
    return waiter.promise;
  }

  leave(user) {
    if (!this.#users.delete(user)) return Promise.resolve();
    this.#reject((waiter) => waiter.user === user, leftBefore(this.#name));
    if (this.#users.size > 0) {
      this.#look();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.#leavers.push(resolve);
      this.#linger = this.#later(() => this.#end());
    });
  }

  message(message) {
    for (const user of [...this.#users]) if (this.#users.has(user)) user.message(message);
  }

  event(name, event) {
    if (name === 'presence') {
      if (!this.#wantsPresence() && !this.#isWatched && !this.#wasWatched) return;
      this.#isWatched = true;
      this.#members = new Members(event, this.#link.membersMax);
    } else if (name === 'joined' || name === 'left') {
      if (!this.#members) return;
      this.#members[name](event);
    }
    if (name !== 'presence') this.#tell(name, event);
    if (name !== 'lost') this.#membersChanged();
  }

  ended(error, reason = error ?? new RustySocksError('left', `the room ${this.#name} was left`)) {
    if (this.#phase === 'out') return;
    this.#reset();
    this.#reject(() => true, reason);
    for (const resolve of this.#leavers.splice(0)) resolve();
    const users = [...this.#users];
    this.#users.clear();
    for (const user of users) user.ended(error);
    this.#drop();
  }

  sessionBegan() {
    this.#wasWatched ||= this.#isWatched;
    this.#isWatched = false;
  }

  live() {
    this.#wasWatched = false;
    this.#look();
  }

  #begin(options) {
    const join = { abort: new AbortController(), isWithdrawn: false };
    this.#join = join;
    this.#phase = 'joining';
    const { since, sender } = options;
    const presence = this.#wantsPresence() ? true : undefined;
    this.#link
      .join(this.#name, { since, sender, presence, signal: join.abort.signal }, {
        joined: (answer, isOurs) => this.#joined(join, answer, isOurs),
        withdrawn: () => {
          join.isWithdrawn = true;
        },
      })
      .catch((error) => this.#join === join && this.ended(error));
  }

  #joined(join, answer, isOurs) {
    if (this.#join !== join) return answer;
    this.#join = null;
    this.#phase = 'in';
    this.#isOurs = isOurs;
    if (answer.members) {
      this.#isWatched = true;
      this.#members = new Members(answer, this.#link.membersMax);
      this.#membersChanged();
    }
    this.#look(answer);
    return answer;
  }

  #look(answer) {
    if (this.#phase !== 'in') return;
    const isWanted = this.#wantsPresence();
    if (isWanted && !this.#isWatched && this.#asking === null) this.#watch(true);
    else if (!isWanted && this.#isWatched) this.#unwatchSoon();
    for (const waiter of [...this.#waiters]) {
      if (!this.#isSettled(waiter.user) || !this.#waiters.delete(waiter)) continue;
      waiter.user.entered();
      const place = { ...this.#link.position(this.#name), ...this.#listed(waiter.user) };
      waiter.resolve({ ...place, recovered: answer?.recovered ?? false });
    }
  }

  #isSettled(user) {
    return this.#phase === 'in' && !(user.wantsPresence && this.#members === null);
  }

  #listed({ wantsPresence }) {
    return wantsPresence ? { members: [...this.#members.list], count: this.#members.count } : {};
  }

  #unwatchSoon() {
    if (this.#unwatching !== null) return;
    this.#unwatching = this.#later(() => {
      this.#unwatching = null;
      const isDue = this.#phase === 'in' && this.#isWatched && this.#asking === null && this.#users.size > 0;
      if (isDue && !this.#wantsPresence()) this.#watch(false);
    });
  }

  #later(run) {
    return this.#link.clock.setTimeout(run, this.#link.lingerMs);
  }

  #watch(isOn) {
    const asking = {};
    this.#asking = asking;
    const watched = (answer) => {
      if (this.#asking !== asking) return;
      this.#asking = null;
      this.#isWatched = isOn;
      this.#members = isOn ? new Members(answer, this.#link.membersMax) : null;
      this.#membersChanged();
      this.#look();
    };
    this.#link.watch(this.#name, isOn, watched).catch((error) => {
      if (this.#asking !== asking) return;
      this.#asking = null;
      const users = isOn ? [...this.#users].filter(({ wantsPresence }) => wantsPresence) : [];
      this.#reject(({ user }) => users.includes(user), error);
      for (const user of users) user.ended(error);
    });
  }

  #wantsPresence() {
    return [...this.#users].some(({ wantsPresence }) => wantsPresence);
  }

  #giveUp(waiter, error) {
    if (!this.#waiters.delete(waiter)) return;
    waiter.reject(error);
    const isWaitedFor = [...this.#waiters].some(({ user }) => user === waiter.user);
    if (!isWaitedFor && !this.#isSettled(waiter.user)) waiter.user.ended(error);
  }

  #end() {
    const leavers = this.#leavers.splice(0);
    const done = () => leavers.forEach((resolve) => resolve());
    const [join, wasIn] = [this.#join, this.#phase === 'in'];
    const mustLeave = wasIn ? this.#isOurs : join !== null;
    const isWatched = wasIn && this.#isWatched && !this.#isOurs;
    this.#reset();
    this.#drop();
    join?.abort.abort();
    if (mustLeave && !join?.isWithdrawn) this.#link.leave(this.#name).then(done, done);
    else if (isWatched) this.#link.watch(this.#name, false, () => {}).then(done, done);
    else done();
  }

  #reset() {
    this.#link.clock.clearTimeout(this.#linger);
    this.#link.clock.clearTimeout(this.#unwatching);
    this.#linger = null;
    this.#unwatching = null;
    this.#asking = null;
    this.#join = null;
    this.#phase = 'out';
    this.#isOurs = false;
    this.#isWatched = false;
    this.#wasWatched = false;
    this.#members = null;
  }

  #drop() {
    if (this.#users.size === 0 && this.#linger === null) this.#forget();
  }

  #reject(matches, error) {
    for (const waiter of [...this.#waiters]) {
      if (!matches(waiter)) continue;
      this.#waiters.delete(waiter);
      waiter.reject(error);
    }
  }

  #tell(name, event) {
    const isPresence = name === 'joined' || name === 'left';
    for (const user of [...this.#users]) {
      if (this.#users.has(user) && (!isPresence || user.wantsPresence)) user.event(name, event);
    }
  }

  #membersChanged() {
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      if (!this.#members) return;
      const { list, count } = this.#members;
      for (const user of [...this.#users]) if (user.wantsPresence) user.event('members', { members: list, count });
    });
  }
}

function leftBefore(name) {
  return new RustySocksError('left', `the room ${name} was left before it was joined`);
}
return { Subscription, leftBefore };
})();
const room_js = (() => {
const commands = command_js;
const { Emitter } = emitter_js;
const { Loops } = queue_js;
const { leftBefore } = subscription_js;
const { waitFault } = wait_js;

class Room {
  #name;
  #link;
  #shared;
  #emitter = new Emitter();
  #state = 'out';
  #error = null;
  #isKept = false;
  #loops = null;
  #open = new Set();
  #seenBytes = 0;
  #user = {
    wantsPresence: false,
    message: (message) => this.#message(message),
    event: (name, event) => this.#emitter.emit(name, event),
    entered: () => this.#setState('joined', null),
    ended: (error) => this.#end(error),
  };

  constructor(name, link, shared) {
    this.#name = name;
    this.#link = link;
    this.#shared = shared;
  }

  get name() {
    return this.#name;
  }

  get state() {
    return this.#state;
  }

  get error() {
    return this.#error;
  }

  get members() {
    return this.#members?.list ?? null;
  }

  get memberCount() {
    return this.#members?.count ?? null;
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

  async join(options) {
    commands.join(this.#name, options);
    const fault = waitFault(options);
    if (fault) throw fault;
    this.#isKept = true;
    return this.#enter(options ?? {});
  }

  async leave() {
    return this.#end(null);
  }

  publish(content, options) {
    return this.#link.client.publish(this.#name, content, options);
  }

  history(options) {
    return this.#link.client.history(this.#name, options);
  }

  [Symbol.asyncIterator]() {
    const loops = this.#begin();
    const iterator = loops.open();
    this.#open.add(iterator);
    if (this.#state === 'out') this.#enter({}).catch(() => {});
    const leave = iterator.return;
    iterator.return = (value) => {
      const wasOpen = this.#open.delete(iterator);
      if (wasOpen && this.#open.size === 0 && !this.#isKept) this.#end(null);
      return leave(value);
    };
    return iterator;
  }

  get #members() {
    return this.#user.wantsPresence ? this.#shared().members : null;
  }

  #enter(options) {
    if (options.presence) this.#user.wantsPresence = true;
    const loops = this.#begin();
    const closed = this.#state === 'out' ? this.#link.closedError() : null;
    if (closed) {
      this.#end(closed);
      return Promise.reject(closed);
    }
    if (this.#state === 'out') this.#setState('joining', null);
    if (this.#loops !== loops) return Promise.reject(leftBefore(this.#name));
    return this.#shared().enter(this.#user, options);
  }

  #begin() {
    if (this.#loops === null) {
      this.#seenBytes = this.#link.receivedBytes();
      const loops = new Loops({
        ...this.#link.options,
        hold: (isFull) => this.#link.hold(loops, isFull),
        lost: (range) => this.#emitter.emit('lost', range),
      });
      this.#loops = loops;
    }
    return this.#loops;
  }

  #end(error) {
    const loops = this.#loops;
    if (loops === null) return Promise.resolve();
    this.#loops = null;
    this.#isKept = false;
    this.#open.clear();
    loops.forget(new Set([this.#name]));
    loops.end(error);
    const left = this.#state === 'out' ? Promise.resolve() : this.#shared().leave(this.#user);
    this.#user.wantsPresence = false;
    this.#setState('out', error);
    return left;
  }

  #message(message) {
    this.#emitter.emit('message', message);
    const loops = this.#loops;
    if (loops === null || (this.#open.size === 0 && this.#emitter.has('message'))) return;
    const { room, seq } = message;
    loops.push(message, [{ room, seq, epoch: this.#link.position(room)?.epoch }]);
    const bytes = this.#link.receivedBytes();
    loops.received(bytes - this.#seenBytes);
    this.#seenBytes = bytes;
  }

  #setState(state, error) {
    if (state === this.#state && error === this.#error) return;
    this.#state = state;
    this.#error = error;
    this.#emitter.emit('state', error ? { state, error } : { state });
  }
}
return { Room };
})();
const rooms_js = (() => {
const { RustySocksError } = errors_js;
const { Room } = room_js;
const { Subscription } = subscription_js;

class Rooms {
  #subscriptions = new Map();
  #link;

  constructor(link) {
    this.#link = link;
  }

  open(name) {
    return new Room(name, this.#link, () => this.#subscription(name));
  }

  message(message) {
    if (this.#subscriptions.size === 0) return;
    for (const { room, seq } of message.rooms ?? [message]) {
      const subscription = this.#link.isIn(room) ? this.#subscriptions.get(room) : undefined;
      if (subscription) subscription.message(room === message.room ? message : { ...message, room, seq });
    }
  }

  event(name, event) {
    if (name === 'lost' || name === 'joined' || name === 'left' || name === 'presence') {
      this.#subscriptions.get(event.room)?.event(name, event);
    } else if (name === 'session') {
      for (const subscription of this.#subscriptions.values()) subscription.sessionBegan();
    } else if (name === 'dropped') {
      const text = `the server does not let this client be in ${event.room} any more: ${event.code}`;
      this.#check(new RustySocksError(event.code, text));
    }
  }

  live() {
    for (const subscription of [...this.#subscriptions.values()]) subscription.live();
  }

  left(names) {
    for (const name of names) this.#subscriptions.get(name)?.ended(null);
  }

  end(error, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription.ended(error, reason);
  }

  #check(error) {
    for (const [name, subscription] of [...this.#subscriptions]) {
      if (subscription.isIn && !this.#link.isIn(name)) subscription.ended(error);
    }
  }

  #subscription(name) {
    let subscription = this.#subscriptions.get(name);
    if (!subscription) {
      subscription = new Subscription(name, this.#link, () => {
        if (this.#subscriptions.get(name) === subscription) this.#subscriptions.delete(name);
      });
      this.#subscriptions.set(name, subscription);
    }
    return subscription;
  }
}
return { Rooms };
})();
const socket_js = (() => {
async function socketFactory({ WebSocket, headers, protocols, messageBytesMax }) {
  if (WebSocket) return (url) => new StandardSocket(WebSocket, url, protocols);
  if (globalThis.process?.versions?.node && !globalThis.window) {
    const { NodeSocket } = await node_socket_js();
    return (url) => new NodeSocket(url, { headers, protocols, messageBytesMax });
  }
  if (!globalThis.WebSocket) throw new TypeError('there is no WebSocket here; give one with the option WebSocket');
  return (url) => new StandardSocket(globalThis.WebSocket, url, protocols);
}

const GIVEN_UP = 4201;

class StandardSocket {
  onopen = null;
  onmessage = null;
  onlife = null;
  onclose = null;
  #socket;
  #isOver = false;

  constructor(WebSocket, url, protocols) {
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onopen = () => this.#isOver || this.onopen?.();
    this.#socket.onmessage = ({ data }) => this.#isOver || this.onmessage?.({ data });
    this.#socket.onclose = ({ code, reason }) => this.#over({ code, reason: reason || 'the connection was lost' });
    this.#socket.onerror = () => {};
  }

  get bufferedAmount() {
    return this.#socket.bufferedAmount;
  }

  send(text) {
    this.#socket.send(text);
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  terminate() {
    this.#over({ code: 1006, reason: 'given up' });
    this.#socket.close(GIVEN_UP);
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onclose?.(end);
  }
}
return { socketFactory };
})();
const client_js = (() => {
const { Backoff } = backoff_js;
const { systemClock } = clock_js;
const commands = command_js;
const { Connection } = connection_js;
const { Emitter } = emitter_js;
const { RustySocksError } = errors_js;
const { Outbox } = outbox_js;
const { systemPlatform } = platform_js;
const { Loops } = queue_js;
const { Reconnect } = reconnect_js;
const { Recovery } = recovery_js;
const { Rooms } = rooms_js;
const { Session, clean, isPattern } = session_js;
const { socketFactory } = socket_js;
const { Tracker, checkSeq } = tracker_js;
const { waitFault } = wait_js;

const DEFAULTS = Object.freeze({
  protocols: Object.freeze(['rusty-socks.v1']),
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

const PING_S = 30;

const PING_S_MIN = 1;
const PING_S_MAX = 24 * 3600;

class Client {
  #url;
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
  #full = new Set();
  #rooms;
  #receivedBytes = 0;
  #makeSocket = null;
  #connection = null;
  #closeTimer = null;
  #attempts = 0;
  #closed = new RustySocksError('closed', 'the client is closed');
  #fault = null;
  #state = 'idle';
  #closeOnAbort = () => this.close();
  #readiness = settleable();
  #ending = settleable();

  constructor(url, options = {}) {
    this.#url = String(url);
    new URL(this.#url);
    this.#options = { ...DEFAULTS, ...clean(options) };
    checkNumbers(this.#options);
    checkToken(this.#options.token);
    this.#clock = options.clock ?? systemClock;
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
      platform: options.platform ?? systemPlatform,
      backoff: this.#backoff,
      connect: () => this.#connect(),
    });
    this.#rooms = new Rooms(this.#roomsLink());
    if (options.session) this.#session.restore(options.session, this.#tracker);
    this.#readiness.promise.catch(() => {});
    if (this.#options.signal?.aborted) this.close();
    else if (this.#options.connect !== false) this.connect();
  }

  connect() {
    if (this.#state === 'idle') {
      const { signal } = this.#options;
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

  room(name) {
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
    return this.#add(command, { ok: () => ({ id }), isOnce: true, wait: options });
  }

  async history(room, options) {
    const command = commands.history(room, options);
    return this.#add(command, { ok: ({ epoch, seq, messages }) => ({ room, epoch, seq, messages }), wait: options });
  }

  async presence(room, options) {
    return this.#listMembers(room, options);
  }

  reconnect() {
    if (this.#state === 'idle' || this.#state === 'closing' || this.#state === 'closed') return;
    if (this.#state === 'connecting' && !this.#connection?.isGreeted) return;
    this.#reconnect.now();
  }

  close() {
    if (this.#state !== 'closed') this.#closeByUser();
    return this.closed;
  }

  [Symbol.asyncIterator]() {
    return this.#loops.open();
  }

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
      return code === 'already_member' && this.#tracker.has(room) ? joined(this.#place(room), false) : undefined;
    };
    return this.#add(command, { ok, pardon, withdrawn, wait: options });
  }

  #place(room) {
    const place = this.#tracker.room(room);
    return place && clean({ room, epoch: place.epoch, seq: place.seq, overflow: place.overflow });
  }

  #hold(loops, isFull) {
    if (isFull) this.#full.add(loops);
    else this.#full.delete(loops);
    this.#tracker.paused = this.#full.size > 0;
  }

  #emit(name, event) {
    this.#emitter.emit(name, event);
    this.#rooms.event(name, event);
  }

  #closedError() {
    return this.#state === 'closing' || this.#state === 'closed' ? this.#closed : null;
  }

  #add(command, how) {
    const fault = this.#closedError() ?? waitFault(how.wait);
    return fault ? Promise.reject(fault) : this.#outbox.add(command, how);
  }

  async #begin() {
    try {
      this.#makeSocket = await socketFactory(this.#options);
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
    if (this.#state !== 'connecting') return;
    this.#attempts += 1;
    if (this.#options.token === undefined) this.#open();
    else this.#openWithToken(this.#attempts);
  }

  async #openWithToken(attempt) {
    let token;
    let fault;
    try {
      token = await this.#newToken();
    } catch (error) {
      fault = error;
    }
    if (attempt !== this.#attempts || this.#state !== 'connecting') return;
    if (fault === undefined) this.#open(token);
    else this.#over({ code: 1006, reason: `there is no token: ${messageOf(fault)}` });
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
      socket = this.#makeSocket(this.#url);
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

  #authenticate(connection, token) {
    connection.ask({ type: 'auth', token }, (error, answer) => {
      if (error) this.#emitter.emit('error', error);
      else for (const room of answer.left ?? []) this.#recovery.excluded(room);
    });
  }

  async #renew() {
    const connection = this.#connection;
    try {
      const token = await this.#newToken();
      if (connection === this.#connection) this.#authenticate(connection, token);
    } catch (error) {
      const message = `the token is not renewed: ${messageOf(error)}`;
      this.#emitter.emit('error', { type: 'error', code: 'no_token', message });
    }
  }

  #greeted({ ping_s: pingS, max_message_bytes: bytesMax, limits } = {}, sent) {
    const seconds = pingS > 0 ? Math.min(Math.max(pingS, PING_S_MIN), PING_S_MAX) : PING_S;
    const pingMs = Math.min((seconds * 1000) / 2, this.#options.pingMsMax);
    const silenceMs = this.#options.silenceMs ?? seconds * 1000 + this.#options.silenceExtraMs;
    this.#connection.greeted({ pingMs, silenceMs });
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
        if (frame.client_id === this.#session.clientId) return this.#recovery.excluded(frame.room);
      case 'joined':
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

  #presenceChanged({ room, joined = [], left = [] }) {
    const changes = { joined, left };
    for (const type of ['joined', 'left']) {
      for (const { client_id, sender, user } of changes[type]) {
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
      if (isReplay && !isEcho) return;
    }
    this.#emitter.emit('message', message);
    this.#rooms.message(message);
    const places = (message.rooms ?? [message]).filter(({ room }) => this.#tracker.has(room));
    if (places.length === 0) return;
    this.#loops.push(
      message,
      places.map(({ room, seq }) => ({ room, seq, epoch: this.#tracker.room(room).epoch })),
    );
  }

  #worldChanged(change) {
    if (this.#state === 'closing') return;
    if (!this.#connection) {
      if (change !== 'offline') this.#reconnect.hasten();
      return;
    }
    if (this.#connection.check(this.#options.checkTimeoutMs)) return;
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
    const plan = this.#options.reconnect === false ? null : this.#reconnect.after(end);
    if (plan === null || plan.attempt > this.#options.attemptsMax) {
      return this.#finish(end, stopped(end));
    }
    return this.#setState('waiting', { ...plan, end: pick(end) });
  }

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
    this.#emitter.close();
    this.#options.signal?.removeEventListener('abort', this.#closeOnAbort);
    this.#ending.resolve(told);
  }

  #setState(state, details) {
    this.#state = state;
    this.#emitter.emit('state', { state, ...details });
  }
}

function checkNumbers(options) {
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    if (typeof standard !== 'number') continue;
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

function settleable() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
return { DEFAULTS, Client };
})();
const node_socket_js = async () => {
const frame_writer_js = (() => {
const PIECE_BYTES = 64 * 1024;

class FrameWriter {
  #socket;
  #frames = [];
  #offset = 0;
  #bytes = 0;
  #pong = null;
  #isWriting = false;
  #isEnding = false;

  constructor(socket) {
    this.#socket = socket;
  }

  get bufferedAmount() {
    return this.#bytes;
  }

  send(frame) {
    this.#frames.push(frame);
    this.#bytes += frame.length;
    this.#pump();
  }

  pong(frame) {
    this.#bytes += frame.length - (this.#pong?.length ?? 0);
    this.#pong = frame;
    this.#pump();
  }

  end() {
    this.#isEnding = true;
    this.#pump();
  }

  #pump() {
    if (this.#isWriting) return;
    const piece = this.#takePiece();
    if (piece.length === 0) {
      if (this.#isEnding) this.#socket.destroySoon();
      return;
    }
    this.#isWriting = true;
    this.#socket.write(piece, (error) => {
      this.#isWriting = false;
      this.#bytes -= piece.length;
      if (error) return;
      this.#pump();
    });
  }

  #takePiece() {
    const parts = [];
    let space = PIECE_BYTES;
    while (space > 0) {
      if (this.#pong && this.#offset === 0) {
        parts.push(this.#pong);
        space -= this.#pong.length;
        this.#pong = null;
      }
      const [frame] = this.#frames;
      if (!frame) break;
      const part = frame.subarray(this.#offset, this.#offset + Math.max(space, 0));
      parts.push(part);
      space -= part.length;
      this.#offset += part.length;
      if (this.#offset === frame.length) {
        this.#frames.shift();
        this.#offset = 0;
      }
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }
}
return { FrameWriter };
})();
const byte_queue_js = (() => {
const NOTHING = Buffer.alloc(0);

class ByteQueue {
  #buffer = NOTHING;
  #start = 0;
  #end = 0;
  #isOwn = false;

  get length() {
    return this.#end - this.#start;
  }

  push(piece) {
    if (this.length === 0) {
      this.#buffer = piece;
      this.#start = 0;
      this.#end = piece.length;
      this.#isOwn = false;
      return;
    }
    if (!this.#isOwn || this.#end + piece.length > this.#buffer.length) this.#grow(piece.length);
    piece.copy(this.#buffer, this.#end);
    this.#end += piece.length;
  }

  peek(count) {
    return this.#buffer.subarray(this.#start, this.#start + count);
  }

  take(count) {
    const bytes = this.peek(count);
    this.#start += count;
    if (this.length === 0) this.#buffer = NOTHING;
    return bytes;
  }

  #grow(count) {
    const { length } = this;
    const grown = Buffer.allocUnsafe(Math.max(length * 2, length + count));
    this.#buffer.copy(grown, 0, this.#start, this.#end);
    this.#buffer = grown;
    this.#start = 0;
    this.#end = length;
    this.#isOwn = true;
  }
}
return { ByteQueue };
})();
const frames_js = (() => {
const { ByteQueue } = byte_queue_js;

const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

const CONTROL_BYTES_MAX = 125;

class FrameError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'FrameError';
    this.code = code;
  }
}

function encodeFrame(opcode, payload, { mask = null, isFinal = true } = {}) {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 0x10000 ? 2 : 8;
  const head = Buffer.alloc(2 + extended + (mask ? 4 : 0));
  head[0] = (isFinal ? 0x80 : 0) | opcode;
  head[1] = (mask ? 0x80 : 0) | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) head.writeUInt16BE(length, 2);
  if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2);
  if (!mask) return Buffer.concat([head, payload]);
  mask.copy(head, 2 + extended);
  const bytes = Buffer.concat([head, payload]);
  applyMask(bytes.subarray(head.length), mask);
  return bytes;
}

function closePayload(code, reason = '') {
  if (code === undefined) return Buffer.alloc(0);
  const text = Buffer.from(reason);
  if (text.length > CONTROL_BYTES_MAX - 2) throw new RangeError('a close reason has at most 123 bytes');
  const payload = Buffer.alloc(2 + text.length);
  payload.writeUInt16BE(code, 0);
  text.copy(payload, 2);
  return payload;
}

class FrameReader {
  #bytes = new ByteQueue();
  #frame = null;
  #message = new ByteQueue();
  #messageOpcode = null;
  #isMasked;
  #bytesMax;
  #handlers;

  constructor({ isMasked, messageBytesMax, ...handlers }) {
    this.#isMasked = isMasked;
    this.#bytesMax = messageBytesMax;
    this.#handlers = handlers;
  }

  push(chunk) {
    this.#bytes.push(chunk);
    for (;;) {
      if (!this.#frame && !this.#readHead()) return;
      if (this.#bytes.length < this.#frame.length) return;
      const { opcode, isFinal, length, mask } = this.#frame;
      const payload = this.#bytes.take(length);
      if (mask) applyMask(payload, mask);
      this.#frame = null;
      if (opcode >= OPCODE.close) this.#control(opcode, payload);
      else this.#data(opcode, isFinal, payload);
    }
  }

  #readHead() {
    if (this.#bytes.length < 2) return false;
    const start = this.#bytes.peek(2);
    const length7 = start[1] & 0x7f;
    const hasMask = (start[1] & 0x80) !== 0;
    const size = 2 + (length7 === 126 ? 2 : length7 === 127 ? 8 : 0) + (hasMask ? 4 : 0);
    this.#checkStart(start, hasMask);
    if (this.#bytes.length < size) return false;
    const head = this.#bytes.take(size);
    let length = length7;
    if (length7 === 126) length = head.readUInt16BE(2);
    if (length7 === 127) {
      const wide = head.readBigUInt64BE(2);
      if (wide > BigInt(Number.MAX_SAFE_INTEGER)) throw new FrameError(1009, 'a frame of absurd length');
      length = Number(wide);
    }
    if ((length7 === 126 && length < 126) || (length7 === 127 && length < 0x10000)) {
      throw new FrameError(1002, 'a length that is not in its shortest form');
    }
    const opcode = head[0] & 0x0f;
    if (opcode < OPCODE.close && this.#message.length + length > this.#bytesMax) {
      throw new FrameError(1009, `a message of more than ${this.#bytesMax} bytes`);
    }
    const mask = hasMask ? head.subarray(size - 4) : null;
    this.#frame = { opcode, isFinal: (head[0] & 0x80) !== 0, length, mask };
    return true;
  }

  #checkStart([first, second], hasMask) {
    const opcode = first & 0x0f;
    const isFinal = (first & 0x80) !== 0;
    if ((first & 0x70) !== 0) throw new FrameError(1002, 'a reserved bit without an extension');
    if (!Object.values(OPCODE).includes(opcode)) throw new FrameError(1002, `the reserved opcode ${opcode}`);
    if (hasMask !== this.#isMasked) {
      throw new FrameError(1002, hasMask ? 'a masked frame from a server' : 'a frame without a mask');
    }
    if (opcode >= OPCODE.close) {
      if (!isFinal) throw new FrameError(1002, 'a fragmented control frame');
      if ((second & 0x7f) > CONTROL_BYTES_MAX) throw new FrameError(1002, 'a control frame that is too long');
    } else if ((opcode === OPCODE.continuation) !== (this.#messageOpcode !== null)) {
      throw new FrameError(1002, opcode === 0 ? 'a continuation of nothing' : 'a message inside a message');
    }
  }

  #data(opcode, isFinal, payload) {
    if (opcode !== OPCODE.continuation) this.#messageOpcode = opcode;
    this.#message.push(payload);
    if (!isFinal) return;
    const bytes = this.#message.take(this.#message.length);
    const isText = this.#messageOpcode === OPCODE.text;
    this.#messageOpcode = null;
    this.#handlers.message(isText ? decodeText(bytes) : bytes);
  }

  #control(opcode, payload) {
    if (opcode === OPCODE.ping) return this.#handlers.ping(payload);
    if (opcode === OPCODE.pong) return this.#handlers.pong(payload);
    if (payload.length === 0) return this.#handlers.close({ code: 1005, reason: '' });
    if (payload.length === 1) throw new FrameError(1002, 'a close code of one byte');
    const code = payload.readUInt16BE(0);
    if (!isSendable(code)) throw new FrameError(1002, `the close code ${code}`);
    this.#handlers.close({ code, reason: decodeText(payload.subarray(2)) });
  }
}

function applyMask(bytes, mask) {
  for (let at = 0; at < bytes.length; at += 1) bytes[at] ^= mask[at & 3];
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeText(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new FrameError(1007, 'text that is not UTF-8');
  }
}

function isSendable(code) {
  if (code >= 3000) return code < 5000;
  return code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code);
}
return { OPCODE, FrameError, encodeFrame, closePayload, FrameReader };
})();
const { createHash, randomBytes } = await import('node:crypto');
const { request: requestPlain } = await import('node:http');
const { request: requestTls } = await import('node:https');

const { FrameWriter } = frame_writer_js;
const { FrameError, FrameReader, OPCODE, closePayload, encodeFrame } = frames_js;

const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const HEAD_BYTES_MAX = 16 * 1024;

const LINGER_MS = 2000;

class NodeSocket {
  onopen = null;
  onmessage = null;
  onlife = null;
  onclose = null;
  #request;
  #socket = null;
  #writer = null;
  #reader;
  #isOver = false;
  #isClosing = false;

  constructor(url, { protocols = [], headers = {}, messageBytesMax }) {
    const { protocol, username, password } = new URL(url);
    const key = randomBytes(16).toString('base64');
    const options = {
      agent: false,
      maxHeaderSize: HEAD_BYTES_MAX,
      headers: {
        ...headers,
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
        ...(protocols.length > 0 ? { 'sec-websocket-protocol': protocols.join(', ') } : {}),
      },
    };
    if (username) options.auth = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    this.#reader = new FrameReader({
      isMasked: false,
      messageBytesMax,
      message: (data) => this.onmessage?.({ data }),
      close: (end) => this.#closeFrame(end),
      ping: (payload) => {
        if (this.#isWritable) this.#writer.pong(encode(OPCODE.pong, payload));
        this.onlife?.();
      },
      pong: () => this.onlife?.(),
    });
    const isTls = protocol === 'wss:' || protocol === 'https:';
    const target = url.replace(/^ws/i, 'http');
    this.#request = (isTls ? requestTls : requestPlain)(target, options);
    this.#request.on('upgrade', (response, socket, head) => {
      const fault = upgradeFault(response.headers, key, protocols);
      if (!fault) return this.#opened(socket, head);
      socket.on('error', () => {});
      socket.destroy();
      this.#over({ code: 1006, reason: fault });
    });
    this.#request.on('response', (response) => {
      response.on('error', () => {});
      response.destroy();
      const status = response.statusCode;
      const retryAfterMs = retryAfter(response.headers['retry-after']);
      this.#over({ code: 1006, reason: `the upgrade was refused with ${status}`, status, retryAfterMs });
    });
    this.#request.on('error', (error) => this.#over({ code: 1006, reason: error.message }));
    this.#request.end();
  }

  get bufferedAmount() {
    return this.#writer?.bufferedAmount ?? 0;
  }

  send(text) {
    this.#write(OPCODE.text, Buffer.from(text));
  }

  close(code, reason) {
    if (this.#isOver || this.#isClosing) return;
    if (!this.#socket) return this.terminate();
    this.#write(OPCODE.close, closePayload(code, reason));
    this.#isClosing = true;
    this.#linger({ code: 1006, reason: 'the server did not answer the close' });
  }

  terminate() {
    this.#over({ code: 1006, reason: 'given up' });
    this.#request.destroy();
    this.#socket?.destroy();
  }

  #opened(socket, head) {
    this.#socket = socket;
    this.#writer = new FrameWriter(socket);
    socket.setNoDelay(true);
    socket.setTimeout(0);
    let why = 'the connection was lost';
    socket.on('error', (error) => {
      why = error.message;
    });
    socket.on('close', () => this.#over({ code: 1006, reason: why }));
    socket.on('data', (chunk) => this.#read(chunk));
    this.onopen?.();
    if (head.length > 0) this.#read(head);
  }

  #read(chunk) {
    if (this.#isOver) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#write(OPCODE.close, closePayload(error.code));
      const code = error.code === 1009 ? 1009 : 1006;
      this.#over({ code, reason: `the server sent ${error.message}` });
      this.#writer.end();
      this.#linger();
    }
  }

  #closeFrame({ code, reason }) {
    if (!this.#isClosing) this.#write(OPCODE.close, closePayload(code === 1005 ? undefined : code));
    this.#over({ code, reason });
    this.#linger();
  }

  #linger(end) {
    const timer = setTimeout(() => {
      if (end) this.#over(end);
      this.#socket.destroy();
    }, LINGER_MS);
    this.#socket.once('close', () => clearTimeout(timer));
    this.#socket.once('end', () => this.#socket.destroySoon());
  }

  #write(opcode, payload) {
    if (this.#isWritable) this.#writer.send(encode(opcode, payload));
  }

  get #isWritable() {
    return this.#socket !== null && !this.#isOver && !this.#isClosing;
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onclose?.(end);
  }
}

function encode(opcode, payload) {
  return encodeFrame(opcode, payload, { mask: randomBytes(4) });
}

function upgradeFault(headers, key, protocols) {
  const accept = createHash('sha1').update(key + ACCEPT_GUID).digest('base64');
  const chosen = headers['sec-websocket-protocol'];
  if (headers.upgrade?.toLowerCase() !== 'websocket') return 'the upgrade was to something else';
  if (headers['sec-websocket-accept'] !== accept) return 'the upgrade was not accepted for this key';
  if (headers['sec-websocket-extensions']) return 'the server chose an extension that was not offered';
  if (chosen !== undefined && !protocols.includes(chosen)) return 'the server chose a subprotocol that was not offered';
  return null;
}

function retryAfter(value, now = Date.now()) {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
return { NodeSocket, retryAfter };
};
export const { Client, DEFAULTS } = client_js;
export const { RustySocksError } = errors_js;
