/**
 * The client of Rusty Socks: it reconnects, resumes its session, and yields each message of a room
 * once and in order.
 */

/** A value parsed from JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json | undefined };

/**
 * A type that JSON can represent, with `never` in place of parts that it cannot. Allowed are
 * interfaces and classes without methods, `undefined` in fields, where JSON omits it, and types
 * with `toJSON` (a `Date`). Not allowed are functions, symbols and bigints, and maps and sets,
 * which JSON would empty.
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

/** A message of a room, as sent by the server. */
export interface Message<Content = any> {
  type: 'message';
  room: string;
  /** Counts up by one in each room, within an epoch. */
  seq: number;
  /** All rooms and the number in each, if published to several rooms. The message is yielded once. */
  rooms?: Place[];
  id: string;
  sender?: string;
  content: Content;
  /** RFC 3339. Never used for ordering. */
  timestamp: string;
  /** The client that published it. */
  client_id: string;
  /** Its user, if it has one: the claim `sub` of its token. */
  user?: string;
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
  user?: string;
}

/** A message to all clients. It is not kept: clients that are away miss it. */
export interface Broadcast<Content = any> {
  type: 'broadcast';
  id: string;
  sender?: string;
  content: Content;
  timestamp: string;
  client_id: string;
  user?: string;
}

export interface Position {
  epoch: string;
  seq: number;
}

export interface Member {
  client_id: string;
  sender?: string;
  user?: string;
}

/** The policy of a room for a slow client: close its connection, skip messages, or keep only the latest. */
export type Overflow = 'close' | 'gap' | 'latest';

/**
 * How long to wait for the answer to a command. A command that was not sent by then is withdrawn.
 * One that was sent is not sent again, and the server may or may not have executed it; `wasSent` of
 * the error is `true`.
 */
export interface WaitOptions {
  /** Milliseconds, 0 or more, after which the command is rejected with `timeout`. Default: no limit. */
  timeoutMs?: number;
  /**
   * If it is aborted, the command is rejected with `aborted`, with the signal's reason as `cause`.
   */
  signal?: AbortSignal | null;
}

export interface JoinOptions extends WaitOptions {
  /** Messages after this position are yielded first. Those no longer kept are reported as `lost`. */
  since?: Position;
  /** Requests the members, and `joined` and `left` events. */
  presence?: boolean;
  /** The name in presence. */
  sender?: string;
}

export interface Joined extends Position {
  room: string;
  overflow?: Overflow;
  /** Whether the answer had all messages after `since`. */
  recovered: boolean;
  /** Only with `presence`. */
  members?: Member[];
  count?: number;
}

/** The answer to joining a pattern. */
export interface JoinedPattern {
  room: string;
  /** The matching rooms that exist. Later ones are reported by `matched`. */
  rooms: (Position & { room: string; overflow?: Overflow })[];
}

export interface SendOptions extends WaitOptions {
  /** A UUID by which the server recognises a repeat. Default: a new one. */
  id?: string;
  sender?: string;
  /** RFC 3339, or a `Date`. Default: the server's time. */
  timestamp?: string | Date;
}

export interface PublishOptions extends SendOptions {
  /** Whether the message is yielded to this client too. */
  echo?: boolean;
}

export interface Published {
  /** With several rooms: the first of them. */
  room: string;
  seq: number;
  /** With several rooms: all of them. */
  rooms?: Place[];
  id: string;
  /** Whether the server already had the message, from before a reconnect. */
  repeated: boolean;
}

export interface HistoryOptions extends WaitOptions {
  /** The newest messages below this number. */
  before?: number;
  /** The oldest messages above this number. */
  after?: number;
  limit?: number;
}

export interface HistoryPage<Content = any> extends Position {
  room: string;
  /** Oldest first, the client's own included. They are not yielded as messages. */
  messages: Message<Content>[];
}

export interface Presence {
  room: string;
  /** At most 1000 members. */
  members: Member[];
  /** The exact number of members. */
  count: number;
}

/**
 * Messages that are lost. `not_read`: they arrived before a `for await` loop began and exceeded
 * `backlogMax`; listeners got them, and the event is sent when the loop begins. `not_kept` and
 * `latest`: the server no longer keeps messages `from` to `to` (inclusive), or skipped them for a
 * slow client. `epoch`: the room was removed and made again, so missed messages are unknown; or the
 * server has lost the room's newest messages, yielded or not, and gives their numbers again.
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
  /** The HTTP status of a refused upgrade, which browsers hide, or of a refused event stream. */
  status?: number;
}

