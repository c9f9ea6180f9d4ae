/**
 * Many session clients in one process, which publish, receive, and keep account of every message.
 *
 * The plan is the first argument, as JSON. Orders come as lines of JSON on standard input, each with
 * an `order`, and are answered in a line with the same; every `tickMs` there is a line with what was
 * counted so far. It ends with its standard input.
 *
 * Each client of a room numbers its messages, and gets its own ones back. So whoever receives knows
 * from the numbers what is missing, doubled or out of order.
 */
import { createHmac } from 'node:crypto';
import { createRequire } from 'node:module';
import readline from 'node:readline';

import { Client } from '../../clients/js/index.js';
import { Proxy } from '../../clients/js/test/proxy.mjs';

const PLAN = {
  clients: 10,
  roomSize: 10,
  // The number of the first client, where several processes share the work.
  first: 0,
  everyMs: 500,
  // The shares of each ten clients that come through the proxy, and whose socket is that of `ws`.
  proxied: 0,
  compressed: 0,
  // Where `ws` is installed.
  modules: null,
  secret: null,
  tokenS: 60,
  // After how many messages a client sends a direct one, and reads a page of history; 0 for never.
  directEvery: 0,
  historyEvery: 0,
  bytes: [20, 80, 1500],
  tickMs: 500,
  // New clients each millisecond at most.
  arrivals: 1,
  ...JSON.parse(process.argv[2]),
};
const AWAYS_MAX = 50_000;
const TOLD_MAX = 20;
const HISTORY_LIMIT = 30;
const ALLOWED = ['join', 'publish', 'history', 'presence', 'direct'];

const counts = {
  open: 0,
  published: 0,
  delivered: 0,
  directs: 0,
  doubled: 0,
  disordered: 0,
  announced: 0,
  unannounced: 0,
  resumed: 0,
  anew: 0,
  renewed: 0,
  failed: 0,
  ended: 0,
  wrongPages: 0,
};
const closes = {};
const refused = {};
// How long clients were away, each once it is back, and what the server had asked for.
const aways = [];
const told = [];
let isPublishing = true;

function tell(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function complain(what) {
  if (told.length < TOLD_MAX) told.push(what);
}

function count(table, key) {
  table[key] = (table[key] ?? 0) + 1;
}

function sign(user) {
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: user, iat: now, exp: now + PLAN.tokenS, rooms: [{ match: '*', allow: ALLOWED }] };
  const parts = [{ alg: 'HS256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'));
  const signature = createHmac('sha256', PLAN.secret).update(parts.join('.')).digest('base64url');
  return `${parts.join('.')}.${signature}`;
}

/** One stream of numbered messages, as one receiver sees it. */
class Stream {
  #next = 0;
  // Whether the server has said that something is lost, so that the next number may be any later one.
  isLoose = false;

  get next() {
    return this.#next;
  }

  take(n, from) {
    if (n < this.#next) {
      counts.doubled += 1;
      return complain(`${from}: ${n} came again`);
    }
    if (n > this.#next) {
      counts[this.isLoose ? 'announced' : 'unannounced'] += n - this.#next;
      if (!this.isLoose) complain(`${from}: ${this.#next} to ${n - 1} did not come`);
    }
    this.isLoose = false;
    this.#next = n + 1;
    return undefined;
  }
}

class Member {
  published = 0;
  directed = 0;
  streams = new Map();
  fromApi = new Stream();
  directs = new Stream();
  isOpen = false;
  isBusy = false;
  place = { epoch: null, seq: 0 };

  constructor(index, port) {
    this.index = index;
    this.room = `room.${Math.floor(index / PLAN.roomSize)}`;
    const url = new URL(PLAN.url);
    if (port) url.port = port;
    const options = { backlogMax: 0 };
    if (PLAN.secret) {
      let isFirst = true;
      options.token = () => {
        if (!isFirst && this.isOpen) counts.renewed += 1;
        isFirst = false;
        return sign(`user-${index}`);
      };
    }
    if ((index % 10) / 10 >= 1 - PLAN.compressed) {
      const { WebSocket } = createRequire(`${PLAN.modules}/`)('ws');
      options.WebSocket = WebSocket;
    }
    this.client = new Client(url, options);
    this.#listen();
  }

