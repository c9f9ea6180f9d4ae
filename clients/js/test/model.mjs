/**
 * A server in memory, with rooms, patterns and sessions as `docs/protocol.md` has them, and a network whose every
 * step is the test's. Nothing in it waits or has a clock.
 */

// What the real server does after so many.
const ERRORS_MAX = 10;

const PAGE_MAX = 3;

const matches = (pattern, room) => pattern.endsWith('.*') && room.startsWith(pattern.slice(0, -1));

export class ModelServer {
  /** Whether a command of so many bytes is refused: gives the fields of the error, or nothing. */
  refuses = () => undefined;
  /** What the welcome says of limits. */
  limits = {};
  /** Whether the client's socket throws at what it is to send. */
  breaks = false;
  #rooms = new Map();
  #sessions = new Map();
  #links = [];
  #count = 0;

  /** A WebSocket that ends here. */
  get WebSocket() {
    const server = this;
    return class {
      constructor() {
        this.link = new Link(server, this);
        server.#links.push(this.link);
      }

      send(text) {
        if (server.breaks) throw new Error('broken');
        this.link.up.push({ ...JSON.parse(text), bytes: Buffer.byteLength(text) });
      }

      close(code) {
        this.link.end(code);
      }
    };
  }

  /** The newest connection. */
  get link() {
    return this.#links.at(-1);
  }

  hasRoom(name) {
    return this.#rooms.has(name);
  }

  makeRoom(name) {
    if (this.#rooms.has(name)) return this.#rooms.get(name);
    const room = { name, epoch: 'e', log: [] };
    this.#rooms.set(name, room);
    for (const session of this.#sessions.values()) {
      const pattern = session.patterns.find((own) => matches(own, name));
      if (!pattern || !session.link) continue;
      session.seats.set(name, { pattern });
      session.link.down.push({ type: 'matched', pattern, room: name, epoch: 'e', seq: 0 });
    }
    return room;
  }

  /** Somebody else says something, in one room or in several. */
  say(names, publisher = null, fields = { id: `said-${(this.#count += 1)}`, content: 'x' }) {
    const rooms = names.map((name) => ({ room: name, seq: this.makeRoom(name).log.length + 1 }));
    const { id, content } = fields;
    const message = { type: 'message', ...rooms[0], ...(rooms.length > 1 ? { rooms } : {}), id, content, client_id: publisher?.id ?? 'other' };
    for (const { room } of rooms) this.#rooms.get(room).log.push(message);
    for (const session of this.#sessions.values()) {
      const isMember = rooms.some(({ room }) => session.seats.has(room));
      if (session.link && session !== publisher && isMember) session.link.down.push(message);
    }
    return rooms;
  }

  /** Somebody else comes or goes. */
  notice(type, room) {
    for (const session of this.#sessions.values()) {
      if (session.link && session.seats.get(room)?.watch) session.link.down.push({ type, room, client_id: 'other' });
    }
  }

  /** Sessions that are away end. */
  expire() {
    for (const [token, { link }] of this.#sessions) if (!link) this.#sessions.delete(token);
  }

  /** The session of the newest connection. */
  get session() {
    return this.link.session;
  }

  begin(link) {
    const id = `c${(this.#count += 1)}`;
    const session = { id, token: `token-${id}`, link, seats: new Map(), patterns: [], declined: new Set(), told: new Map() };
    this.#sessions.set(session.token, session);
    const lobby = this.makeRoom('lobby');
    session.seats.set('lobby', { pattern: null });
    const position = { room: 'lobby', epoch: 'e', seq: lobby.log.length };
    link.down.push({ type: 'welcome', client_id: id, session: session.token, ...position, ping_s: 30, limits: this.limits });
    link.down.push(...lobby.log.slice(-2));
    return session;
  }

  /** Carries a command out, and gives the answer's fields, or the code of an error as text. */
  carryOut(command, link) {
    const { session } = link;
    const { room, rooms } = command;
    switch (command.type) {
      case 'ping':
        return {};
      case 'join':
        return room.endsWith('.*') ? this.#subscribe(session, room) : this.#join(session, command);
      case 'leave':
        return room.endsWith('.*') ? this.#unsubscribe(session, room) : this.#leave(session, room);
      case 'resume':
        return this.#resume(command, link);
      case 'history': {
        if (!session.seats.has(room)) return 'not_member';
        return { ...this.#place(room), messages: this.#since(room, command.after).slice(0, PAGE_MAX) };
      }
      case 'presence':
        if (!session.seats.has(room)) return 'not_member';
        if (command.watch !== undefined) session.seats.get(room).watch = command.watch;
        return { room, ...this.#members(session, room) };
      case 'publish': {
        const names = rooms ?? [room];
        if (names.some((name) => !session.seats.has(name))) return 'not_member';
        if (session.told.has(command.id)) return { ...session.told.get(command.id), repeated: true };
        const places = this.say(names, session, command);
        const answer = rooms ? { rooms: places, id: command.id } : { ...places[0], id: command.id };
        session.told.set(command.id, answer);
        return answer;
      }
      default:
        return 'unknown_type';
    }
  }

  #place(room) {
    const { epoch, log } = this.makeRoom(room);
    return { room, epoch, seq: log.length, recovered: false, messages: [] };
  }

  #since(room, seq) {
    const seqIn = (message) => message.rooms?.find((place) => place.room === room).seq ?? message.seq;
    return this.#rooms.get(room).log.filter((message) => seqIn(message) > seq);
  }

  #members(session, room) {
    return session.seats.get(room).watch ? { members: [{ client_id: session.id }], count: 1 } : {};
  }

  #enter(session, room, { seq } = {}) {
    const place = this.#place(room);
    return seq === undefined ? place : { ...place, recovered: true, messages: this.#since(room, seq) };
  }

  #join(session, { room, since, presence }) {
    if (session.seats.has(room)) return 'already_member';
    this.makeRoom(room);
    session.seats.set(room, { pattern: null, watch: presence });
    session.link.down = session.link.down.filter(({ type, room: name }) => type !== 'matched' || name !== room);
    return { ...this.#enter(session, room, since), ...this.#members(session, room) };
  }

  #leave(session, room) {
    if (!session.seats.delete(room)) return 'not_member';
    if (session.patterns.some((pattern) => matches(pattern, room))) session.declined.add(room);
    return { room };
  }

