/** What is sent keeps to what the server allows, by what it has told or by its refusals. */
import { afterEach, beforeEach, test } from 'node:test';

import { Client } from '../index.js';
import { Rate } from '../src/rate.js';
import { equal, generator, ok } from './environment.mjs';
import { ModelClock, ModelServer, run } from './model.mjs';

/**
 * The bucket of the server's `src/chat/rate.rs`: what it says is the time to wait, 0 if the message
 * passes.
 */
class ServerBucket {
  constructor({ messages = 0, bytes = 0 }) {
    this.rates = [messages, bytes];
    this.levels = [messages, bytes];
    this.at = undefined;
  }

  spend(bytes, now) {
    const seconds = (now - (this.at ?? now)) / 1000;
    this.at = now;
    this.levels = this.levels.map((level, i) => Math.min(level + seconds * this.rates[i], this.rates[i]));
    const missing = [1 - this.levels[0], Math.min(bytes, this.rates[1]) - this.levels[1]];
    const waits = missing.map((amount, i) => (this.rates[i] === 0 || amount <= 0 ? 0 : (amount / this.rates[i]) * 1000));
    const wait = Math.ceil(Math.max(...waits));
    if (wait === 0) this.levels = [this.levels[0] - 1, this.levels[1] - bytes];
    return wait;
  }
}

let server;
let clock;
let client;
let refusals;

beforeEach(() => {
  server = new ModelServer();
  clock = new ModelClock();
  refusals = 0;
});

afterEach(() => {
  client?.close();
  if (client?.state === 'closing') server.link.end(1000);
});

/** A server with this rate, which tells it or does not. */
function limit(rate, tells) {
  server.limits = tells ? { rate_messages: rate.messages, rate_bytes: rate.bytes, max_rooms: 100 } : undefined;
  const buckets = new Map();
  server.refuses = (_, bytes) => {
    if (!buckets.has(server.link)) buckets.set(server.link, new ServerBucket(rate));
    const waitMs = buckets.get(server.link).spend(bytes, clock.now());
    if (waitMs === 0) return undefined;
    refusals += 1;
    return { code: 'rate_limited', retry_after_ms: waitMs };
  };
}

async function opened(options) {
  client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0, ...options });
  client.ends = 0;
  client.on('state', ({ state }) => {
    if (state === 'waiting' || state === 'closed') client.ends += 1;
  });
  await run(server, clock, () => client.state === 'open');
  return client;
}

const seqs = async (calls) => (await Promise.all(calls)).map(({ seq }) => seq);
const upTo = (count) => Array.from({ length: count }, (_, i) => i + 1);

test('a burst over a rate that the welcome tells is refused nothing, and takes no longer than it must', async () => {
  for (const [rate, count, leastMs, mostMs] of [
    [{ messages: 10 }, 100, 9000, 10_500],
    [{ messages: 1 }, 5, 4000, 4600],
    [{ messages: 500 }, 2000, 3000, 4000],
    // A publish of this kind has some 110 bytes.
    [{ bytes: 1100 }, 100, 8000, 12_500],
    [{ messages: 20, bytes: 100_000 }, 50, 1500, 2000],
  ]) {
    limit(rate, true);
    await opened({ outboxMax: 2000 });
    const began = clock.now();
    const calls = Array.from({ length: count }, (_, i) => client.publish('lobby', i));
    await run(server, clock, () => client.pending === 0);
    equal(await seqs(calls), upTo(count));
    const tookMs = clock.now() - began;
    ok(tookMs >= leastMs && tookMs <= mostMs, `${JSON.stringify(rate)}: ${tookMs} ms`);
    equal([refusals, client.ends], [0, 0]);
    client.close();
    server.link.end(1000);
    server = new ModelServer();
  }
});

test('a burst over a rate that nobody tells costs no connection', async () => {
  for (const rate of [{ messages: 10 }, { messages: 1 }, { messages: 100 }, { bytes: 1100 }]) {
    limit(rate, false);
    await opened();
    const calls = Array.from({ length: 60 }, (_, i) => client.publish('lobby', i));
    await run(server, clock, () => client.pending === 0);
    equal(await seqs(calls), upTo(60));
    equal(server.session.told.size, 60);
    equal(client.ends, 0, JSON.stringify(rate));
    client.close();
    server.link.end(1000);
    server = new ModelServer();
  }
});

