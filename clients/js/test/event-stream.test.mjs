/** One connection by an event stream: posts up, events down, and its one end. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test as bareTest } from 'node:test';

import { EventStream } from '../src/event-stream.js';
import { until, within } from './environment.mjs';
import { StreamServer } from './stream-server.mjs';

const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

let server;
let sockets;

beforeEach(async () => {
  server = await StreamServer.start();
  sockets = [];
});

afterEach(async () => {
  for (const socket of sockets) socket.terminate();
  await server.stop();
});

/** A socket that writes down what happens to it. */
function open(options = {}) {
  const socket = new EventStream(options.url ?? server.url, { messageBytesMax: 1_000_000, ...options });
  sockets.push(socket);
  const told = { opens: 0, messages: [], signs: 0, ends: [] };
  const opened = new Promise((resolve) => {
    socket.onopen = () => {
      told.opens += 1;
      resolve();
    };
  });
  socket.onmessage = ({ data }) => told.messages.push(data);
  socket.onlife = () => {
    told.signs += 1;
  };
  const ended = new Promise((resolve) => {
    socket.onclose = (end) => {
      told.ends.push(end);
      resolve(end);
    };
  });
  return Object.assign(socket, { told, opened: () => within('open', opened), ended: () => within('end', ended) });
}

async function opened(options) {
  const socket = open(options);
  const stream = await server.accept();
  await socket.opened();
  return { socket, stream };
}

const linesOf = ({ posts }) => posts.map(({ lines }) => lines);

test('it is open with its first event, and messages come as they are', async () => {
  const { socket, stream } = await opened({ headers: { 'x-of': 'test' } });
  const { url, headers, method } = stream.request;
  assert.deepEqual([method, url, headers.accept, headers['x-of']], ['GET', '/ws?as=anna', 'text/event-stream', 'test']);
  stream.raw('data: {"n":1}\n\ndata: {"n":\ndata: 2}\n\n: comment\n\nevent: other\ndata: {}\n\n');
  await until('messages', () => socket.told.messages.length === 2);
  assert.deepEqual([socket.told.messages, socket.told.opens], [['{"n":1}', '{"n":\n2}'], 1]);
});

test('a name and a password in the address are sent in a header', async () => {
  const { stream } = await opened({ url: server.url.replace('//', '//an%20na:t%C3%A9@') });
  assert.equal(stream.request.headers.authorization, `Basic ${Buffer.from('an na:té').toString('base64')}`);
});

