/**
 * The session client of Rusty Socks: it reconnects by itself, resumes where it was, and yields each message
 * of a room once and in order.
 */

/** What comes out of JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json | undefined };

/**
 * What of a type can be sent, as JSON: all of it, or `never` in the place of what cannot.
 * Interfaces and classes without methods pass, `undefined` passes in fields, where JSON leaves it
 * out, and so does what has a `toJSON` (a `Date`). Functions, symbols and bigints do not, nor do
 * maps and sets, which JSON would empty.
 */
export type Sendable<T> = [T] extends [Json]
  ? T
  : T extends null | boolean | number | string | { toJSON(...parameters: any[]): unknown }
    ? T
    : T extends ((...parameters: any[]) => unknown) | symbol | bigint | undefined
      ? never
      : T extends object
        ? { [Key in keyof T]: Sendable<Exclude<T[Key], undefined>> | Extract<T[Key], undefined> }
        : never;

/** A message of a room, as the server sent it. */
export interface Message<Content = any> {
  type: 'message';
  room: string;
  /** Counts up by one in each room, for as long as its epoch lasts. */
  seq: number;
  /** All rooms it was published to and its number in each, if they are several. It is yielded once. */
  rooms?: Place[];
  id: string;
  sender?: string;
  content: Content;
  /** RFC 3339. Never used for order. */
  timestamp: string;
  /** The client that published it. */
  client_id: string;
}

export interface Place {
  room: string;
  seq: number;
}

/** A message to this client alone. */
export interface DirectMessage<Content = any> {
  type: 'direct';
  /** Counts up by one for each direct message to this session. */
  seq: number;
  id: string;
  sender?: string;
  content: Content;
  timestamp: string;
  client_id: string;
}

/** A message to everyone. It is not kept: who is away misses it. */
export interface Broadcast<Content = any> {
  type: 'broadcast';
  id: string;
  sender?: string;
  content: Content;
  timestamp: string;
  client_id: string;
}

export interface Position {
  epoch: string;
  seq: number;
}

export interface Member {
  client_id: string;
  sender?: string;
}

/** What a room does to a client that is too slow: end its connection, leave a gap, or keep the latest only. */
export type Overflow = 'close' | 'gap' | 'latest';

/**
 * How long to wait for the answer to a command. A command that was not sent by then is withdrawn,
 * and never happens. One that was sent is not waited for any more and not sent again: the server
 * may have carried it out or not, and `wasSent` of the error says so.
 */
export interface WaitOptions {
  /** Milliseconds from 0 on; then the command is rejected with `timeout`. Default: no bound. */
  timeoutMs?: number;
  /**
   * When it is aborted, the command is rejected with `aborted`, and the signal's reason as the
   * error's `cause`.
   */
  signal?: AbortSignal | null;
}

export interface JoinOptions extends WaitOptions {
  /** Everything said after this position is yielded first; what of it is no longer kept is told as `lost`. */
  since?: Position;
  /** Asks for `joined` and `left`, and for the members. */
  presence?: boolean;
  /** The name shown to others in presence. */
  sender?: string;
}

export interface Joined extends Position {
  room: string;
  overflow?: Overflow;
  /** Whether everything after `since` came at once. */
  recovered: boolean;
  /** With `presence`. */
  members?: Member[];
  count?: number;
}

/** The answer to joining a pattern. */
export interface JoinedPattern {
  room: string;
  /** The rooms it matches today. Later ones are told as `matched`. */
  rooms: (Position & { room: string; overflow?: Overflow })[];
}

export interface SendOptions extends WaitOptions {
  /** A UUID, by which the server knows a repeat. A fresh one by default. */
  id?: string;
  sender?: string;
  /** RFC 3339, or a `Date`. The server's time by default. */
  timestamp?: string | Date;
}

export interface PublishOptions extends SendOptions {
  /** Whether it is yielded to this client too. */
  echo?: boolean;
}

export interface Published {
  /** With several rooms: the first of them. */
  room: string;
  seq: number;
  /** With several rooms: all of them. */
  rooms?: Place[];
  id: string;
  /** The server had it already, from before a reconnect. */
  repeated: boolean;
}

export interface HistoryOptions extends WaitOptions {
  /** The newest below this number. */
  before?: number;
  /** The oldest above this number. */
  after?: number;
  limit?: number;
}

export interface HistoryPage extends Position {
  room: string;
  /** Oldest first, our own among them. They are not yielded as messages. */
  messages: Message[];
}