test('a message larger than a second of bytes is sent alone, and paid for', async () => {
  limit({ bytes: 1000 }, true);
  await opened();
  const began = clock.now();
  const calls = ['x', 'x'.repeat(3000), 'x'].map((content) => client.publish('lobby', content));
  await run(server, clock, () => client.pending === 0);
  equal(await seqs(calls), [1, 2, 3]);
  equal(refusals, 0);
  const tookMs = clock.now() - began;
  ok(tookMs > 2000 && tookMs < 4000, `${tookMs} ms`);
});

test('a reconnect begins with what the resume has cost', async () => {
  limit({ messages: 3 }, true);
  await opened();
  server.link.end(1006);
  const calls = Array.from({ length: 10 }, (_, i) => client.publish('lobby', i));
  await run(server, clock, () => client.pending === 0);
  await Promise.all(calls);
  equal(refusals, 0);
});

test('nothing at all is sent before the time that a refusal names, the longest of several', async () => {
  await opened();
  const waits = [200, 500, 100];
  const refusedAt = [];
  server.refuses = ({ type }) => {
    const waitMs = type === 'publish' ? waits.shift() : undefined;
    if (waitMs === undefined) return undefined;
    refusedAt.push(clock.now());
    return { code: 'rate_limited', retry_after_ms: waitMs };
  };
  const calls = ['a', 'b', 'c'].map((content) => client.publish('lobby', content));
  await run(server, clock, () => refusedAt.length === 3 && server.link.isIdle);
  calls.push(client.join('tea'), client.history('lobby'));
  server.link.down.push({ type: 'gap', room: 'lobby', from: 1, to: 1 });
  const sent = server.link.taken.length;
  while (clock.now() < refusedAt[1] + 490) {
    server.link.stepUp();
    server.link.stepDown();
    clock.pass(1);
  }
  equal(server.link.taken.length, sent);
  await run(server, clock, () => client.pending === 0);
  await Promise.all(calls);
  equal(client.ends, 0);
});

test('limits that make no sense are none', async () => {
  for (const limits of [{}, { rate_messages: 0 }, { rate_messages: 'many', rate_bytes: -5 }, { rate_messages: null, rate_bytes: Infinity }, 7, 'none', null]) {
    server.limits = limits;
    await opened();
    const calls = Array.from({ length: 100 }, (_, i) => client.publish('lobby', i));
    const began = clock.now();
    await run(server, clock, () => client.pending === 0);
    await Promise.all(calls);
    ok(clock.now() - began < 1000, `${JSON.stringify(limits)}: ${clock.now() - began} ms`);
    client.close();
    server.link.end(1000);
    server = new ModelServer();
  }
});

test('whatever the network delays, what the bucket lets through the server takes', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  const rounds = 300;
  let total = 0;
  for (let round = 0; round < rounds; round += 1) {
    const random = generator(seed + round);
    const rate = {
      messages: random() < 0.8 ? 1 + Math.floor(random() * 50) : 0,
      bytes: random() < 0.5 ? 50 + Math.floor(random() * 1000) : 0,
    };
    const time = new ModelClock();
    const ours = new Rate(rate, time);
    const theirs = new ServerBucket(rate);
    // In order, as on a connection: each way holds back what it likes.
    const [up, down] = [[], []];
    let passed = 0;
    for (let step = 0; step < 3000; step += 1) {
      time.pass(random() < 0.01 ? random() * 3000 : random() * 20);
      const bytes = 20 + Math.floor(random() * (random() < 0.1 ? 2000 : 100));
      while (random() < 0.8 && ours.waitMs(bytes) === 0) {
        ours.sent(bytes);
        up.push(bytes);
      }
      while (up.length > 0 && random() < 0.5) {
        const taken = up.shift();
        equal(theirs.spend(taken, time.now()), 0, `SEED=${seed + round}: wait`);
        passed += 1;
        down.push(taken);
      }
      while (down.length > 0 && random() < 0.5) ours.answered(down.shift());
    }
    // A large message at a low rate is paid for for half of the round.
    ok(passed > 0, `SEED=${seed + round}: no message`);
    total += passed;
  }
  ok(total > 100 * rounds, `SEED=${seed}: ${total} messages`);
});