  #listen() {
    const { client } = this;
    client.on('message', (message) => this.#take(message));
    client.on('direct', ({ content }) => {
      counts.directs += 1;
      this.directs.take(content.n, `directs to ${this.index}`);
    });
    client.on('lost', ({ room, direct, from, to }) => {
      if (direct) this.directs.isLoose = true;
      if (room !== this.room) return;
      if (from === null) this.place.epoch = null;
      else this.place.seq = to;
      for (const stream of [...this.streams.values(), this.fromApi]) stream.isLoose = true;
    });
    client.on('dropped', ({ room, code }) => complain(`${this.index} was taken out of ${room}: ${code}`));
    client.on('error', ({ code, message }) => complain(`${this.index}: ${code}: ${message}`));
    client.on('closing', ({ reconnect_after_ms }) => (this.askedMs = reconnect_after_ms));
    client.on('session', ({ resumed, previous }) => {
      if (previous !== null) counts[resumed ? 'resumed' : 'anew'] += 1;
      if (previous !== null && !resumed) this.directs.isLoose = true;
      if (!this.isOpen) counts.open += 1;
      this.isOpen = true;
      if (this.wentAt && aways.length < AWAYS_MAX) {
        aways.push([Math.round(performance.now() - this.wentAt), this.askedMs ?? null]);
      }
      this.wentAt = this.askedMs = undefined;
    });
    client.on('state', ({ state, end }) => {
      if (state !== 'waiting' && state !== 'closed') return;
      if (this.isOpen) {
        this.isOpen = false;
        counts.open -= 1;
        this.wentAt = performance.now();
        count(closes, end.code);
      } else {
        count(refused, end.status ?? end.code);
      }
      if (state === 'closed' && end.error) {
        counts.ended += 1;
        complain(`${this.index} has ended: ${end.error.message}`);
      }
    });
  }

  async join() {
    const { epoch, seq } = await this.client.join(this.room, { presence: true });
    // Whoever was there before may have published already; nobody publishes before `go`.
    if (this.place.epoch === null) this.place = { epoch, seq };
    return this;
  }