export interface Presence {
  room: string;
  /** At most 1000. */
  members: Member[];
  /** Exact. */
  count: number;
}

/**
 * What will not come. `not_read`: came before a `for await` loop began, and was more than
 * `backlogMax`; listeners had it, and it is told when the loop begins. `not_kept` and `latest`:
 * messages `from` to `to`, both included, that the server no longer keeps, or did not keep for a
 * slow client. `epoch`: the room was forgotten and made anew, so nobody knows what there was.
 * `direct`: some of the direct messages `from` to `to`.
 */
export type Lost =
  | { room: string; epoch: string; from: number; to: number; reason: 'not_kept' | 'latest' | 'not_read'; direct?: undefined }
  | { room: string; epoch: string; from: null; to: null; reason: 'epoch'; direct?: undefined }
  | { direct: true; from: number; to: number; reason: 'not_kept'; room?: undefined };

/** How a connection ended. */
export interface End {
  /** The close code; 1006 if there was none. */
  code: number;
  reason: string;
  /** The HTTP status of a refused upgrade. A browser does not show it. */
  status?: number;
}

export type StateEvent =
  | { state: 'connecting'; attempt: number }
  | { state: 'open' }
  /**
   * `offline`: the platform knows of no network. The next attempt comes with the network, or now
   * and then.
   */
  | { state: 'waiting'; delayMs: number; attempt: number; offline: boolean; end: End }
  | { state: 'closing' }
  | { state: 'closed'; end: End & { error: RustySocksError | null } };

export interface ClientEvents {
  /** A room's message. Also yielded by iteration. */
  message: Message;
  direct: DirectMessage;
  broadcast: Broadcast;
  /** Someone else came to a room whose presence is watched. Where many do, they are told together, one event each. */
  joined: { type: 'joined'; room: string; client_id: string; sender?: string };
  left: { type: 'left'; room: string; client_id: string; sender?: string };
  /** All members of a watched room, after `joined` and `left` may have been missed. */
  presence: Presence;
  lost: Lost;
  /** A room was made, and joined through a pattern. */
  matched: { pattern: string; room: string; epoch: string; seq: number; overflow?: Overflow };
  /** A room was made that matches a pattern, and is beyond the number of rooms one may be in. */
  unmatched: { pattern: string; room: string };
  /** The room or pattern could not be taken up again after a reconnect; `code` is the server's. */
  dropped: { room: string; code: string };
  /**
   * There is a session: the one before (`resumed`), or a new one. `previous` is the `clientId` before, `null` the
   * first time. When it differs, others see another client.
   */
  session: { clientId: string; resumed: boolean; previous: string | null; welcome?: Record<string, unknown> };
  state: StateEvent;
  /** The server shuts down. The client comes back when it is told to. */
  closing: { type: 'closing'; reason: string; reconnect_after_ms: number };
  /** An error that answers no command. */
  error: { type: 'error'; code: string; message: string; retry_after_ms?: number };
}

/** What `client.session` gives. Plain data, to be kept as JSON. Whoever has `token` can take the session over. */
export interface SavedSession {
  token: string | null;
  clientId: string | null;
  direct: number;
  rooms: { room: string; epoch: string; seq: number; pattern?: string; presence?: boolean; sender?: string }[];
  patterns: string[];
  /** Rooms that were left by name and that a pattern matches. */
  declined?: string[];
}

/** What the world tells the client. */
export interface Platform {
  /**
   * Whether there may be a network. `false` makes attempts rare, and is never trusted so far as to
   * end them.
   */
  isOnline(): boolean;
  /**
   * Calls `tell` with each change until the returned function is called. `wake`: the page is seen
   * again, or the machine has slept; what was connected may be so no more.
   */
  watch(tell: (change: 'online' | 'offline' | 'wake') => void): () => void;
}

export interface ClientOptions {
  /** A session to go on with. If the server has forgotten it, its rooms are joined again where it was. */
  session?: SavedSession | undefined;
  /** Closes the client when it is aborted. */
  signal?: AbortSignal;
  /** `false`: the first end is the last. */
  reconnect?: boolean;
  /** The WebSocket to use instead of the platform's. In Node it hides the status and `Retry-After` of a refusal. */
  WebSocket?: new (url: string, protocols?: string | string[]) => unknown;
  /** Headers of the upgrade. Node only. */
  headers?: Record<string, string>;
  /** Subprotocols to offer. Default: `['rusty-socks.v1']`. */
  protocols?: string[];