test('messages of one turn are one post, posts go one at a time, and none is out of order', async () => {
  const { socket, stream } = await opened();
  let release;
  stream.answers.push(() => new Promise((resolve) => (release = () => resolve(204))));
  socket.send('{"n":1}');
  socket.send('{"n":2}');
  await until('post', () => stream.posts.length === 1);
  for (let n = 3; n <= 6; n += 1) {
    socket.send(`{"n":${n}}`);
    await new Promise(setImmediate);
  }
  assert.equal(stream.posts.length, 1);
  release();
  await until('messages', () => stream.frames.length === 6);
  assert.deepEqual(stream.frames.map(({ n }) => n), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(stream.posts.map(({ post, lines, type }) => [post, lines.length, type]), [
    [1, 2, 'text/plain'],
    [2, 4, 'text/plain'],
  ]);
  assert.equal(stream.atOnce, 1);
});

test('a post has 64 KiB of messages, or one that is larger', async () => {
  const { socket, stream } = await opened();
  const sizes = [30_000, 30_000, 30_000, 200_000, 10, 10];
  for (const size of sizes) socket.send(JSON.stringify('x'.repeat(size - 2)));
  await until('messages', () => stream.frames.length === sizes.length);
  assert.deepEqual(linesOf(stream).map((lines) => lines.map(({ length }) => length)), [[30_000, 30_000], [30_000], [200_000], [10, 10]]);
});

test('what waits is counted in bytes, until it is answered', async () => {
  const { socket, stream } = await opened();
  let release;
  stream.answers.push(() => new Promise((resolve) => (release = () => resolve(204))));
  socket.send('"é"');
  await until('post', () => stream.posts.length === 1);
  socket.send('"☕"');
  assert.equal(socket.bufferedAmount, 5 + 6);
  release();
  await until('answers', () => socket.bufferedAmount === 0);
  assert.deepEqual(linesOf(stream), [['"é"'], ['"☕"']]);
});

test('a post without an answer is sent again as it was, and taken once', async () => {
  const { socket, stream } = await opened();
  stream.answers.push({ status: 'none', isTaken: true }, { status: 'none' }, { status: 502 });
  socket.send('{"n":1}');
  await until('post', () => stream.posts.length === 1);
  socket.send('{"n":2}');
  await until('messages', () => stream.frames.length === 2);
  assert.deepEqual(stream.frames.map(({ n }) => n), [1, 2]);
  assert.deepEqual(stream.posts.map(({ post }) => post), [1, 1, 1, 1, 2]);
  assert.equal(new Set(stream.posts.slice(0, 4).map(({ body }) => body)).size, 1);
  assert.deepEqual(socket.told.ends, []);
});

test('a busy server has the same post again, after the time that it asks for', async () => {
  const { socket, stream } = await opened();
  stream.answers.push({ status: 503, headers: { 'retry-after': '1' } });
  const begun = performance.now();
  socket.send('{"n":1}');
  await until('message', () => stream.frames.length === 1);
  assert.ok(performance.now() - begun >= 990);
  assert.deepEqual(stream.posts.map(({ post }) => post), [1, 1]);
});

test('a ping is answered by a post, and is a sign of life', async () => {
  const { socket, stream } = await opened();
  let release;
  stream.event('ping', {});
  await until('post', () => stream.posts.length === 1);
  assert.deepEqual([linesOf(stream), socket.told.signs], [[[]], 1]);
  // The post that is out may have been read before the ping was sent.
  stream.answers.push(() => new Promise((resolve) => (release = () => resolve(204))));
  socket.send('1');
  await until('post', () => stream.posts.length === 2);
  stream.event('ping', {});
  stream.event('ping', {});
  await until('pings', () => socket.told.signs === 3);
  release();
  await until('answer', () => stream.posts.length === 3);
  assert.deepEqual(linesOf(stream), [[], ['1'], []]);
});

test('a close follows what waits, and ends with what the server says', async () => {
  const { socket, stream } = await opened();
  socket.send('{"n":1}');
  socket.close(1000, 'bye');
  socket.send('{"n":2}');
  assert.deepEqual(await socket.ended(), { code: 1000, reason: 'bye' });
  assert.deepEqual([stream.frames, stream.close, stream.posts.length], [[{ n: 1 }], { code: 1000, reason: 'bye' }, 1]);
  await until('end', () => !stream.isOpen);
});

test('a close during a post comes after it', async () => {
  const { socket, stream } = await opened();
  let release;
  stream.answers.push(() => new Promise((resolve) => (release = () => resolve(204))));
  socket.send('{"n":1}');
  await until('post', () => stream.posts.length === 1);
  socket.send('{"n":2}');
  socket.close(1000, '');
  release();
  assert.equal((await socket.ended()).code, 1000);
  assert.deepEqual(stream.posts.map(({ post, close, lines }) => [post, close !== undefined, lines.length]), [[1, false, 1], [2, true, 1]]);
});

test('a server that does not answer the close is not waited for long', async () => {
  const { socket, stream } = await opened();
  stream.answers.push(() => new Promise(() => {}));
  socket.close(1000, '');
  assert.deepEqual(await socket.ended(), { code: 1006, reason: 'the server did not answer the close' });
  await until('end', () => !stream.isOpen);
});

test('the server closes, and nothing is told after', async () => {
  const { socket, stream } = await opened();
  stream.raw('event: closed\ndata: {"code":4102,"reason":"idle"}\n\ndata: 1\n\nevent: ping\ndata: {}\n\n');
  assert.deepEqual(await socket.ended(), { code: 4102, reason: 'idle' });
  await until('end', () => !stream.isOpen);
  assert.deepEqual([socket.told.messages, socket.told.signs, socket.told.ends.length], [[], 0, 1]);
});

test('a close that makes no sense is a lost connection', async () => {
  for (const text of ['nonsense', 'null', '{"code":"x","reason":5}']) {
    const { socket, stream } = await opened();
    stream.raw(`event: closed\ndata: ${text}\n\n`);
    assert.deepEqual(await socket.ended(), { code: 1006, reason: '' });
  }
});

test('a stream that ends without a word, also within an event, is lost', async () => {
  for (const end of ['end', 'reset']) {
    const { socket, stream } = await opened();
    stream.raw('data: 1\n\ndata: 2\n');
    await until('message', () => socket.told.messages.length === 1);
    stream[end]();
    assert.deepEqual(await socket.ended(), { code: 1006, reason: 'the connection was lost' });
    assert.deepEqual(socket.told.messages, ['1']);
  }
});

test('a refusal has its status, and the time that it asks for', async () => {
  server.refusals.push({ status: 503, headers: { 'retry-after': '7' } }, { status: 403 });
  const end = { code: 1006, reason: 'the event stream was refused with 503', status: 503, retryAfterMs: 7000 };
  assert.deepEqual(await open().ended(), end);
  const { status, retryAfterMs } = await open().ended();
  assert.deepEqual([status, retryAfterMs], [403, undefined]);
  // As a page of another origin sees it.
  for (const [body, ms] of [['{"retry_after_s":3}', 3000], ['{"retry_after_s":"3"}', undefined], ['no', undefined], ['x'.repeat(1e6), undefined]]) {
    server.refusals.push({ status: 503, body });
    assert.equal((await open().ended()).retryAfterMs, ms);
  }
});

test('what is no event stream is refused', async () => {
  server.refusals.push({ status: 200, headers: { 'content-type': 'text/html' } }, { status: 302, headers: { location: '/login' } });
  assert.equal((await open().ended()).reason, 'the answer is no event stream');
  assert.equal((await open().ended()).code, 1006);
  server.greets = false;
  const socket = open();
  (await server.accept()).event('welcome', { connection: 'key' });
  assert.equal((await socket.ended()).reason, 'the event stream began with something else');
});

test('where nobody listens it says why', async () => {
  const { reason } = await open({ url: 'ws://127.0.0.1:1/ws' }).ended();
  assert.match(reason, /ECONNREFUSED|bad port/);
});

test('an answer that is held back is given up, with the likely cause', async () => {
  server.greets = false;
  const socket = open({ firstEventMs: 50 });
  const stream = await server.accept();
  assert.deepEqual(await socket.ended(), { code: 1006, reason: 'no event within 50 ms: a proxy may hold the answer back' });
  await until('end', () => !stream.isOpen);
  assert.equal(stream.request.headers.accept, 'text/event-stream');
  // The next one has something to fill the proxy's buffer with.
  server.greets = true;
  assert.equal((await opened()).stream.request.headers.accept, 'text/event-stream; padding=8192');
});

test('a proxy that holds back the head too is given padding the next time', async () => {
  server.refusals.push(null);
  const held = open({ firstEventMs: 20 });
  await until('requests', () => server.refusals.length === 0);
  await new Promise((resolve) => setTimeout(resolve, 25));
  held.terminate();
  assert.equal((await opened()).stream.request.headers.accept, 'text/event-stream; padding=8192');
});

test('one that is given up early says nothing of proxies', async () => {
  server.refusals.push(null);
  const early = open();
  await until('request', () => server.refusals.length === 0);
  early.terminate();
  assert.equal((await opened()).stream.request.headers.accept, 'text/event-stream');
});

test('an event that is too large ends it for good', async () => {
  const { socket, stream } = await opened({ messageBytesMax: 1_000 });
  stream.raw(`data: ${'x'.repeat(2_000)}`);
  assert.equal((await socket.ended()).code, 1009);
});

test('a post that is refused ends it', async () => {
  for (const [status, code] of [[409, 1006], [400, 1006], [413, 1009]]) {
    const { socket, stream } = await opened();
    stream.answers.push(status);
    socket.send('1');
    assert.deepEqual(await socket.ended(), { code, reason: `a post was refused with ${status}` });
  }
});

test('a stream that is not known any more may still say why', async () => {
  const first = await opened();
  first.stream.answers.push(410);
  first.socket.send('1');
  await until('post', () => first.stream.posts.length === 1);
  first.stream.closed(4201, 'silent');
  assert.deepEqual(await first.socket.ended(), { code: 4201, reason: 'silent' });
  const second = await opened();
  second.stream.answers.push(404);
  second.socket.send('1');
  await until('post', () => second.stream.posts.length === 1);
  second.socket.send('2');
  assert.deepEqual(await second.socket.ended(), { code: 1006, reason: 'a post was refused with 404' });
  assert.equal(second.stream.posts.length, 1);
});

test('given up, it ends at once, with what it was doing', async () => {
  const { socket, stream } = await opened();
  stream.answers.push({ status: 'none' });
  socket.send('1');
  await until('post', () => stream.posts.length === 1);
  socket.terminate();
  assert.deepEqual([socket.told.ends, socket.bufferedAmount], [[{ code: 1006, reason: 'given up' }], 0]);
  await until('end', () => !stream.isOpen);
  assert.equal(stream.posts.length, 1);
  // And before it is open.
  server.refusals.push(null);
  const early = open();
  early.close(1000, '');
  assert.equal((await early.ended()).reason, 'given up');
});