export type StateEvent =
  /** Only `client.state`, and no event: made with `connect: false`, and `connect()` was not called. */
  | { state: 'idle' }
  | { state: 'connecting'; attempt: number }
  | { state: 'open' }
  /**
   * `offline`: the platform reports no network. The next attempt is made when the network is back,
   * or occasionally.
   */
  | { state: 'waiting'; delayMs: number; attempt: number; offline: boolean; end: End }
  | { state: 'closing' }
  | { state: 'closed'; end: End & { error: RustySocksError | null } };

export interface ClientEvents {
  /** A room's message. Also yielded by iteration. */
  message: Message;
  direct: DirectMessage;
  broadcast: Broadcast;
  /** Another client joined a watched room. If the server reports several at once, there is one event for each. */
  joined: { type: 'joined'; room: string; client_id: string; sender?: string; user?: string };
  left: { type: 'left'; room: string; client_id: string; sender?: string; user?: string };
  /** All members of a watched room, after `joined` or `left` events may have been missed. */
  presence: Presence;
  lost: Lost;
  /** A new room was joined through a pattern. */
  matched: { pattern: string; room: string; epoch: string; seq: number; overflow?: Overflow };
  /** A new room matches a pattern, but exceeds the number of rooms the client may be in. */
  unmatched: { pattern: string; room: string };
  /** A room or pattern could not be joined again after a reconnect, or a new token or new rules of the server do not allow it; `code` is the server's. */
  dropped: { room: string; code: string };
  /**
   * A session is established: the previous one (`resumed`), or a new one. `previous` is the
   * previous `clientId`, `null` the first time. If it differs, others see another client.
   */
  session: { clientId: string; resumed: boolean; previous: string | null; welcome?: Record<string, unknown> };
  state: StateEvent;
  /** The server shuts down. The client reconnects after the delay that the server asks for. */
  closing: { type: 'closing'; reason: string; reconnect_after_ms: number };
  /** An error that is not the answer to a command. */
  error: { type: 'error'; code: string; message: string; retry_after_ms?: number };
}

/** The value of `client.session`: plain data to store as JSON. `token` is a secret: it can take the session over. */
export interface SavedSession {
  token: string | null;
  clientId: string | null;
  direct: number;
  rooms: { room: string; epoch: string; seq: number; pattern?: string; presence?: boolean; sender?: string }[];
  patterns: string[];
  /** Rooms that match a pattern and were left by name. */
  declined?: string[];
}

/** Events of the platform: network and page. */
export interface Platform {
  /**
   * Whether there may be a network. `false` makes attempts rare but does not stop them.
   */
  isOnline(): boolean;
  /**
   * Calls `tell` with each change until the returned function is called. `wake`: the page became
   * visible, or the machine woke up, so connections may be lost.
   */
  watch(tell: (change: 'online' | 'offline' | 'wake') => void): () => void;
}

export interface ClientOptions {
  /** `false`: connects only when `connect()` is called. Commands wait until then. Default: `true`. */
  connect?: boolean;
  /** A session to resume. If the server no longer has it, its rooms are joined again from their positions. */
  session?: SavedSession | undefined;
  /** Closes the client when it is aborted, from `connect()` on. */
  signal?: AbortSignal;
  /** `false`: does not reconnect. */
  reconnect?: boolean;
  /** The WebSocket class to use instead of the default. In Node, a standard one hides the status and `Retry-After` of a refusal. */
  WebSocket?: new (url: string, protocols?: string | string[]) => unknown;
  /**
   * Says who the client is: a token (a JWT), or a function that gets one. A function is called for
   * each connection, and when the token is about to end. It is sent in the first frame, so that a
   * page sees why it is refused; the client then ends with close code 4001. If the function fails,
   * the attempt to connect has failed, and is repeated like any other.
   */
  token?: string | (() => string | Promise<string>);
  /**
   * Whether the client may do without a WebSocket, on networks that let none pass: messages then
   * come as an event stream and go as POSTs, to the same address. `auto`: an attempt whose WebSocket
   * had no session is followed by one with an event stream, in turns; where a WebSocket has worked,
   * not before three of them have failed. A server that was reached by an event stream is reached by
   * one first for ten minutes; a page remembers that in `sessionStorage`. `only`: never a WebSocket.
   * Default: `auto`; `off` if the option `WebSocket` is given.
   */
  fallback?: 'auto' | 'off' | 'only';
  /** Headers of the upgrade request, and of those of an event stream. Node only. */
  headers?: Record<string, string>;
  /** Subprotocols to offer; an event stream has none. Default: `['rusty-socks.v1']`. */
  protocols?: string[];