  /** How long a connection may take until there is a session. Default: 20 s, more than a full server's line. */
  openTimeoutMs?: number;
  /** How long the server has to answer our close. Default: 3 s. */
  closeTimeoutMs?: number;
  /**
   * How long the server has to answer when it is asked whether it is still there, because the
   * network or the page has changed or the machine slept. Default: 5 s.
   */
  checkTimeoutMs?: number;
  /** The longest time between our pings; half of the server's `ping_s` if that is less. Default: 25 s. */
  pingMsMax?: number;
  /** A server is dead that is silent for its `ping_s` and this much. Default: 15 s. */
  silenceExtraMs?: number;
  /** The silence after which a server is dead, whatever its `ping_s`. */
  silenceMs?: number;
  /** The delay before attempt n is random between 0 and this times 2ⁿ. Default: 250 ms. */
  backoffBaseMs?: number;
  /** And at most this. Default: 30 s. */
  backoffCapMs?: number;
  /** A session that was up this long begins the backoff anew. Default: 5 s. */
  settledMs?: number;
  /** Reconnects in a row, without a session that lasted, before the client gives up. Default: no bound. */
  attemptsMax?: number;

  /** Commands that may wait for their answers; one more is rejected with `outbox_full`. Default: 1000. */
  outboxMax?: number;
  /** The bytes of all these commands together. Default: 64 MiB. */
  outboxBytesMax?: number;
  /**
   * Commands sent and not answered at once; less after the server was too busy, and at most 8 where
   * the server does not tell its rate limits. At least 1. Default: 64.
   */
  inFlightMax?: number;
  /**
   * How often a command is tried again that was `rate_limited` or `overloaded`; a leave always is.
   * Default: 10.
   */
  retriesMax?: number;
  /** Messages of a room that wait while a gap is fetched; more are fetched from history. Default: 10,000. */
  holdMax?: number;
  /**
   * Bytes of the messages that wait in all rooms; beyond about as many, those of the rooms with the
   * most are let go, and fetched from history later. Default: 64 MiB.
   */
  holdBytesMax?: number;
  /**
   * Messages that wait for a `for await` loop. When there are as many, nothing more is yielded, to
   * listeners neither, until half are read; what comes meanwhile waits as behind a gap. At least 1.
   * Default: 1000.
   */
  queueMax?: number;
  /**
   * Bytes of these messages, and of those that `backlogMax` counts; about as many are as good as
   * too many messages. Default: 64 MiB.
   */
  queueBytesMax?: number;
  /**
   * Messages that wait for the next `for await` loop while there is none. Of more than that the
   * newest wait, and the others are told as `lost` when it begins. 0 for a client that has
   * listeners alone. Default: 1000.
   */
  backlogMax?: number;
  /** Messages published with `echo` that are remembered until they come back. Default: 1000. */
  echoesMax?: number;
  /** Rooms that the server may put this client in; one more ends it with `misbehaved`. Default: 100,000. */
  roomsMax?: number;
  /** The largest message taken from the server. Node only. Default: 64 MiB. */
  messageBytesMax?: number;
  /**
   * Bytes that may wait to be sent; while there are as many, commands wait for them. A server that
   * takes none of them for as long as it may be silent is given up. Default: 1 MiB.
   */
  unsentBytesMax?: number;

  /** A source of jitter in [0, 1), for tests. */
  random?: () => number;
  /**
   * What tells of the network and the page, for tests and for platforms without the events of
   * browsers.
   */
  platform?: Platform;
  /** Time, for tests. */
  clock?: {
    /** Milliseconds that only count up. */
    now(): number;
    /** Milliseconds of the date, which go on while a machine sleeps. Default: `now`. */
    date?(): number;
    setTimeout(run: () => void, ms: number): unknown;
    clearTimeout(timer: any): void;
  };
}

/**
 * What promises are rejected with.
 *
 * `code` is the server's (`not_member`, `forbidden`, …; `bad_request` also for arguments that are
 * wrong before anything is sent, such as content that JSON cannot hold, which is then the `cause`)
 * or one of
 * - `closed`: the client was closed by its user;
 * - `stopped`: it was ended for good; `end` says how;
 * - `outbox_full`: too many commands wait already;
 * - `too_large`: the server does not take a message of that size;
 * - `misbehaved`: the server answered with what makes no sense, or put the client in more than `roomsMax` rooms;
 * - `timeout`, `aborted`: the command's `timeoutMs` passed, or its `signal` was aborted; see
 *   `wasSent`;
 * - `answer_lost`: a broadcast may have been sent or not, because the connection ended before the answer.
 */
