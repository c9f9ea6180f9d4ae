/**
 * Commands. Arguments are checked and serialised at the call, so that only that call can fail, and
 * later changes of the arguments have no effect.
 */
import { RustySocksError } from './errors.js';
import { clean, isPattern } from './session.js';

// What `ref` adds to the text of a command, at most.
const REF_BYTES = 30;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const NIL = /^[0-]*$/;
const RFC_3339 = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
// With `u`, the halves of a pair do not match.
const LONE_SURROGATE = /\p{Surrogate}/u;

const encoder = new TextEncoder();

/** A command with its fields, but for the content, which is kept as text alone. */
export class Command {
  #text;
  #bytes;

  constructor(fields, content) {
    Object.assign(this, clean(fields));
    const head = JSON.stringify(this).slice(0, -1);
    this.#text = content === undefined ? head : `${head},"content":${content}`;
    this.#bytes = encoder.encode(this.#text).length + REF_BYTES;
  }

  /** The size on the wire, at most. */
  get bytes() {
    return this.#bytes;
  }

  /** What is sent, with this `ref`. */
  text(ref) {
    return `${this.#text},"ref":${ref}}`;
  }
}

export function join(room, options) {
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

export function leave(room) {
  return new Command({ type: 'leave', room: text('room', room) });
}

export function publish(to, content, options, freshId) {
  const { echo } = given(options);
  const fields = {
    type: 'publish',
    ...(Array.isArray(to) ? { rooms: names(to) } : { room: text('room', to) }),
    ...messageFields(options, freshId),
    echo: optional(echo, (value) => flag('echo', value)),
  };
  return new Command(fields, contentText(content));
}

export function direct(to, content, options, freshId) {
  const fields = { type: 'direct', to: text('to', to), ...messageFields(options, freshId) };
  return new Command(fields, contentText(content));
}

export function broadcast(content, options, freshId) {
  return new Command({ type: 'broadcast', ...messageFields(options, freshId) }, contentText(content));
}

export function history(room, options) {
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

export function presence(room, options) {
  const { watch, after, limit } = given(options);
  return new Command({
    type: 'presence',
    room: text('room', room),
    watch: optional(watch, (value) => flag('watch', value)),
    after: optional(after, (value) => text('after', value)),
    limit: optional(limit, (value) => count('limit', value)),
  });
}

/** What is sent of a command, or of fields that are the client's own. */
export function textOf(command, ref) {
  return command instanceof Command ? command.text(ref) : JSON.stringify({ ...command, ref });
}

/** Whether it changes which rooms we are in. */
export function isMembership({ type }) {
  return type === 'join' || type === 'leave';
}

/** Whether what is done with `name` may change what becomes of `other`. */
export function touches(name, other) {
  return name === other || isBelow(name, other) || isBelow(other, name);
}

function isBelow(name, pattern) {
  return isPattern(pattern) && name.startsWith(pattern.slice(0, -1));
}

/** What `publish`, `direct` and `broadcast` have in common. */
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
  // For `undefined`, a function, a symbol, or an object whose `toJSON` returns one of these.
  if (json === undefined) throw wrong(`content must be a value that JSON has, not ${kind(content)}`);
  return json;
}

function given(options) {
  if (options === undefined || options === null) return {};
  if (typeof options !== 'object') throw wrong(`options must be an object, not ${kind(options)}`);
  return options;
}

/** For the server `null` is the same as nothing. */
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

/** In lower case, as the server gives it back. */
function uuid(value) {
  // The server would silently replace any other id, and a repeat would be published twice.
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