  /** Time limit for a connection to get a session. Default: 20 s, longer than the line of a full server. */
  openTimeoutMs?: number;
  /** Time limit for the server's answer to a close. Default: 3 s. */
  closeTimeoutMs?: number;
  /**
   * Time limit for the answer to a check of the connection, after the network or the page has
   * changed or the machine woke up. Default: 5 s.
   */
  checkTimeoutMs?: number;
  /** The time between the client's pings; half of the server's `ping_s` if that is less. Default: 25 s. */
  pingMsMax?: number;
  /** The connection is lost if the server is silent for its `ping_s` plus this. Default: 15 s. */
  silenceExtraMs?: number;
  /** The silence after which the connection is lost, whatever the server's `ping_s`. */
  silenceMs?: number;
  /** The delay before attempt n is random between 0 and this times 2ⁿ. Default: 250 ms. */
  backoffBaseMs?: number;
  /** The longest delay of the backoff. Default: 30 s. */
  backoffCapMs?: number;
  /** A session that lasted this long resets the backoff. Default: 5 s. */
  settledMs?: number;
  /** Attempts in a row, without a session that lasted, after which the client gives up. Default: no limit. */
  attemptsMax?: number;

  /** Commands that may wait for their answers; further ones are rejected with `outbox_full`. Default: 1000. */
  outboxMax?: number;
  /** Bytes of all commands that wait. Default: 64 MiB. */
  outboxBytesMax?: number;
  /**
   * Commands that may be sent and unanswered; fewer after the server was busy, and at most 8 if the
   * server does not state its rate limits. At least 1. Default: 64.
   */
  inFlightMax?: number;
  /**
   * How often a `rate_limited` or `overloaded` command is repeated; a leave is repeated without
   * limit. Default: 10.
   */
  retriesMax?: number;
  /** Messages of a room that wait while a gap is fetched; more are fetched from history. Default: 10,000. */
  holdMax?: number;
  /**
   * Approximate limit for the bytes of messages that wait in all rooms. Beyond it, the messages of
   * the largest rooms are dropped, and fetched from history later. Default: 64 MiB.
   */
  holdBytesMax?: number;
  /**
   * Messages that may wait for a `for await` loop. At this limit nothing is yielded, not even to
   * listeners, until half of them are read; later messages wait as behind a gap. At least 1.
   * Default: 1000.
   */
  queueMax?: number;
  /**
   * Approximate limit for the bytes of these messages, and of those that `backlogMax` counts.
   * Default: 64 MiB.
   */
  queueBytesMax?: number;
  /**
   * Messages that wait for the next `for await` loop while there is none. Beyond it only the newest
   * wait, and the others are reported as `lost` when the loop begins. Use 0 for a client with
   * listeners only. Default: 1000.
   */
  backlogMax?: number;
  /** Messages published with `echo` that are remembered until they are received. Default: 1000. */
  echoesMax?: number;
  /** Rooms that the server may put this client in; one more ends it with `misbehaved`. Default: 100,000. */
  roomsMax?: number;
  /**
   * How long a room stays joined after the last `Room` of it was left, so that a part of a page can
   * go and come again without a gap. Default: 0 ms, the end of the turn of the event loop.
   */
  roomLingerMs?: number;
  /** Members that a `Room` lists; others are only counted. Default: 1000. */
  membersMax?: number;
  /** The largest message accepted from the server, in Node and by an event stream. Default: 64 MiB. */
  messageBytesMax?: number;
  /**
   * Bytes that may wait to be sent; at this limit commands wait. The connection is lost if the
   * server reads none of them for the time that it may be silent. Default: 1 MiB.
   */
  unsentBytesMax?: number;

  /** A source of jitter in [0, 1), for tests. */
  random?: () => number;
  /**
   * The source of network and page events, for tests and for platforms without browser events.
   */
  platform?: Platform;
  /** Time, for tests. */
  clock?: {
    /** Monotonic time in milliseconds. */
    now(): number;
    /** Wall-clock time in milliseconds, which advances while the machine sleeps. Default: `now`. */
    date?(): number;
    setTimeout(run: () => void, ms: number): unknown;
    clearTimeout(timer: any): void;
  };
}