  #subscribe(session, pattern) {
    if (session.patterns.includes(pattern)) return 'already_member';
    const found = [...this.#rooms.keys()].filter((room) => matches(pattern, room) && !session.seats.has(room));
    for (const room of found) session.seats.set(room, { pattern });
    session.patterns.push(pattern);
    return { room: pattern, rooms: found.map((room) => this.#place(room)) };
  }

  #unsubscribe(session, pattern) {
    if (!session.patterns.includes(pattern)) return 'not_member';
    session.patterns = session.patterns.filter((own) => own !== pattern);
    for (const [room, seat] of session.seats) {
      if (seat.pattern !== pattern) continue;
      seat.pattern = session.patterns.find((own) => matches(own, room)) ?? null;
      if (seat.pattern === null) session.seats.delete(room);
    }
    return { room: pattern };
  }

  #resume({ session: token, rooms }, link) {
    const session = this.#sessions.get(token);
    if (!session) return 'unrecoverable';
    this.#sessions.delete(link.session.token);
    session.link?.end(4010);
    session.link = link;
    link.session = session;
    for (const pattern of session.patterns) {
      for (const room of this.#rooms.keys()) {
        if (matches(pattern, room) && !session.seats.has(room) && !session.declined.has(room)) session.seats.set(room, { pattern });
      }
    }
    const asked = new Map(rooms.map(({ room, seq }) => [room, { seq }]));
    for (const room of asked.keys()) if (!session.seats.has(room)) session.seats.set(room, { pattern: null });
    const places = [...session.seats.keys()].map((room) => ({ ...this.#enter(session, room, asked.get(room)), ...this.#members(session, room) }));
    return { client_id: session.id, session: token, patterns: session.patterns, rooms: places, direct: { seq: 0, recovered: true } };
  }
}

/** One connection: what is on its way up and down, in order. */
class Link {
  up = [];
  down = [];
  /** The commands that have reached the server. */
  taken = [];
  session = null;
  isOpen = false;
  isOver = false;
  #server;
  #socket;
  #errors = 0;

  constructor(server, socket) {
    this.#server = server;
    this.#socket = socket;
  }

  get isIdle() {
    return this.isOpen && this.up.length === 0 && this.down.length === 0;
  }

  /** One step: the connection opens, or a command reaches the server. */
  stepUp() {
    if (this.isOver) return;
    if (!this.isOpen) {
      this.isOpen = true;
      this.session = this.#server.begin(this);
      this.#socket.onopen();
      return;
    }
    if (this.up.length === 0) return;
    const { bytes, ...command } = this.up.shift();
    this.taken.push(command);
    const refusal = this.#server.refuses(command, bytes);
    const answer = refusal?.code ?? this.#server.carryOut(command, this);
    if (typeof answer !== 'string') {
      this.#errors = 0;
      this.down.push({ type: command.type === 'ping' ? 'pong' : 'ok', ref: command.ref, ...answer });
      return;
    }
    this.#errors += 1;
    this.down.push({ type: 'error', ref: command.ref, code: answer, message: answer, ...refusal });
    if (this.#errors >= ERRORS_MAX) this.end(answer === 'rate_limited' ? 4101 : 4008);
  }

  /** One frame reaches the client. */
  stepDown() {
    if (this.isOver || !this.isOpen) return;
    const frame = this.down.shift();
    if (frame) this.#socket.onmessage({ data: JSON.stringify(frame) });
  }

  end(code = 1006) {
    if (this.isOver) return;
    this.isOver = true;
    if (this.session?.link === this) this.session.link = null;
    this.#socket.onclose({ code, reason: `${code}` });
  }
}

/** Time that passes when it is told to. */
export class ModelClock {
  #now = 0;
  #timers = new Set();

  now() {
    return this.#now;
  }

  setTimeout(run, ms) {
    const timer = { run, at: this.#now + ms };
    this.#timers.add(timer);
    return timer;
  }

  /** How many are to ring. */
  get timers() {
    return this.#timers.size;
  }

  clearTimeout(timer) {
    this.#timers.delete(timer);
  }

  /** Moves on, and rings what is due. */
  pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.run();
    }
    this.#now = end;
  }
}

/** Lets everything arrive, until `isDone()`. */
export async function run(server, clock, isDone, { steps = 100_000 } = {}) {
  for (let step = 0; step < steps; step += 1) {
    if (isDone()) return;
    server.link?.stepUp();
    server.link?.stepDown();
    clock.pass(1);
    if (step % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`not done after ${steps} steps`);
}
