/** Which transport is tried when, and one session over both. */
import { afterEach, beforeEach, test as bareTest } from 'node:test';

import { Client } from '../index.js';
import { Transport } from '../src/transport.js';
import { equal, ok, rejects, until, within } from './environment.mjs';
import { ScriptedServer } from './scripted.mjs';
import { StreamServer } from './stream-server.mjs';

const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

const MINUTE_MS = 60_000;
const LOST = { code: 1006 };
const SESSION = { code: 1006, livedMs: 5, hasHeard: true };

let servers = 0;

/** The choices of one client. `after` takes the ends of its attempts, and gives what was tried for each. */
function choices({ url, date = { now: 0 }, isOnline = () => true, fallback = 'auto' } = {}) {
  servers += 1;
  const transport = new Transport({
    url: url ?? `ws://host${servers}/ws`,
    options: { fallback },
    clock: { now: () => date.now },
    platform: { isOnline },
  });
  const after = (...ends) =>
    ends.map((end) => {
      transport.choose()?.catch(() => {});
      const { kind } = transport;
      if (end.livedMs !== undefined) transport.worked();
      transport.ended(end);
      return kind === 'websocket' ? 'W' : 'E';
    });
  const next = () => after({ code: 1000 })[0];
  return { transport, after: (...ends) => after(...ends).join(''), next };
}

test('an attempt that failed is followed by one of the other kind', () => {
  equal(choices().after(LOST, LOST, LOST, LOST, LOST), 'WEWEW');
  equal(choices().after(LOST, { code: 1006, status: 503 }, LOST), 'WEW');
  equal(choices({ fallback: 'off' }).after(LOST, LOST), 'WW');
  equal(choices({ fallback: 'only' }).after(LOST, LOST), 'EE');
});

test('what is no fault of the WebSocket is followed by another one', () => {
  for (const status of [401, 403, 404, 408, 429, 500, 502, 503, 504]) equal(choices().after({ code: 1006, status }, LOST), 'WW', status);
  for (const status of [400, 405, 426, 501]) equal(choices().after({ code: 1006, status }, LOST), 'WE', status);
  equal(choices().after({ code: 1006, isBlameless: true }, LOST), 'WW');
  // Something came, if only a frame that makes no sense.
  equal(choices().after({ code: 1006, hasHeard: true }, LOST), 'WW');
  equal(choices().after({ code: 4001 }, { code: 1013 }, LOST), 'WWW');
  equal(choices({ isOnline: () => false }).after(LOST, LOST), 'WW');
});

test('where a WebSocket has worked, three must fail', () => {
  equal(choices().after(SESSION, LOST, LOST, LOST, LOST, LOST, LOST, LOST, LOST), 'WWWWEWWWE');
  equal(choices().after(SESSION, LOST, LOST, SESSION, LOST, LOST, LOST, LOST), 'WWWWWWWE');
});

test('an event stream that worked is what the next attempts begin with, for ten minutes', () => {
  const date = { now: 0 };
  const { transport, after, next } = choices({ url: 'ws://remembered/ws', date });
  equal(after(LOST, SESSION, SESSION), 'WEE');
  // Other clients too, of this address alone.
  equal(choices({ url: 'ws://remembered/ws?room=1', date }).after(LOST, LOST, LOST), 'EWE');
  equal(choices({ url: 'ws://remembered/other', date }).next(), 'W');
  equal(choices({ url: 'wss://remembered/ws', date }).next(), 'W');
  date.now = 10 * MINUTE_MS - 1;
  // A session that is had again makes it no longer.
  equal(after(SESSION), 'E');
  date.now += 1;
  equal(next(), 'W');
  ok(transport.kind === 'websocket', 'a WebSocket is tried');
});

test('a WebSocket that works is not forgotten for an event stream', () => {
  const date = { now: 0 };
  const { after, next } = choices({ url: 'ws://changed/ws', date });
  equal(after(LOST, SESSION, LOST, SESSION), 'WEEW');
  equal(next(), 'W');
});