  #take({ room, seq, content }) {
    if (room !== this.room) return;
    counts.delivered += 1;
    const { c, n } = content;
    if (seq <= this.place.seq && this.place.epoch !== null) {
      counts.disordered += 1;
      complain(`${this.index}: number ${seq} after ${this.place.seq} in ${room}`);
    }
    this.place = { epoch: this.place.epoch ?? 'new', seq };
    if (c === 'api') return this.fromApi.take(n, `the API to ${this.index}`);
    let stream = this.streams.get(c);
    if (!stream) this.streams.set(c, (stream = new Stream()));
    return stream.take(n, `${c} to ${this.index}`);
  }

  /** Publishes as long as it may, one message after the other. */
  async run(partner) {
    await pause(Math.random() * PLAN.everyMs);
    while (!isOver) {
      if (isPublishing) {
        this.isBusy = true;
        await this.#step(partner);
        this.isBusy = false;
      }
      await pause(PLAN.everyMs * (0.5 + Math.random()));
    }
  }

  async #step(partner) {
    const n = this.published;
    this.published += 1;
    const p = 'abcdefgh '.repeat(PLAN.bytes[n % PLAN.bytes.length] / 9);
    try {
      await this.client.publish(this.room, { c: this.index, n, p }, { echo: true });
      counts.published += 1;
      if (PLAN.directEvery && n % PLAN.directEvery === 0) {
        const number = partner.directedTo ?? 0;
        partner.directedTo = number + 1;
        await this.client.direct(partner.client.clientId, { n: number });
      }
      if (PLAN.historyEvery && n % PLAN.historyEvery === 1) await this.#page();
    } catch (error) {
      counts.failed += 1;
      complain(`${this.index} cannot publish: ${error.code}: ${error.message}`);
    }
  }

  async #page() {
    const { messages } = await this.client.history(this.room, { limit: HISTORY_LIMIT });
    const isRight = messages.every(({ seq }, at) => at === 0 || seq === messages[at - 1].seq + 1);
    if (isRight && messages.length > 0) return;
    counts.wrongPages += 1;
    complain(`${this.index}: a page with ${messages.map(({ seq }) => seq)}`);
  }

  /** How many messages are yet to come to it. */
  missing(members, api) {
    let missing = Math.max((this.directedTo ?? 0) - this.directs.next, 0);
    missing += Math.max((api[this.room] ?? 0) - this.fromApi.next, 0);
    for (const { index, published } of members) {
      missing += Math.max(published - (this.streams.get(index)?.next ?? 0), 0);
    }
    return missing;
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

let isOver = false;
const members = [];
const rooms = new Map();
const proxy = PLAN.proxied > 0 ? await Proxy.start(Number(new URL(PLAN.url).port)) : null;

async function enter() {
  const joining = [];
  for (let nth = 0; nth < PLAN.clients; nth += 1) {
    const member = new Member(PLAN.first + nth, (nth % 10) / 10 < PLAN.proxied ? proxy.port : null);
    members.push(member);
    if (!rooms.has(member.room)) rooms.set(member.room, []);
    rooms.get(member.room).push(member);
    joining.push(member.join());
    if (nth % PLAN.arrivals === 0) await pause(1);
  }
  await Promise.all(joining);
}

function run() {
  for (const group of rooms.values()) {
    // Everyone has one partner, and is the partner of one.
    group.forEach((member, at) => member.run(group[(at + 1) % group.length]));
  }
}

/** What every client has missed, once it has had time to get everything. `api` says how many came by the API to each room. */
async function settle(withinMs, api = {}) {
  isPublishing = false;
  const end = performance.now() + withinMs;
  let missing;
  do {
    await pause(100);
    missing = [...rooms.values()].flatMap((group) => group.map((member) => member.missing(group, api)));
    missing = missing.reduce((sum, one) => sum + one, 0);
  } while ((missing > 0 || members.some(({ isBusy }) => isBusy)) && performance.now() < end);
  return { missing, unanswered: members.filter(({ isBusy }) => isBusy).length };
}

/** How many lists of members are not what they should be. */
async function presence() {
  let wrong = 0;
  for (const [room, group] of rooms) {
    const { count: found } = await group[0].client.presence(room, { timeoutMs: 5000 });
    if (found !== group.length) {
      wrong += 1;
      complain(`${room} has ${found} members, not ${group.length}`);
    }
  }
  return { wrongLists: wrong };
}

const ORDERS = {
  go: run,
  still: () => (isPublishing = false),
  publish: () => (isPublishing = true),
  settle: ({ withinMs, api }) => settle(withinMs, api),
  presence,
  report: () => ({ ...counts, closes, refused, told, aways }),
  cut: () => proxy.cut(),
  reset: () => proxy.reset(),
  stall: () => proxy.stall('up', 'down'),
  deafen: () => proxy.stall('down'),
  release: () => proxy.release(),
  delay: ({ ms }) => proxy.delay(ms),
  close: () => Promise.all(members.map(({ client }) => client.close())),
};

process.on('unhandledRejection', (error) => complain(`unhandled: ${error.stack ?? error}`));
await enter();
tell({ order: 'entered', counts });
setInterval(() => tell({ at: Date.now() / 1000, ...counts }), PLAN.tickMs);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const { order, ...how } = JSON.parse(line);
  try {
    tell({ order, answer: (await ORDERS[order](how)) ?? null });
  } catch (error) {
    tell({ order, failed: error.stack ?? String(error) });
  }
}
isOver = true;
process.exit(0);