/**
 * The error with which promises are rejected.
 *
 * `code` is the server's (`not_member`, `forbidden`, …; `bad_request` also for arguments that are
 * wrong before anything is sent, such as content that JSON cannot hold, which is then the `cause`)
 * or one of
 * - `closed`: the program closed the client;
 * - `left`: a `Room` was left before it was joined;
 * - `stopped`: the client ended for good; `end` says how;
 * - `outbox_full`: too many commands wait;
 * - `too_large`: the message is larger than the server accepts;
 * - `misbehaved`: the server sent an invalid answer, or put the client in more than `roomsMax`
 *   rooms;
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
   * For `timeout` and `aborted`: whether the command was sent, so that the server may execute it.
   */
  readonly wasSent?: boolean;
}

/** The defaults of the options. */
export const DEFAULTS: Readonly<Partial<ClientOptions>>;

/** How a `Room` of the program stands. */
export type RoomStateEvent =
  | { state: 'joining'; error?: undefined }
  | { state: 'joined'; error?: undefined }
  /** Not joined, or left. `error`: why it could not be joined, or why it ended. */
  | { state: 'out'; error?: RustySocksError };

export interface RoomEvents<Content = any> {
  /** A message of this room. `room` and `seq` are of this room, if it was published to several. */
  message: Message<Content>;
  /** Another client joined, or left. Only after `join({ presence: true })`. */
  joined: ClientEvents['joined'];
  left: ClientEvents['left'];
  /** The list of members is new, or has changed. Once for all changes of a turn of the event loop. */
  members: { members: readonly Member[]; count: number };
  lost: Exclude<Lost, { direct: true }>;
  state: RoomStateEvent;
}

/** Where a `Room` begins. */
export interface Entered extends Position {
  room: string;
  overflow?: Overflow;
  /** Whether all messages after `since` are yielded. `false` if the client was in the room already. */
  recovered: boolean;
  /** Only with `presence`. */
  members?: Member[];
  count?: number;
}

/**
 * A room for one of its users: a component of a page, or a part of a program. The client is in the
 * room once, however many of these there are: it joins for the first, and leaves after the last. A
 * room that the client is in by other means (`client.join`, a pattern, the default room) is not
 * left.
 *
 * Events are told from `join` to `leave`, over reconnects; `state` always. After the end, by `leave`
 * or by the server, it can be joined again.
 */
export interface Room<Content = any> extends AsyncIterable<Message<Content>> {
  readonly name: string;
  /** `joined` also while the client reconnects: see `client.state`. */
  readonly state: RoomStateEvent['state'];
  /** Why it is `out`, if it was not left by the program. */
  readonly error: RustySocksError | null;
  /**
   * The members, kept up to date after `join({ presence: true })`; otherwise `null`. The list is
   * never changed: there is a new one after each change.
   */
  readonly members: readonly Member[] | null;
  /** The number of members, those included that `membersMax` leaves out. */
  readonly memberCount: number | null;

