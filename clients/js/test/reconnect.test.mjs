/**
 * What the world tells the client: of the network, the page and sleep; and a reconnect that is
 * asked for.
 */
import { afterEach, beforeEach, test as bareTest } from 'node:test';

import { Client } from '../index.js';
import { Backoff } from '../src/backoff.js';
import { equal, ok, until, within } from './environment.mjs';
import { ScriptedServer } from './scripted.mjs';

const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

// Beyond every deadline here: whoever waits for it fails.
const NEVER_MS = 600_000;

let server;
let clients;

beforeEach(async () => {
  server = await ScriptedServer.start();
  clients = [];
});

afterEach(async () => {
  await Promise.all(clients.map((client) => client.close()));
  await server.stop();
});

/** A world whose network, page and clock are the test's. */
class World {
  online = true;
  #watchers = new Set();
  #sleptMs = 0;

  isOnline() {
    return this.online;
  }

  watch(tell) {
    this.#watchers.add(tell);
    return () => this.#watchers.delete(tell);
  }

  get watchers() {
    return this.#watchers.size;
  }

  tell(change) {
    if (change !== 'wake') this.online = change === 'online';
    for (const watcher of this.#watchers) watcher(change);
  }

  /** The machine slept for so long: the date has gone on, and nothing else. */
  sleep(ms) {
    this.#sleptMs += ms;
  }

  clock = {
    now: () => performance.now(),
    date: () => Date.now() + this.#sleptMs,
    // The client looks at the date every ten seconds, which is long for a test.
    setTimeout: (run, ms) => setTimeout(run, ms === 10_000 ? 20 : ms),
    clearTimeout,
  };
}

const WELCOME = { type: 'welcome', client_id: 'me', session: 'secret', room: 'lobby', epoch: 'e', seq: 0, ping_s: 30 };
const RESUMED = { client_id: 'me', session: 'secret', patterns: [], rooms: [{ room: 'lobby', epoch: 'e', seq: 0, recovered: true }] };

/**
 * A client whose first wait has no end, unless the world ends it, and whose other ones are none.
 */
function connect(options = {}) {
  const world = new World();
  const jitter = [1];
  const client = new Client(server.url, {
    platform: world,
    clock: world.clock,
    random: () => jitter.shift() ?? 0,
    backoffBaseMs: NEVER_MS,
    backoffCapMs: NEVER_MS,
    ...options,
  });
  clients.push(client);
  client.states = [];
  client.on('state', (event) => client.states.push(event));
  client.waits = () => client.states.filter(({ state }) => state === 'waiting');
  client.attempts = () => client.states.filter(({ state }) => state === 'connecting').length;
  return { client, world };
}

async function begin(options) {
  const { client, world } = connect(options);
  const link = await server.accept();
  link.send(WELCOME);
  await client.ready;
  return { client, world, link };
}

/** The next connection, on which the session goes on. */
async function resume(client) {
  const link = await server.accept();
  await link.answer({ type: 'resume' }, RESUMED);
  await until('session', () => client.state === 'open');
  return link;
}

/** Waits until the server has read all that the client has sent so far. */
async function roundTrip(client, link) {
  const asked = client.history('lobby');
  await link.answer({ type: 'history' }, { epoch: 'e', seq: 0, messages: [] });
  await asked;
}

for (const change of ['online', 'offline', 'wake']) {
  test(`${change}: a server that no longer answers is found out at once`, async () => {
    const { client, world, link } = await begin({ checkTimeoutMs: 100 });
    link.answersPings = false;
    world.tell(change);
    await until('loss', () => client.waits().length > 0);
    equal(client.waits()[0].end.reason, 'the server went silent');
  });

  test(`${change}: a server that answers is kept, and asked once`, async () => {
    const { client, world, link } = await begin();
    for (let i = 0; i < 10; i += 1) world.tell(change);
    await roundTrip(client, link);
    equal([client.state, link.pings, server.accepted], ['open', 1, 1]);
  });
}

test('what was on its way before the question is no answer to it', async () => {
  const { client, world, link } = await begin({ checkTimeoutMs: 200 });
  link.answersPings = false;
  world.tell('wake');
  link.send({ type: 'broadcast', id: 'x', content: 'old' });
  await until('loss', () => client.waits().length > 0);
});

for (const change of ['online', 'wake']) {
  test(`${change}: the wait for the next attempt ends`, async () => {
    const { client, world, link } = await begin();
    link.destroy();
    await until('loss', () => client.state === 'waiting');
    world.tell('offline');
    equal(client.attempts(), 1);
    world.tell(change);
    await resume(client);
    equal(client.waits().map(({ delayMs }) => delayMs), [NEVER_MS]);
  });
}

test('the world hastens no attempt to before what the server has asked for', async () => {
  server.refuse(503, { 'retry-after': '2' });
  const { client, world } = connect();
  await until('refusal', () => client.state === 'waiting');
  const began = performance.now();
  world.tell('wake');
  await server.accept();
  const took = performance.now() - began;
  // Timers may ring a little early.
  ok(took > 1900, `after ${took} ms`);
});

test('changes of the world without number make one attempt a second', async () => {
  for (let i = 0; i < 20; i += 1) server.refuse(500);
  // No wait has an end of its own, and those that come back together are not spread.
  const { client, world } = connect({ random: () => (client.state === 'waiting' ? 0 : 1) });
  const began = performance.now();
  await until('some time', () => {
    world.tell('online');
    world.tell('wake');
    return performance.now() - began > 2500;
  });
  const attempts = client.attempts();
  ok(attempts > 1 && attempts <= 3, `${attempts} attempts`);
});

test('an attempt that began before the network came is begun anew, and one of just now is not', async () => {
  server.hold();
  const { client, world } = connect();
  await until('upgrade', () => server.held === 1);
  world.tell('online');
  equal(client.attempts(), 1);
  const began = performance.now();
  await until('an attempt that is no longer new', () => performance.now() - began > 1100);
  world.tell('wake');
  equal(client.attempts(), 1);
  world.tell('online');
  const link = await server.accept();
  link.send(WELCOME);
  await client.ready;
  equal([client.attempts(), client.waits().length], [2, 0]);
  await until('end of the first', () => server.held === 0);
});

test('a machine that has slept looks at its connection', async () => {
  const { client, world, link } = await begin({ checkTimeoutMs: 100 });
  link.answersPings = false;
  world.sleep(60_000);
  await until('loss', () => client.waits().length > 0);
  equal(client.waits()[0].end.reason, 'the server went silent');
});

test('a sleep ends the wait for the next attempt', async () => {
  const { client, world, link } = await begin();
  link.destroy();
  await until('loss', () => client.state === 'waiting');
  world.sleep(60_000);
  await resume(client);
});

test('a connection that is found to be gone after a sleep is replaced at once', async () => {
  const { client, world, link } = await begin({ checkTimeoutMs: 60_000 });
  const began = performance.now();
  await until('an attempt that is no longer new', () => performance.now() - began > 1000);
  link.answersPings = false;
  world.tell('wake');
  link.destroy();
  await resume(client);
  equal(client.waits().map(({ delayMs }) => delayMs), [0]);
});

test('a deadline that a sleep has passed is no reason to give up', async () => {
  const { client, world, link } = await begin({ checkTimeoutMs: 300 });
  link.answersPings = false;
  world.tell('wake');
  await until('ping', () => link.pings === 1);
  world.sleep(60_000);
  await until('second ping', () => link.pings === 2);
  link.send({ type: 'pong', ref: 'ping' });
  await roundTrip(client, link);
  equal(client.waits(), []);
});

test('without a network no attempt counts, and there is one now and then', async () => {
  for (let i = 0; i < 5; i += 1) server.refuse(500);
  const { client, world } = connect({ attemptsMax: 1, backoffBaseMs: 1, backoffCapMs: 1, random: () => 0 });
  world.online = false;
  await until('attempts', () => client.waits().length >= 4);
  equal(client.waits().every(({ offline, attempt }) => offline && attempt === 0), true);
  // It may be wrong: the connection that is made is used.
  (await server.accept()).send(WELCOME);
  await client.ready;
  for (let i = 0; i < 2; i += 1) server.refuse(500);
  world.online = true;
  const [...before] = client.waits();
  client.reconnect();
  const { status } = await within('end', client.closed);
  equal([status, client.waits().slice(before.length).map(({ offline }) => offline)], [500, [false]]);
});

test('without a network the delay is about the longest, but for the first after a session', () => {
  const backoff = (random) => new Backoff({ baseMs: 250, capMs: 30_000, settledMs: 5000, random: () => random });
  const offline = true;
  equal(backoff(0).after({ code: 1006, offline }), 15_000);
  equal(backoff(1).after({ code: 1006, offline }), 30_000);
  equal(backoff(1).after({ code: 1006, status: 503, retryAfterMs: 3000, offline }), 33_000);
  equal(backoff(1).after({ code: 1006, livedMs: 60_000, offline }), 250);
  equal(backoff(1).after({ code: 4001, offline }), null);
});

test('reconnect() gives the connection up for another one, once', async () => {
  const { client, link } = await begin();
  client.reconnect();
  client.reconnect();
  await resume(client);
  client.reconnect();
  const last = await resume(client);
  equal([client.attempts(), client.waits().length, server.accepted], [3, 0, 3]);
  await until('end of the first', () => link.closeCode !== null);
  await roundTrip(client, last);
});

test('reconnect() ends a wait, lets an attempt be, and does nothing after the end', async () => {
  const { client, link } = await begin();
  link.destroy();
  await until('loss', () => client.state === 'waiting');
  server.hold();
  client.reconnect();
  await until('upgrade', () => server.held === 1);
  for (let i = 0; i < 3; i += 1) client.reconnect();
  equal(client.attempts(), 2);
  const closed = client.close();
  client.reconnect();
  await closed;
  client.reconnect();
  equal([client.state, client.attempts()], ['closed', 2]);
});

test('reconnect() may be called by any listener', async () => {
  for (const state of ['connecting', 'open', 'waiting', 'closing', 'closed', 'session']) {
    const { client } = connect({ random: () => 0 });
    let calls = 0;
    const call = () => (calls += 1) === 1 && client.reconnect();
    if (state === 'session') client.on('session', call);
    else client.on('state', (event) => event.state === state && call());
    const link = await server.accept();
    link.send(WELCOME);
    await client.ready;
    if (state === 'waiting') link.destroy();
    if (['open', 'waiting', 'session'].includes(state)) await roundTrip(client, await resume(client));
    await within(`end at ${state}`, client.close());
    ok(calls > 0, state);
  }
});

test('a client that has ended watches nothing', async () => {
  const { client, world } = await begin();
  equal(world.watchers, 1);
  await client.close();
  equal(world.watchers, 0);
});
