/** Commands whose callers wait no longer. */
import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, test as bareTest } from 'node:test';

import { Client } from '../index.js';
import { equal, ok, rejects, until, within } from './environment.mjs';
import { ScriptedServer } from './scripted.mjs';

const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

const WELCOME = { type: 'welcome', client_id: 'me', session: 'secret', room: 'lobby', epoch: 'e', seq: 0, ping_s: 30 };
const RESUMED = { client_id: 'me', session: 'secret', patterns: [], rooms: [{ room: 'lobby', epoch: 'e', seq: 0, recovered: true }] };

let server;
let client;

beforeEach(async () => {
  server = await ScriptedServer.start();
  client = new Client(server.url, { random: () => 0 });
});

afterEach(async () => {
  await client.close();
  await server.stop();
});

async function begin() {
  const link = await server.accept();
  link.send(WELCOME);
  await client.ready;
  return link;
}

/** Every command, each with these options at its end. */
const commands = (options) => [
  client.join('tea', options),
  client.join('prices.*', options),
  client.publish('lobby', 'x', options),
  client.publish(['lobby', 'tea'], 'x', options),
  client.direct('you', 'x', options),
  client.broadcast('x', options),
  client.history('lobby', options),
  client.presence('lobby', options),
];

test('what was not sent when its time is up is withdrawn', async () => {
  for (const command of commands({ timeoutMs: 20 })) {
    const { wasSent, message } = await rejects(command, 'timeout');
    equal([wasSent, message], [false, 'no answer within 20 ms; the command was not sent']);
  }
  equal(client.pending, 0);
  const link = await begin();
  const asked = client.history('lobby');
  await link.answer({ type: 'history' }, { epoch: 'e', seq: 0, messages: [] });
  await asked;
  equal(link.frames, []);
});

test('what was sent is waited for no longer, is not sent again, and its answer counts', async () => {
  const link = await begin();
  const seen = [];
  client.on('message', ({ seq }) => seen.push(seq));
  const abort = new AbortController();
  const published = client.publish('lobby', 'x', { signal: abort.signal });
  const joined = client.join('tea', { signal: abort.signal });
  const { ref } = await link.take({ type: 'publish' });
  const join = await link.take({ type: 'join' });
  const reason = new Error('the page was left');
  abort.abort(reason);
  for (const command of [published, joined]) {
    const { cause, wasSent } = await rejects(command, 'aborted');
    ok(cause === reason && wasSent, 'the reason, and that it was sent');
  }
  link.send(
    { type: 'ok', ref, room: 'lobby', seq: 1 },
    { type: 'ok', ref: join.ref, room: 'tea', epoch: 'e', seq: 0 },
    { type: 'message', room: 'lobby', seq: 2, id: 'i', content: 'y', client_id: 'other' },
  );
  await until('message', () => seen.length > 0);
  equal([seen, client.pending, client.rooms], [[2], 0, ['lobby', 'tea']]);
});

test('what was sent and given up is not sent again on another connection', async () => {
  const link = await begin();
  const given = Promise.allSettled(commands({ timeoutMs: 300 }));
  await link.take({ type: 'presence' });
  await given;
  equal(client.pending, 8);
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, RESUMED);
  equal(client.pending, 0);
  const asked = client.history('lobby');
  await next.answer({ type: 'history' }, { epoch: 'e', seq: 0, messages: [] });
  await asked;
  equal(next.frames, []);
});

test('what waits for the server to have time is withdrawn', async () => {
  const link = await begin();
  const published = client.publish('lobby', 'x', { timeoutMs: 300 });
  await link.refuse({ type: 'publish' }, 'overloaded', { retry_after_ms: 600 });
  await rejects(published, 'timeout');
  const asked = client.history('lobby');
  await link.answer({ type: 'history' }, { epoch: 'e', seq: 0, messages: [] });
  await asked;
  equal(link.frames, []);
});

test('what was refused for the moment after its caller had gone is not sent again', async () => {
  const link = await begin();
  const abort = new AbortController();
  const published = client.publish('lobby', 'x', { signal: abort.signal });
  const { ref } = await link.take({ type: 'publish' });
  abort.abort();
  await rejects(published, 'aborted');
  link.send({ type: 'error', ref, code: 'rate_limited', message: 'no', retry_after_ms: 1 });
  const asked = client.history('lobby');
  await link.answer({ type: 'history' }, { epoch: 'e', seq: 0, messages: [] });
  await asked;
  equal([link.frames, client.pending], [[], 0]);
});

test('a join that was given up and may have been carried out is undone by the next connection', async () => {
  const link = await begin();
  const abort = new AbortController();
  const joined = client.join('tea', { signal: abort.signal });
  await link.take({ type: 'join' });
  abort.abort();
  await rejects(joined, 'aborted');
  link.destroy();
  const next = await server.accept();
  const tea = { room: 'tea', epoch: 'e', seq: 0, recovered: false };
  await next.answer({ type: 'resume' }, { ...RESUMED, rooms: [...RESUMED.rooms, tea] });
  await next.answer({ type: 'leave', room: 'tea' }, { room: 'tea' });
  await until('session', () => client.state === 'open');
  equal([client.rooms, client.pending], [['lobby'], 0]);
});

test('a leave is sent though nobody waits for it, because it has been done here', async () => {
  const abort = new AbortController();
  const left = client.leave('lobby', { signal: abort.signal });
  abort.abort();
  await rejects(left, 'aborted');
  const link = await begin();
  await link.answer({ type: 'leave', room: 'lobby' }, { room: 'lobby' });
  await until('answer', () => client.pending === 0);
});

test('an answer in time is an answer, and leaves nothing at the signal', async () => {
  const link = await begin();
  const { signal } = new AbortController();
  const published = client.publish('lobby', 'x', { signal, timeoutMs: 60_000 });
  const refused = client.join('tea', { signal });
  equal(getEventListeners(signal, 'abort').length, 2);
  await link.answer({ type: 'publish' }, { room: 'lobby', seq: 1 });
  await link.refuse({ type: 'join' }, 'forbidden');
  equal((await published).seq, 1);
  await rejects(refused, 'forbidden');
  equal(getEventListeners(signal, 'abort').length, 0);
  const waiting = client.history('lobby', { signal });
  await client.close();
  await rejects(waiting, 'closed');
  equal(getEventListeners(signal, 'abort').length, 0);
});

test('a signal that is aborted already, or a wrong option, fails that call alone', async () => {
  const link = await begin();
  for (const command of [...commands({ signal: AbortSignal.abort() }), client.leave('lobby', { signal: AbortSignal.abort() })]) {
    const { wasSent } = await rejects(command, 'aborted');
    equal(wasSent, false);
  }
  for (const wrong of [{ timeoutMs: -1 }, { timeoutMs: 'soon' }, { timeoutMs: NaN }, { signal: {} }]) {
    for (const command of [...commands(wrong), client.leave('lobby', wrong)]) {
      const error = await command.catch((reason) => reason);
      ok(error.code === 'bad_request' && /^(timeoutMs|signal) must be/.test(error.message), error.message);
    }
  }
  const far = client.publish('lobby', 'x', { timeoutMs: 2 ** 40, signal: null });
  await link.answer({ type: 'publish' }, { room: 'lobby', seq: 1 });
  equal((await within('answer', far)).seq, 1);
  equal([client.rooms, link.frames], [['lobby'], []]);
});