  on<Name extends keyof RoomEvents>(
    name: Name,
    listener: (event: RoomEvents<Content>[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  once<Name extends keyof RoomEvents>(
    name: Name,
    listener: (event: RoomEvents<Content>[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  off<Name extends keyof RoomEvents>(name: Name, listener: (event: RoomEvents<Content>[Name]) => void): void;

  /**
   * Joins. Does nothing more if it is joined already, but that `presence` is added. If the client is
   * in the room already, `since` and `sender` have no effect. If the wait ends before, by
   * `timeoutMs` or `signal`, the room is left again. Rejects with `left` if `leave` comes first.
   */
  join(options?: JoinOptions): Promise<Entered>;
  /**
   * Ends what this user gets, at once, and its loops. Settles when the server has let go of the
   * room, or at once if it has other users.
   */
  leave(): Promise<void>;
  /** As `client.publish`. Yielded to the client's own rooms with `echo: true` only. */
  publish(content: Content & Sendable<Content>, options?: PublishOptions): Promise<Published>;
  history(options?: HistoryOptions): Promise<HistoryPage<Content>>;
  /**
   * Yields the messages of this room from `join` on, and joins if that is still to be done; then the
   * room is left with the last loop. Messages wait for a loop as in the client, but not while there
   * are listeners and no loop. Ends with `leave`, and throws if the room was ended by something
   * else.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message<Content>>;
}

/** What is published in a room, by its name, in an interface such as `{ tea: Tea }`. */
export type ContentOf<Rooms, Name extends string> = Name extends keyof Rooms ? Rooms[Name] : any;

/**
 * `Rooms` says what is published where: with `new Client<{ tea: Tea; [prices: `prices.${string}`]:
 * Price }>(url)`, `client.room('tea')` yields and takes a `Tea`.
 */
export class Client<Rooms = any> implements AsyncIterable<Message> {
  /** Connects at once, unless `connect` is `false`. Listeners that are added in the same turn of the event loop miss nothing. */
  constructor(url: string | URL, options?: ClientOptions);

  /** Settles with the first session; rejects if the client ends before. */
  readonly ready: Promise<void>;
  /** Settles when the client has ended. Never rejects: `error` is `null` after `close()`. */
  readonly closed: Promise<End & { error: RustySocksError | null }>;
  readonly state: StateEvent['state'];
  /** How the session is connected; `null` while it is not. See the option `fallback`. */
  readonly transport: 'websocket' | 'event-stream' | null;
  /** The client id of the session; `null` before the first session. */
  readonly clientId: string | null;
  /** The state needed to resume later: pass it as the option `session`. */
  readonly session: SavedSession;
  /** The rooms this client is in, those joined through patterns included. */
  readonly rooms: string[];
  /** Commands that wait for their answers. */
  readonly pending: number;

  /**
   * Calls `listener` with each event from now on, until the returned function or `off` is called,
   * `signal` is aborted, or the client ends. A function that is added twice is called twice. An
   * exception of a listener is reported as uncaught, and does not affect other listeners or the
   * client.
   */
  on<Name extends keyof ClientEvents>(
    name: Name,
    listener: (event: ClientEvents[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  /** Like `on`, for the next event only. */
  once<Name extends keyof ClientEvents>(
    name: Name,
    listener: (event: ClientEvents[Name]) => void,
    options?: { signal?: AbortSignal },
  ): () => void;
  /** Removes the latest registration of this listener by `on` or `once`. */
  off<Name extends keyof ClientEvents>(name: Name, listener: (event: ClientEvents[Name]) => void): void;

  /**
   * Connects a client that was made with `connect: false`, and gives `ready`. Does nothing more if it
   * has begun already, and a client that has ended does not come back.
   */
  connect(): Promise<void>;

  /**
   * A room for one of its users. Each call makes another one, which costs nothing until it is
   * joined.
   */
  room<Name extends string>(name: Name): Room<ContentOf<Rooms, Name>>;
  room<Content>(name: string): Room<Content>;

  /** Joins all matching rooms, later ones too. */
  join(pattern: `${string}.*`, options?: WaitOptions): Promise<JoinedPattern>;
  /**
   * Joins a room, and stays in it across reconnects. After `timeout` or `aborted`, call `leave` to
   * be sure to be out.
   */
  join(room: string, options?: JoinOptions): Promise<Joined>;
  /**
   * Leaves a room, or all rooms joined through a pattern that no other pattern matches. From this
   * call on, no message or event of these rooms is yielded, whatever is in flight. A room that was
   * left by name is joined through a pattern again only if it is made anew. The command is sent
   * even if its wait has ended.
   */
  leave(room: string, options?: WaitOptions): Promise<{ room: string }>;
  /**
   * Publishes to a room, or to several in one atomic step. Settles when the server has the message,
   * across reconnects if needed. A session never publishes it twice.
   */
  publish<Content>(to: string | string[], content: Content & Sendable<Content>, options?: PublishOptions): Promise<Published>;
  /** Sends to one client. Rejects with `not_found`, or with `limit_exceeded` if it is away and its inbox is full. */
  direct<Content>(
    to: string,
    content: Content & Sendable<Content>,
    options?: SendOptions,
  ): Promise<{ to: string; id: string; repeated: boolean }>;
  /** Sends to all other clients, if the server allows it. Never sent twice: see `answer_lost`. */
  broadcast<Content>(content: Content & Sendable<Content>, options?: SendOptions): Promise<{ id: string }>;
  history(room: string, options?: HistoryOptions): Promise<HistoryPage>;
  /**
   * Lists the members of a room: at most 1000, or `limit`, in the order of their ids, beginning after
   * the `client_id` `after`. `watch` begins or ends `joined` and `left` events in the same atomic step.
   */
  presence(
    room: string,
    options?: WaitOptions & { watch?: boolean; after?: string; limit?: number },
  ): Promise<Presence>;
  /**
   * Reconnects at once: skips the wait for the next attempt, or replaces an open connection and
   * resumes its session. An attempt in progress continues. Resets the backoff. Does nothing after
   * `close` or the end.
   */
  reconnect(): void;
  /** Ends the session, on the server too. Commands that wait are rejected with `closed`. */
  close(): Promise<End & { error: RustySocksError | null }>;

  /**
   * Yields the messages of all rooms since the client began, or since the previous loop was left;
   * see `backlogMax`. A second concurrent loop gets messages from now on. Ends with the client, and
   * throws if the client was `stopped`.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
}
