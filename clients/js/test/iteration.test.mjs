/**
 * A loop begins where the client began, or where the loop before was left; what it cannot yield is
 * told.
 */
import { afterEach, beforeEach, test } from 'node:test';

import { Client } from '../index.js';
import { equal, rejects, within } from './environment.mjs';
import { ModelClock, ModelServer, run } from './model.mjs';

let server;
let clock;
let clients;

beforeEach(() => {
  server = new ModelServer();
  clock = new ModelClock();
  clients = [];
});

afterEach(() => {
  for (const client of clients) client.close();
  for (const client of clients) if (client.state === 'closing') server.link.end(1000);
});

/** A client in `tea`. */
async function inTea(options) {
  const client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0, ...options });
  clients.push(client);
  client.losses = [];
  client.on('lost', (range) => client.losses.push(range));
  const joined = client.join('tea');
  await run(server, clock, () => client.state === 'open' && client.pending === 0);
  await joined;
  return client;
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** So many messages come, and are told before this ends. */
async function hear(client, count, rooms = ['tea']) {
  for (let i = 0; i < count; i += 1) server.say(rooms);
  await run(server, clock, () => server.link.isIdle);
}

/** Reads so many messages, by a loop that is left then. */
async function read(client, count) {
  const seen = [];
  const loop = async () => {
    for await (const { room, seq } of client) {
      seen.push(room === 'tea' ? seq : `${room} ${seq}`);
      if (seen.length >= count) break;
    }
  };
  await within(`${count} messages (there are ${seen})`, loop(), 5000);
  return seen;
}

test('what came before the first loop is yielded by it, and then what comes', async () => {
  const client = await inTea();
  await hear(client, 3);
  const reading = read(client, 5);
  await hear(client, 2);
  equal(await reading, range(1, 5));
  equal(client.losses, []);
});

test('a listener that hears all takes nothing from a loop', async () => {
  const client = await inTea();
  const heard = [];
  client.on('message', ({ seq }) => heard.push(seq));
  await hear(client, 3);
  equal([heard, await read(client, 3)], [range(1, 3), range(1, 3)]);
});

test('a loop goes on where the one before was left', async () => {
  const client = await inTea();
  await hear(client, 5);
  equal(await read(client, 2), [1, 2]);
  await hear(client, 2);
  equal(await read(client, 4), [3, 4, 5, 6]);
  equal(await read(client, 1), [7]);
  const reading = read(client, 1);
  await hear(client, 1);
  equal(await reading, [8]);
});

test('a second loop beside the first begins with what comes next', async () => {
  const client = await inTea();
  await hear(client, 2);
  const [first, second] = [client[Symbol.asyncIterator](), client[Symbol.asyncIterator]()];
  await hear(client, 2);
  equal([(await first.next()).value.seq, (await second.next()).value.seq], [1, 3]);
  // What the last of them has not read is for the next.
  await second.return();
  await first.return();
  equal(await read(client, 3), [2, 3, 4]);
});

test('beyond the bound the oldest are told as lost when the loop begins, to each room and once', async () => {
  const client = await inTea({ backlogMax: 4 });
  const joined = client.join('cake');
  await run(server, clock, () => client.pending === 0);
  await joined;
  await hear(client, 3);
  await hear(client, 2, ['cake']);
  await hear(client, 2, ['tea', 'cake']);
  await hear(client, 2);
  equal(client.losses, []);
  const reading = read(client, 4);
  equal(client.losses, [
    { room: 'tea', epoch: 'e', from: 1, to: 3, reason: 'not_read' },
    { room: 'cake', epoch: 'e', from: 1, to: 2, reason: 'not_read' },
  ]);
  equal(await reading, [4, 5, 6, 7]);
  await hear(client, 1);
  equal(await read(client, 1), [8]);
  equal(client.losses.length, 2);
});

test('without a backlog a loop begins where it begins, and says so', async () => {
  const client = await inTea({ backlogMax: 0 });
  await hear(client, 2000);
  const reading = read(client, 1);
  equal(client.losses.map(({ from, to }) => [from, to]), [[1, 2000]]);
  await hear(client, 1);
  equal(await reading, [2001]);
});

test('a backlog that fills a loop holds the client until it is read', async () => {
  const client = await inTea({ queueMax: 4, backlogMax: 10 });
  await hear(client, 10);
  const told = [];
  client.on('message', ({ seq }) => told.push(seq));
  const loop = client[Symbol.asyncIterator]();
  await hear(client, 2);
  equal(told, []);
  const seen = [];
  for (let i = 0; i < 12; i += 1) seen.push((await within('message', loop.next())).value.seq);
  equal([seen, told], [range(1, 12), [11, 12]]);
});

test('what waits of a room is not yielded after it was left, not even to a loop that has begun', async () => {
  const client = await inTea();
  const loop = client[Symbol.asyncIterator]();
  await hear(client, 2);
  await hear(client, 1, ['tea', 'lobby']);
  await hear(client, 1, ['lobby']);
  const left = client.leave('tea');
  equal((await loop.next()).value.rooms.length, 2);
  equal((await loop.next()).value.room, 'lobby');
  await loop.return();
  await run(server, clock, () => client.pending === 0);
  await left;
  const again = client.join('tea');
  await run(server, clock, () => client.pending === 0);
  await again;
  await hear(client, 1);
  client.leave('tea');
  await run(server, clock, () => client.pending === 0);
  await hear(client, 1, ['lobby']);
  equal(await read(client, 1), ['lobby 3']);
});

test('a listener that leaves the room keeps its message from the loops', async () => {
  const client = await inTea();
  client.once('message', () => client.leave('tea'));
  await hear(client, 1);
  await hear(client, 1, ['lobby']);
  equal(await read(client, 1), ['lobby 1']);
});

test('what waits can be read after the end, and then the end is told', async () => {
  const client = await inTea();
  await hear(client, 3);
  equal(await read(client, 1), [1]);
  server.link.end(4009);
  equal(client.state, 'closed');
  equal(await read(client, 1), [2]);
  const loop = client[Symbol.asyncIterator]();
  equal((await loop.next()).value.seq, 3);
  await rejects(loop.next(), 'stopped');
  equal((await loop.next()).done, true);
  equal([(await loop.return('x')).value, (await loop.return()).done], ['x', true]);
  const closed = await inTea();
  await hear(closed, 1);
  closed.close();
  server.link.end(1000);
  equal((await read(closed, 2)).length, 1);
  equal(await read(closed, 2), []);
});