test('a page remembers it over a reload, if it may', (t) => {
  const kept = new Map();
  t.after(() => delete globalThis.sessionStorage);
  let isFull = false;
  globalThis.sessionStorage = {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => {
      if (isFull) throw new Error('full');
      kept.set(name, String(value));
    },
  };
  const date = { now: 5 };
  equal(choices({ url: 'ws://stored/ws', date }).after(LOST, SESSION), 'WE');
  equal([...kept], [['rusty-socks.event-stream:ws://stored/ws', String(5 + 10 * MINUTE_MS)]]);
  // As if this page had been told by the one before it.
  kept.set('rusty-socks.event-stream:ws://before/ws', '100');
  equal(choices({ url: 'ws://before/ws', date }).next(), 'E');
  kept.set('rusty-socks.event-stream:ws://nonsense/ws', 'x');
  equal(choices({ url: 'ws://nonsense/ws', date }).next(), 'W');
  isFull = true;
  equal(choices({ url: 'ws://full/ws', date }).after(LOST, SESSION, SESSION), 'WEE');
  Object.defineProperty(globalThis, 'sessionStorage', {
    configurable: true,
    get() {
      throw new Error('not here');
    },
  });
  equal(choices({ url: 'ws://forbidden/ws', date }).after(LOST, SESSION, SESSION), 'WEE');
});

const WELCOME = { type: 'welcome', client_id: 'me', session: 'secret', room: 'lobby', epoch: 'e', seq: 0, ping_s: 30 };

let server;
let clients;

beforeEach(async () => {
  server = await StreamServer.start();
  clients = [];
});

afterEach(async () => {
  await Promise.all(clients.map((client) => client.close()));
  await server.websockets?.stop();
  await server.stop();
});

function connect(options = {}) {
  const client = new Client(server.url, { backoffBaseMs: 1, closeTimeoutMs: 500, ...options });
  clients.push(client);
  client.waits = [];
  client.seen = [];
  client.on('state', (event) => event.state === 'waiting' && client.waits.push(event));
  client.on('message', ({ content }) => client.seen.push(content));
  client.closed.catch(() => {});
  client.ready.catch(() => {});
  return client;
}

async function welcomed(client) {
  const stream = await server.accept();
  stream.send(WELCOME);
  await within('session', client.ready);
  return stream;
}

for (const status of [426, null]) {
  test(`where an upgrade is ${status ? 'refused' : 'cut'}, the session is over an event stream`, async () => {
    server.upgradeStatus = status;
    const client = connect();
    equal(client.transport, null);
    const stream = await welcomed(client);
    equal([client.transport, client.waits.length, server.upgrades], ['event-stream', 1, 1]);
    const published = client.publish('lobby', { n: 1 });
    await stream.answer({ type: 'publish' }, { room: 'lobby', seq: 1 });
    equal((await within('answer', published)).seq, 1);
    stream.send({ type: 'message', room: 'lobby', seq: 2, id: '1', content: 'hello', client_id: 'other' });
    await until('message', () => client.seen.length === 1);
    await client.close();
    equal([stream.close, client.transport], [{ code: 1000, reason: '' }, null]);
  });
}

test('a token goes in the first frame there too', async () => {
  const client = connect({ token: 'a.b.c', fallback: 'only' });
  const stream = await server.accept();
  const auth = await stream.find({ type: 'auth', token: 'a.b.c' });
  stream.send({ type: 'ok', ref: auth.ref }, WELCOME);
  await within('session', client.ready);
  equal(server.upgrades, 0);
});

test('attempts alternate, and each waits as it is asked to', async () => {
  server.refusals.push({ status: 503, headers: { 'retry-after': '1' } }, null);
  const client = connect({ openTimeoutMs: 300, random: () => 0 });
  await until('attempts', () => client.waits.length === 5);
  const seen = client.waits.map(({ end, delayMs, attempt }) => [end.status ?? end.reason, delayMs, attempt]);
  equal(seen, [[426, 0, 1], [503, 1000, 2], [426, 0, 3], ['no session within 300 ms', 0, 4], [426, 0, 5]]);
});

test('what both refuse with a status ends the client', async () => {
  server.refusals.push({ status: 404 });
  const { code, status, error } = await within('end', connect().closed);
  equal([code, status, error.code, server.upgrades], [1006, 404, 'stopped', 1]);
});

test('without the fallback a refusal ends the client, and with it alone there is no WebSocket', async () => {
  equal((await within('end', connect({ fallback: 'off' }).closed)).status, 426);
  server.refusals.push({ status: 403 });
  const { status, reason } = await within('end', connect({ fallback: 'only' }).closed);
  equal([status, reason, server.upgrades], [403, 'the event stream was refused with 403', 1]);
});