export class RustySocksError extends Error {
  constructor(code: string, message: string, details?: object);
  readonly code: string;
  readonly retryAfterMs?: number;
  readonly end?: End;
  /**
   * Of `timeout` and `aborted`: whether the command was sent, so that the server may carry it out.
   */
  readonly wasSent?: boolean;
}

/** The options' defaults. */
export const DEFAULTS: Readonly<Partial<ClientOptions>>;

export class Client implements AsyncIterable<Message> {
  /** Connects at once. Listeners that are added in the same turn miss nothing. */
  constructor(url: string | URL, options?: ClientOptions);

  /** Settles when there is a session for the first time; rejects if there never will be. */
  readonly ready: Promise<void>;
  /** Settles when the client has ended. Never rejects: `error` is `null` after `close()`. */
  readonly closed: Promise<End & { error: RustySocksError | null }>;
  readonly state: StateEvent['state'];
  /** The name others know this session by; `null` before the first. */
  readonly clientId: string | null;
  /** All that is needed to go on later: give it as the option `session`. */
  readonly session: SavedSession;
  /** The rooms this client is in, those joined through patterns included. */
  readonly rooms: string[];
  /** Commands that wait for their answers. */
  readonly pending: number;

  /**
   * Calls `listener` with each event from now on. What it returns ends that; so do `off`, `signal`
   * and the end of the client. A function that is added twice is called twice. What a listener
   * throws is reported as an uncaught error, and the other listeners and the client go on.
   */
  on<Name extends keyof ClientEvents>(
    name: Name,
    listener: (event: ClientEvents[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  /** As `on`, for the next event alone. */
  once<Name extends keyof ClientEvents>(
    name: Name,
    listener: (event: ClientEvents[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  /** Ends what the latest `on` or `once` with this listener began. */
  off<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): void;

  /** Joins all rooms that match, those made later too. */
  join(pattern: `${string}.*`, options?: WaitOptions): Promise<JoinedPattern>;
  /**
   * Joins a room, and stays in it over reconnects. After `timeout` or `aborted`, `leave` makes sure
   * of being out.
   */
  join(room: string, options?: JoinOptions): Promise<Joined>;
  /**
   * Leaves a room, or all that were joined through a pattern and that no other one holds. Nothing
   * of it is yielded or told from this call on, whatever is on its way. A room that was left by
   * name comes back through a pattern only when it is made anew. The command is sent even when its
   * wait has ended.
   */
  leave(room: string, options?: WaitOptions): Promise<{ room: string }>;
  /**
   * Publishes to a room, or to several at one instant. Settles when the server has it, if need be over
   * several connections; the same session does not publish it twice.
   */
  publish<Content>(to: string | string[], content: Content & Sendable<Content>, options?: PublishOptions): Promise<Published>;
  /** Sends to one client. Rejects with `not_found` or, if it is away and its inbox full, `limit_exceeded`. */
  direct<Content>(
    to: string,
    content: Content & Sendable<Content>,
    options?: SendOptions,
  ): Promise<{ to: string; id: string; repeated: boolean }>;
  /** Sends to everyone, where the server allows that. Never sent twice: see `answer_lost`. */
  broadcast<Content>(content: Content & Sendable<Content>, options?: SendOptions): Promise<{ id: string }>;
  history(room: string, options?: HistoryOptions): Promise<HistoryPage>;
  /**
   * Who is in a room, at most 1000 or `limit` of them, behind the `client_id` `after`. `watch` begins
   * or ends `joined` and `left` in the same instant.
   */
  presence(
    room: string,
    options?: WaitOptions & { watch?: boolean; after?: string; limit?: number },
  ): Promise<Presence>;
  /**
   * Connects anew at once: a wait for the next attempt ends, an open connection is given up and its
   * session goes on over another one, an attempt under way goes on. The backoff begins anew. Does
   * nothing after `close` or the end.
   */
  reconnect(): void;
  /** Ends the session, on the server too. Commands that wait are rejected with `closed`. */
  close(): Promise<End & { error: RustySocksError | null }>;

  /**
   * The messages of all rooms since the client began, or since the loop before this one was left;
   * see `backlogMax`. A second loop beside the first has them from now on. Ends with the client,
   * and throws if that was `stopped`.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
}
