/** What a server can make the client hold, in Node, is bounded whatever it does. */
import { createServer } from 'node:net';
import { afterEach, test as bareTest } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { Client } from '../index.js';
import { OPCODE, FrameReader, encodeFrame } from '../src/frames.js';
import { equal, ok, rejects, until, within } from './environment.mjs';
import { ScriptedServer } from './scripted.mjs';

const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

const cleanups = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

// With limits, and none of them: so commands go out as many at a time as the client likes.
const WELCOME = { limits: {}, type: 'welcome', client_id: 'me', session: 'secret', room: 'lobby', epoch: 'e', seq: 0, ping_s: 30 };

/** A client with a session, and the server's side of its connection. */
async function begin(options = {}, welcome = WELCOME) {
  const server = await ScriptedServer.start();
  cleanups.push(() => server.stop());
  const client = new Client(server.url, { random: () => 0, closeTimeoutMs: 100, ...options });
  cleanups.push(() => client.close());
  client.ends = [];
  client.on('state', ({ end }) => end && client.ends.push(end));
  const link = await server.accept();
  link.send(welcome);
  await client.ready;
  return { client, link, server };
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

const MIB = 1 << 20;

/** The MiB that this process holds, in buffers alone if so told. */
function held({ inBuffers = false } = {}) {
  // The first lets go of buffers that nobody has any more, and frees them beside the program; the second
  // waits for that. With one alone, up to 17 MiB of dead buffers were counted as held.
  collectGarbage();
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return ((inBuffers ? 0 : heapUsed) + arrayBuffers) / MIB;
}

// What may be held at a time by rights, and what the engine takes for itself.
const HELD_MIB_MAX = 16;

function checkHeld(before, options) {
  const grown = held(options) - before;
  ok(grown < HELD_MIB_MAX, `${Math.round(grown)} MiB are held`);
}

test('a flood of pings that nobody reads the pongs of fills no memory', async () => {
  const { client, link } = await begin();
  link.pause();
  const before = held();
  const pings = Buffer.concat(Array.from({ length: 500 }, () => encodeFrame(OPCODE.ping, Buffer.alloc(125))));
  // As many pongs would be 40 MB, many times what lies between the two.
  for (let sent = 0; sent < 300_000; sent += 500) await link.bytes(pings);
  link.send({ type: 'broadcast', id: 'x', content: 'all came' });
  await within('the end of the flood', new Promise((resolve) => client.once('broadcast', resolve)));
  checkHeld(before);
  await link.bytes(encodeFrame(OPCODE.ping, Buffer.from('the last')));
  link.resume();
  await until('the last pong', () => link.frames.some(({ payload }) => payload === 'the last'));
  equal(client.state, 'open');
});

test('commands wait for a server that does not read, and go on when it does', async () => {
  const { client, link, server } = await begin({ unsentBytesMax: 100_000, inFlightMax: 1000 });
  link.pause();
  // The commands themselves are the caller's, and wait as text.
  const before = held({ inBuffers: true });
  const text = 'x'.repeat(50_000);
  const all = Array.from({ length: 900 }, (_, i) => client.publish('lobby', { i, text }));
  // All of them would be 45 MB.
  checkHeld(before, { inBuffers: true });
  link.resume();
  for (let i = 0; i < 900; i += 1) await link.answer({ type: 'publish' }, { room: 'lobby', seq: i + 1 });
  const seqs = (await within('answers', Promise.all(all))).map(({ seq }) => seq);
  equal(seqs, Array.from({ length: 900 }, (_, i) => i + 1));
  equal(server.accepted, 1);
});

test('a server that talks and never reads is given up with a clear end', async () => {
  const { client, link, server } = await begin({ unsentBytesMax: 100_000, silenceMs: 2000, pingMsMax: 500, inFlightMax: 1000 });
  link.pause();
  const talk = setInterval(() => link.send({ type: 'unheard of' }), 20);
  cleanups.push(() => clearInterval(talk));
  const results = Promise.allSettled(Array.from({ length: 300 }, () => client.publish('lobby', 'x'.repeat(50_000))));
  const { reason } = await until('end', () => client.ends[0]);
  ok(/^the server takes nothing: \d+ bytes wait to be sent$/.test(reason), reason);
  // It comes back, and nothing is lost.
  const next = await server.accept();
  await next.answer({ type: 'resume' }, { client_id: 'me', session: 'secret', patterns: [], rooms: [{ room: 'lobby', epoch: 'e', seq: 0, recovered: true }] });
  for (let i = 0; i < 300; i += 1) await next.answer({ type: 'publish' }, { room: 'lobby', seq: i + 1 });
  equal((await within('answers', results)).every(({ status }) => status === 'fulfilled'), true);
});

test('a server that answers what it cannot have read makes the client write no more than the bound', async () => {
  const { client, link } = await begin({ unsentBytesMax: 100_000, silenceMs: 60_000 });
  link.pause();
  const before = held();
  // The refs count up, so that their answers can be foreseen. Each notice asks for a question of 60
  // bytes.
  for (let ref = 1; ref < 200_000; ref += 1000) {
    const frames = Array.from({ length: 1000 }, (_, i) => [
      { type: 'gap', room: 'lobby', presence: true },
      { type: 'ok', ref: ref + i, members: [], count: 0 },
    ]);
    await link.send(...frames.flat());
  }
  link.send({ type: 'broadcast', id: 'x', content: 'all came' });
  await within('the end of the flood', new Promise((resolve) => client.once('broadcast', resolve)));
  checkHeld(before);
});

const TEXT = 'x'.repeat(100_000);
const big = (seq) => ({ type: 'message', room: 'lobby', seq, id: `id-${seq}`, content: `${seq}${TEXT}`, client_id: 'other' });
const COUNT = 300;
const ALL = Array.from({ length: COUNT }, (_, i) => i + 1);

/** Answers questions for history, a few messages at a time, until there are no more. */
async function tellHistory(link) {
  for (let after = 0; after < COUNT; ) {
    await link.answer({ type: 'history' }, (question) => {
      const messages = ALL.filter((seq) => seq > question.after).slice(0, 10).map(big);
      after = messages.at(-1).seq;
      return { epoch: 'e', seq: COUNT, messages };
    });
  }
}

/** Sends big messages, and waits until they have come. */
async function sendAll(client, link, seqs) {
  for (const seq of seqs) await link.send(big(seq));
  const came = new Promise((resolve) => client.once('broadcast', resolve));
  link.send({ type: 'broadcast', id: 'x', content: 'all came' });
  await within('the end of the messages', came);
}

test('messages behind a gap that is never filled are let go, and fetched when it can be', async () => {
  const { client, link } = await begin({ holdBytesMax: MIB, backlogMax: 0 });
  const seen = [];
  client.on('message', ({ seq }) => seen.push(seq));
  const before = held();
  link.send({ type: 'gap', room: 'lobby', from: 1, to: 1 });
  await sendAll(client, link, ALL.slice(1));
  checkHeld(before);
  equal(seen, []);
  tellHistory(link).catch(() => {});
  await until('messages', () => seen.length === COUNT);
  equal(seen, ALL);
});

test('messages that no loop reads are dropped by their weight, and told as lost', async () => {
  const { client, link } = await begin({ queueBytesMax: MIB });
  const lost = [];
  client.on('lost', ({ from, to, reason }) => lost.push([from, to, reason]));
  const before = held();
  await sendAll(client, link, ALL);
  checkHeld(before);
  const loop = client[Symbol.asyncIterator]();
  const { value } = await loop.next();
  equal(lost, [[1, value.seq - 1, 'not_read']]);
  equal(value.seq > 1, true);
});

test('a loop that reads slowly holds the client by the weight of what waits, and has everything', async () => {
  const { client, link } = await begin({ queueBytesMax: MIB, holdBytesMax: MIB });
  const loop = client[Symbol.asyncIterator]();
  const before = held();
  await sendAll(client, link, ALL);
  checkHeld(before);
  tellHistory(link).catch(() => {});
  const seen = [];
  while (seen.length < COUNT) seen.push((await within('message', loop.next())).value.seq);
  equal(seen, ALL);
});

test('a close is not held up by a server that does not read', async () => {
  const { client, link } = await begin({ unsentBytesMax: 100_000, closeTimeoutMs: 100 });
  link.pause();
  const waiting = client.publish('lobby', 'x'.repeat(20 * MIB));
  client.close();
  await within('end', client.closed, 5000);
  await rejects(waiting, 'closed');
});

test('a message in fragments of one byte costs no more than its bytes', () => {
  let length = 0;
  const reader = new FrameReader({
    isMasked: false,
    messageBytesMax: MIB,
    message: (text) => {
      length = text.length;
    },
    ping: () => {},
  });
  const part = (opcode, isFinal) => encodeFrame(opcode, Buffer.from('x'), { isFinal });
  const pings = Array.from({ length: 40 }, () => encodeFrame(OPCODE.ping, Buffer.alloc(125)));
  reader.push(part(OPCODE.text, false));
  const before = held();
  // Each piece has a buffer of its own, as a socket gives it, of which one byte is the message's.
  for (let i = 0; i < 10_000; i += 1) reader.push(Buffer.concat([part(OPCODE.continuation, false), ...pings]));
  checkHeld(before);
  reader.push(part(OPCODE.continuation, true));
  equal(length, 10_002);
});

test('a frame that comes byte by byte costs no more than its bytes', () => {
  let length = 0;
  const reader = new FrameReader({
    isMasked: false,
    messageBytesMax: MIB,
    message: (text) => {
      length = text.length;
    },
  });
  const frame = encodeFrame(OPCODE.text, Buffer.alloc(MIB, 'x'));
  const before = held();
  for (let at = 0; at < frame.length - 1; at += 1) reader.push(Buffer.from([frame[at]]));
  checkHeld(before);
  reader.push(frame.subarray(frame.length - 1));
  equal(length, MIB);
});

test('an answer to the upgrade without end is given up, be it its head or its body', async () => {
  for (const [start, rest, expected] of [
    ['HTTP/1.1 101 Switching Protocols\r\n', 'x-more: 0123456789\r\n', /overflow/i],
    ['HTTP/1.1 503 No\r\n\r\n', '0123456789', /refused with 503/],
  ]) {
    const sockets = new Set();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
      socket.write(start);
      const more = () => socket.writable && socket.write(rest.repeat(1000), more);
      more();
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanups.push(() => new Promise((resolve) => server.close(resolve)));
    const client = new Client(`ws://127.0.0.1:${server.address().port}/`, { reconnect: false });
    const { reason } = await within('end', client.closed);
    ok(expected.test(reason), reason);
    await until('end of the connection', () => sockets.size === 0);
  }
});