test('with a WebSocket of the program there is no fallback, unless it is asked for', async () => {
  class Broken {
    constructor() {
      queueMicrotask(() => this.onclose({ code: 1006, reason: '' }));
    }

    send() {}

    close() {}
  }
  const off = connect({ WebSocket: Broken });
  await until('attempts', () => off.waits.length >= 3);
  equal(server.streams.length, 0);
  await welcomed(connect({ WebSocket: Broken, fallback: 'auto' }));
});

test('another fallback is refused', () => {
  for (const fallback of ['on', null, true]) {
    let fault = null;
    try {
      new Client(server.url, { fallback, connect: false });
    } catch (error) {
      fault = error;
    }
    ok(fault instanceof TypeError && /fallback/.test(fault.message), fallback);
  }
});

test('a session goes on from a WebSocket to an event stream and back, with what is unanswered', async () => {
  server.websockets = await ScriptedServer.start();
  const client = connect();
  const first = await server.websockets.accept();
  first.send(WELCOME);
  await within('session', client.ready);
  equal(client.transport, 'websocket');
  first.send({ type: 'message', room: 'lobby', seq: 1, id: '1', content: 1, client_id: 'other' });
  await until('message', () => client.seen.length === 1);
  const published = client.publish('lobby', 'mine');
  const { id } = await first.take({ type: 'publish' });
  // No WebSocket passes from now on.
  const { websockets } = server;
  server.websockets = null;
  server.upgradeStatus = null;
  first.destroy();
  const stream = await server.accept();
  const messages = [{ type: 'message', room: 'lobby', seq: 2, id: '2', content: 2, client_id: 'other' }];
  const rooms = [{ room: 'lobby', epoch: 'e', seq: 2, recovered: true, messages }];
  stream.send(WELCOME);
  const resume = await stream.answer({ type: 'resume' }, { client_id: 'me', session: 'new', patterns: [], rooms });
  equal(resume.rooms, [{ room: 'lobby', epoch: 'e', seq: 1 }]);
  equal((await stream.answer({ type: 'publish' }, { room: 'lobby', seq: 3 })).id, id);
  equal([(await within('answer', published)).seq, client.seen, client.transport], [3, [1, 2], 'event-stream']);
  // And back, when the event stream fails.
  server.websockets = websockets;
  server.refusals.push({ status: 502 });
  stream.reset();
  const last = await websockets.accept();
  last.send(WELCOME);
  const again = await last.answer({ type: 'resume' }, {
    client_id: 'me',
    session: 'third',
    patterns: [],
    rooms: [{ room: 'lobby', epoch: 'e', seq: 3, recovered: true }],
  });
  equal([again.session, again.rooms], ['new', [{ room: 'lobby', epoch: 'e', seq: 3 }]]);
  await until('session', () => client.state === 'open');
  equal(client.transport, 'websocket');
});

test('commands wait while the server takes no posts', async () => {
  const client = connect({ unsentBytesMax: 1_000, fallback: 'only' });
  const stream = await welcomed(client);
  let release;
  stream.answers.push(() => new Promise((resolve) => (release = () => resolve(204))));
  const all = Array.from({ length: 20 }, (_, n) => client.publish('lobby', 'x'.repeat(300) + n));
  await until('post', () => stream.posts.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 200));
  // As many as it took to be congested.
  equal([stream.posts.length, client.pending], [1, 20]);
  ok(stream.posts[0].lines.length < 6, stream.posts[0].lines.length);
  const answered = (async () => {
    for (let seq = 1; seq <= 20; seq += 1) await stream.answer({ type: 'publish' }, { room: 'lobby', seq });
  })();
  release();
  equal((await within('answers', Promise.all(all))).map(({ seq }) => seq), Array.from({ length: 20 }, (_, n) => n + 1));
  await answered;
});

test('a silent event stream is found out, and its session resumed', async () => {
  const client = connect({ fallback: 'only', pingMsMax: 50, silenceMs: 200 });
  const stream = await welcomed(client);
  await until('pings', () => stream.posts.length >= 3);
  stream.answers.push(...Array.from({ length: 100 }, () => () => new Promise(() => {})));
  const next = await server.accept();
  equal(client.waits[0].end.reason, 'the server went silent');
  next.send(WELCOME);
  await next.find({ type: 'resume' });
  await rejects(client.publish('lobby', undefined), 'bad_request');
});
