/** The client against a server whose every frame is the test's. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, test as bareTest } from 'node:test';

import { Client } from '../index.js';
import { OPCODE, encodeFrame } from '../src/frames.js';
import { equal, rejects, until, within } from './environment.mjs';
import { ScriptedServer } from './scripted.mjs';

// Some promises here have no deadline of their own.
const test = (name, run) => bareTest(name, { timeout: 60_000 }, run);

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

/** A client that notes what it is told, and comes back at once unless told otherwise. */
function connect(options = {}) {
  const client = new Client(server.url, { random: () => 0, ...options });
  clients.push(client);
  client.log = [];
  client.on('message', ({ content }) => client.log.push(content));
  client.on('lost', ({ room, direct, from, to }) => client.log.push(`lost ${direct ? 'direct' : room} ${from}-${to}`));
  client.on('direct', ({ content }) => client.log.push(`direct ${content}`));
  client.on('session', ({ clientId, resumed }) => client.log.push(`${resumed ? 'resumed' : 'new'} ${clientId}`));
  client.states = [];
  client.on('state', (event) => client.states.push(event));
  client.told = () => client.log.splice(0).join(', ');
  return client;
}

const welcome = (id, rest = {}) => ({ type: 'welcome', client_id: id, session: `secret-${id}`, ping_s: 30, max_message_bytes: 1000, ...rest });
const lobby = (seq, epoch = 'e') => ({ room: 'lobby', epoch, seq });
const say = (room, seq, content = `${room}${seq}`, client_id = 'other') => ({ type: 'message', room, seq, id: `id-${room}-${seq}`, content, client_id });
const resumed = (rooms, rest = {}) => ({ client_id: 'me', session: 'secret-me', patterns: [], rooms, direct: { seq: 0, recovered: true }, ...rest });
const inRoom = (room, seq, messages, rest = {}) => ({ room, epoch: 'e', seq, recovered: true, overflow: 'close', messages, ...rest });

/** A client in the lobby at 0, and its connection. */
async function inLobby(options) {
  const client = connect(options);
  const link = await server.accept();
  link.send(welcome('me', lobby(0)));
  await client.ready;
  client.told();
  return { client, link };
}

const quiet = (client, expected) => until(`"${expected}" (it is "${client.log.join(', ')}")`, () => client.log.join(', ') === expected).then(() => client.told());

test('the upgrade offers the subprotocol and bears the given headers', async () => {
  connect({ headers: { authorization: 'Bearer x' } });
  const { request } = await server.accept();
  equal(request.headers['sec-websocket-protocol'], 'rusty-socks.v1');
  equal(request.headers.authorization, 'Bearer x');
  equal(request.headers['sec-websocket-extensions'], undefined);
});

test('resume is the first frame, with all positions, and all before its answer is void', async () => {
  const { client, link } = await inLobby();
  link.send(say('lobby', 1), { type: 'direct', seq: 1, content: 'psst' });
  await quiet(client, 'lobby1, direct psst');
  link.destroy();
  const next = await server.accept();
  next.send(welcome('void', lobby(7)), say('lobby', 6), say('lobby', 7));
  const command = await next.take({ type: 'resume' });
  equal(command.session, 'secret-me');
  equal(command.rooms, [{ room: 'lobby', epoch: 'e', seq: 1 }]);
  equal(command.direct, 1);
  // All in one piece: what follows the answer must find the session as the answer left it.
  next.send(
    { type: 'ok', ref: command.ref, ...resumed([inRoom('lobby', 3, [2, 3].map((seq) => say('lobby', seq)))], { direct: { seq: 2, recovered: true } }) },
    { type: 'direct', seq: 1, content: 'psst' },
    { type: 'direct', seq: 2, content: 'hey' },
    say('lobby', 4),
  );
  await quiet(client, 'resumed me, lobby2, lobby3, direct hey, lobby4');
  equal(client.clientId, 'me');
});

test('unrecoverable: the new identity, and the rooms are joined where we were', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('tea', { sender: 'anna', presence: true });
  await link.answer({ type: 'join', room: 'tea' }, { room: 'tea', epoch: 'e', seq: 5, overflow: 'close', members: [], count: 1 });
  await joined;
  link.send(say('tea', 6), say('lobby', 1));
  await quiet(client, 'tea6, lobby1');
  link.destroy();
  const next = await server.accept();
  next.send(welcome('second', lobby(2)), say('lobby', 2));
  await next.refuse({ type: 'resume' }, 'unrecoverable');
  const leave = await next.take({ type: 'leave', room: 'lobby' });
  next.send({ type: 'ok', ref: leave.ref, room: 'lobby' });
  const lobbyJoin = await next.take({ type: 'join', room: 'lobby' });
  equal(lobbyJoin.since, { epoch: 'e', seq: 1 });
  const teaJoin = await next.take({ type: 'join', room: 'tea' });
  equal([teaJoin.since, teaJoin.presence, teaJoin.sender], [{ epoch: 'e', seq: 6 }, true, 'anna']);
  next.send({ type: 'ok', ref: lobbyJoin.ref, ...inRoom('lobby', 2, [say('lobby', 2)]) });
  next.send({ type: 'ok', ref: teaJoin.ref, ...inRoom('tea', 3, [], { epoch: 'f', recovered: false }) }, say('tea', 4));
  await quiet(client, 'new second, lobby2, lost tea null-null, tea4');
  equal(client.clientId, 'second');
  await until('state', () => client.state === 'open');
});

test('a room that cannot be taken up again is told as dropped', async () => {
  const { client, link } = await inLobby();
  const dropped = [];
  client.on('dropped', (event) => dropped.push(event));
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([{ room: 'lobby', error: 'limit_exceeded' }]));
  await until('dropped', () => dropped.length > 0);
  equal(dropped, [{ room: 'lobby', code: 'limit_exceeded' }]);
  equal(client.rooms, []);
});

test('a room that an overloaded server does not take up again is joined from where it was', async () => {
  const { client, link } = await inLobby();
  const dropped = [];
  client.on('dropped', (event) => dropped.push(event));
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([{ room: 'lobby', error: 'overloaded' }]));
  const join = await next.take({ type: 'join', room: 'lobby' });
  equal(join.since, { epoch: 'e', seq: 0 });
  next.send({ type: 'ok', ref: join.ref, ...inRoom('lobby', 1, [say('lobby', 1)]) });
  await quiet(client, 'resumed me, lobby1');
  equal([client.rooms, dropped], [['lobby'], []]);
});

test('a room that new rules of the server do not allow is told as dropped', async () => {
  const { client, link } = await inLobby();
  const told = [];
  client.on('dropped', (event) => told.push(event));
  client.on('left', ({ client_id }) => told.push(client_id));
  link.send({ type: 'left', room: 'lobby', client_id: 'other' }, { type: 'left', room: 'lobby', client_id: 'me' });
  await until('dropped', () => told.length > 1);
  equal(told, ['other', { room: 'lobby', code: 'forbidden' }]);
  equal(client.rooms, []);
});

test('recovered:false with the same epoch is fetched from history', async () => {
  const { client, link } = await inLobby();
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 4, [], { recovered: false })]));
  next.send(say('lobby', 5));
  await next.answer({ type: 'history', after: 0 }, { ...lobby(5), messages: [say('lobby', 3), say('lobby', 4, 'mine', 'me')] });
  await quiet(client, 'resumed me, lost lobby 1-2, lobby3, lobby5');
});

test('a gap is paged, and a connection lost in the middle of it is no loss', async () => {
  const { client, link } = await inLobby();
  link.send({ type: 'gap', room: 'lobby', from: 1, to: 4 }, say('lobby', 5));
  await link.answer({ type: 'history', after: 0 }, { ...lobby(5), messages: [say('lobby', 1), say('lobby', 2)] });
  await link.take({ type: 'history', after: 2 });
  await quiet(client, 'lobby1, lobby2');
  link.destroy();
  const next = await server.accept();
  const resume = await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 6, [3, 4, 5, 6].map((seq) => say('lobby', seq)))]));
  equal(resume.rooms, [{ room: 'lobby', epoch: 'e', seq: 2 }]);
  await quiet(client, 'resumed me, lobby3, lobby4, lobby5, lobby6');
});

test('a new epoch replaces the position, and pages of the earlier one are passed over', async () => {
  const { client, link } = await inLobby();
  link.send({ type: 'gap', room: 'lobby', from: 1, to: 4 }, say('lobby', 5));
  const stale = await link.take({ type: 'history', after: 0 });
  link.send({ type: 'epoch', room: 'nowhere', epoch: 'f', seq: 9 }, { type: 'epoch', room: 'lobby', epoch: 'f', seq: 2 });
  link.send({ type: 'ok', ref: stale.ref, ...lobby(5), messages: [say('lobby', 1, 'stale')] }, say('lobby', 3));
  await link.answer({ type: 'history', after: 0 }, { ...lobby(3), epoch: 'f', messages: [1, 2].map((seq) => say('lobby', seq)) });
  await quiet(client, 'lost lobby null-null, lobby1, lobby2, lobby3');
  equal(client.session.rooms, [{ room: 'lobby', epoch: 'f', seq: 3 }]);
});

test('a publish that is answered across a new epoch hides no message', async () => {
  const { client, link } = await inLobby();
  const mine = client.publish('lobby', 'mine');
  const { ref, id } = await link.take({ type: 'publish' });
  link.send({ type: 'epoch', room: 'lobby', epoch: 'f', seq: 0 }, { type: 'ok', ref, room: 'lobby', seq: 1, id }, say('lobby', 1));
  equal((await mine).seq, 1);
  await quiet(client, 'lobby1');
});

test('a new epoch counts from the answer to the join or resume on', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('tea');
  const { ref } = await link.take({ type: 'join', room: 'tea' });
  link.send({ type: 'epoch', room: 'tea', epoch: 'e', seq: 3 });
  link.send({ type: 'ok', ref, ...inRoom('tea', 700, undefined) }, say('tea', 701));
  equal((await joined).seq, 700);
  await quiet(client, 'tea701');
  link.destroy();
  const next = await server.accept();
  const resume = await next.take({ type: 'resume' });
  next.send({ type: 'epoch', room: 'tea', epoch: 'f', seq: 3 });
  const rooms = [inRoom('lobby', 0, []), inRoom('tea', 702, [say('tea', 702)], { epoch: 'f' })];
  next.send({ type: 'ok', ref: resume.ref, ...resumed(rooms) });
  await quiet(client, 'resumed me, tea702');
  equal(client.session.rooms[1], { room: 'tea', epoch: 'f', seq: 702 });
});

test('history that is refused for the moment is asked again', async () => {
  const { client, link } = await inLobby();
  link.send({ type: 'gap', room: 'lobby', from: 1, to: 1 });
  await link.refuse({ type: 'history' }, 'rate_limited', { retry_after_ms: 20 });
  await link.answer({ type: 'history', after: 0 }, { ...lobby(1), messages: [say('lobby', 1)] });
  await quiet(client, 'lobby1');
});

test('a publish is sent again with the same id until it is answered, and in order', async () => {
  const { client, link } = await inLobby();
  const results = Promise.all([client.publish('lobby', 'one'), client.publish('lobby', 'two')]);
  const first = await link.take({ type: 'publish', content: 'one' });
  await link.take({ type: 'publish', content: 'two' });
  link.destroy();
  const third = client.publish('lobby', 'three');
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [])]));
  const again = await next.answer({ type: 'publish', content: 'one' }, ({ id }) => ({ room: 'lobby', seq: 1, id, repeated: true }));
  equal(again.id, first.id);
  await next.answer({ type: 'publish', content: 'two' }, ({ id }) => ({ room: 'lobby', seq: 2, id }));
  await next.answer({ type: 'publish', content: 'three' }, ({ id }) => ({ room: 'lobby', seq: 3, id }));
  equal((await results).map(({ seq, repeated }) => [seq, repeated]), [[1, true], [2, false]]);
  equal((await third).seq, 3);
  equal(client.session.rooms[0].seq, 3);
});

test('a publish that is found in what we missed is not sent again', async () => {
  const { client, link } = await inLobby();
  const result = client.publish('lobby', 'mine');
  const { id } = await link.take({ type: 'publish' });
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 2, [{ ...say('lobby', 1, 'mine', 'me'), id }, say('lobby', 2)])]));
  equal(await result, { room: 'lobby', seq: 1, id, repeated: true });
  await quiet(client, 'resumed me, lobby2');
  equal(next.frames.filter(({ type }) => type === 'publish'), []);
});

test('our own message comes back if it was published with echo, from replay too', async () => {
  const { client, link } = await inLobby();
  client.publish('lobby', 'live', { echo: true });
  const live = await link.take({ type: 'publish' });
  // The answer first: it must not make the message look seen.
  link.send({ type: 'ok', ref: live.ref, room: 'lobby', seq: 1, id: live.id }, { ...say('lobby', 1, 'live', 'me'), id: live.id });
  await quiet(client, 'live');
  client.publish('lobby', 'late', { echo: true });
  const late = await link.take({ type: 'publish' });
  link.send({ type: 'ok', ref: late.ref, room: 'lobby', seq: 2, id: late.id });
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 2, [{ ...say('lobby', 2, 'late', 'me'), id: late.id }])]));
  await quiet(client, 'resumed me, late');
});

test('rate_limited and overloaded are retried in time, up to a bound; other errors reject', async () => {
  const { client, link } = await inLobby({ retriesMax: 2 });
  const fine = client.publish('lobby', 'a');
  const { id } = await link.refuse({ content: 'a' }, 'rate_limited', { retry_after_ms: 10 });
  await link.refuse({ content: 'a', id }, 'overloaded', { retry_after_ms: 10 });
  await link.answer({ content: 'a', id }, { room: 'lobby', seq: 1, id });
  equal((await fine).seq, 1);
  const refused = client.publish('lobby', 'b');
  for (let i = 0; i < 3; i += 1) await link.refuse({ content: 'b' }, 'rate_limited', { retry_after_ms: 1 });
  equal((await rejects(refused, 'rate_limited')).retryAfterMs, 1);
  const wrong = client.publish('nowhere', 'c');
  await link.refuse({ content: 'c' }, 'not_member');
  await rejects(wrong, 'not_member');
});

test('nothing overtakes what was refused for the moment', async () => {
  const { client, link } = await inLobby();
  const all = Promise.all(['a', 'b', 'c'].map((content) => client.publish('lobby', content)));
  for (const content of ['a', 'b', 'c']) await link.refuse({ content }, 'rate_limited', { retry_after_ms: 10 });
  link.send(say('lobby', 1));
  await quiet(client, 'lobby1');
  client.publish('lobby', 'd');
  const order = [];
  for (let seq = 2; seq <= 5; seq += 1) {
    const { content } = await link.answer({ type: 'publish' }, ({ id }) => ({ room: 'lobby', seq, id }));
    order.push(content);
  }
  equal(order, ['a', 'b', 'c', 'd']);
  await all;
});

test('the outbox is bounded, and so is what is in flight', async () => {
  const { client, link } = await inLobby({ outboxMax: 5, inFlightMax: 2 });
  const all = Array.from({ length: 5 }, (_, i) => client.publish('lobby', i));
  await rejects(client.publish('lobby', 'one too many'), 'outbox_full');
  equal(client.pending, 5);
  for (let i = 0; i < 5; i += 1) {
    await until('commands', () => link.frames.length === Math.min(2, 5 - i));
    await link.answer({ content: i }, ({ id }) => ({ room: 'lobby', seq: i + 1, id }));
  }
  equal((await Promise.all(all)).map(({ seq }) => seq), [1, 2, 3, 4, 5]);
});

test('a command that the server would end the connection for is not sent', async () => {
  const { client } = await inLobby();
  await rejects(client.publish('lobby', 'x'.repeat(1000)), 'too_large');
  equal(client.state, 'open');
});

test('a broadcast whose answer is lost is not sent twice', async () => {
  const { client, link } = await inLobby();
  const broadcast = client.broadcast('to all');
  await link.take({ type: 'broadcast' });
  link.destroy();
  await rejects(broadcast, 'answer_lost');
});

test('a join whose answer is lost is answered by resume, or sent again', async () => {
  const { client, link } = await inLobby();
  const [tea, cake] = [client.join('tea'), client.join('cake')];
  await link.take({ room: 'tea' });
  await link.take({ room: 'cake' });
  link.destroy();
  const next = await server.accept();
  const resume = await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, []), inRoom('tea', 5, [], { recovered: false })]));
  equal(resume.rooms, [{ room: 'lobby', epoch: 'e', seq: 0 }]);
  next.send(say('tea', 6));
  equal((await tea).seq, 5);
  await next.answer({ type: 'join', room: 'cake' }, inRoom('cake', 2, [], { recovered: false }));
  equal((await cake).seq, 2);
  await quiet(client, 'resumed me, tea6');
});

test('a room that was left is silent at once, and stays left', async () => {
  const { client, link } = await inLobby();
  const left = client.leave('lobby');
  await link.take({ type: 'leave' });
  link.send(say('lobby', 1));
  link.destroy();
  const next = await server.accept();
  const resume = await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 2, [], { recovered: false })]));
  equal(resume.rooms, []);
  next.send(say('lobby', 3));
  await next.refuse({ type: 'leave' }, 'not_member');
  equal(await left, { room: 'lobby' });
  equal(client.told(), 'resumed me');
});

test('patterns: existing rooms, a later one, one that was made while we were away, and leaving', async () => {
  const { client, link } = await inLobby();
  const matched = [];
  client.on('matched', ({ room }) => matched.push(room));
  const joined = client.join('p.*');
  await link.answer({ type: 'join' }, { room: 'p.*', rooms: [{ room: 'p.a', epoch: 'e', seq: 3, overflow: 'close' }] });
  equal((await joined).rooms, [{ room: 'p.a', epoch: 'e', seq: 3, overflow: 'close' }]);
  link.send({ type: 'matched', pattern: 'p.*', room: 'p.b', epoch: 'e', seq: 0, overflow: 'close' }, say('p.b', 1), say('p.a', 4));
  await quiet(client, 'p.b1, p.a4');
  link.destroy();
  const next = await server.accept();
  const rooms = [inRoom('lobby', 0, []), inRoom('p.a', 4, []), inRoom('p.b', 2, [say('p.b', 2)]), inRoom('p.c', 1, [], { recovered: false })];
  await next.answer({ type: 'resume' }, resumed(rooms, { patterns: ['p.*'] }));
  await next.answer({ type: 'history', room: 'p.c', after: 0 }, { room: 'p.c', epoch: 'e', seq: 1, messages: [say('p.c', 1)] });
  await quiet(client, 'resumed me, p.b2, p.c1');
  equal(matched, ['p.b', 'p.c']);
  const left = client.leave('p.*');
  await next.answer({ type: 'leave', room: 'p.*' }, { room: 'p.*' });
  await left;
  equal(client.rooms, ['lobby']);
});

test('after a lost session a pattern is joined again, and what its rooms missed is fetched', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('p.*');
  await link.answer({ type: 'join' }, { room: 'p.*', rooms: [{ room: 'p.a', epoch: 'e', seq: 3 }] });
  await joined;
  link.destroy();
  const next = await server.accept();
  next.send(welcome('second'));
  await next.refuse({ type: 'resume' }, 'unrecoverable');
  await next.answer({ type: 'join', room: 'lobby' }, inRoom('lobby', 0, []));
  await next.answer({ type: 'join', room: 'p.*' }, { room: 'p.*', rooms: [{ room: 'p.a', epoch: 'e', seq: 5 }] });
  next.send(say('p.a', 6));
  await next.answer({ type: 'history', room: 'p.a', after: 3 }, { room: 'p.a', epoch: 'e', seq: 6, messages: [4, 5, 6].map((seq) => say('p.a', seq)) });
  await quiet(client, 'new second, p.a4, p.a5, p.a6');
});

test('a message to several rooms: publishing one, and missing one', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('tea');
  await link.answer({ type: 'join' }, { room: 'tea', epoch: 'e', seq: 0 });
  await joined;
  const rooms = (lobbySeq, teaSeq) => [{ room: 'lobby', seq: lobbySeq }, { room: 'tea', seq: teaSeq }];
  const result = client.publish(['lobby', 'tea'], 'mine');
  const { id } = await link.answer({ type: 'publish', rooms: ['lobby', 'tea'] }, (frame) => ({ rooms: rooms(1, 1), id: frame.id }));
  equal(await result, { room: 'lobby', seq: 1, rooms: rooms(1, 1), id, repeated: false });
  link.destroy();
  const both = { ...say('lobby', 2, 'both'), rooms: rooms(2, 3) };
  const next = await server.accept();
  const resume = await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 2, [both]), inRoom('tea', 3, [say('tea', 2), both])]));
  equal(resume.rooms.map(({ seq }) => seq), [1, 1]);
  await quiet(client, 'resumed me, tea2, both');
});

test('changes of presence that come together are told one by one, and not those of oneself', async () => {
  const { client, link } = await inLobby();
  const told = [];
  for (const name of ['joined', 'left', 'presence']) client.on(name, (event) => told.push(event));
  const [x, y, me] = [{ client_id: 'x', sender: 'xaver' }, { client_id: 'y' }, { client_id: 'me' }];
  link.send({ type: 'presence', room: 'lobby', joined: [x, me], left: [y] }, { type: 'presence', room: 'elsewhere', joined: [x], left: [] });
  link.send({ type: 'left', room: 'lobby', client_id: 'x' });
  await until('notices', () => told.length === 3);
  equal(told, [{ type: 'joined', room: 'lobby', ...x }, { type: 'left', room: 'lobby', ...y }, { type: 'left', room: 'lobby', client_id: 'x' }]);
  const asked = client.presence('lobby', { after: 'x', limit: 5 });
  await link.answer({ type: 'presence', room: 'lobby', after: 'x', limit: 5 }, { room: 'lobby', members: [], count: 7 });
  equal(await asked, { room: 'lobby', members: [], count: 7 });
});

test('presence is told, asked again after a gap, and told again after a resume', async () => {
  const { client, link } = await inLobby();
  const told = [];
  for (const name of ['joined', 'left', 'presence']) client.on(name, (event) => told.push([name, event.client_id ?? event.count]));
  const asked = client.presence('lobby', { watch: true });
  await link.answer({ type: 'presence', room: 'lobby', watch: true }, { room: 'lobby', members: [{ client_id: 'me' }], count: 1 });
  equal(await asked, { room: 'lobby', members: [{ client_id: 'me' }], count: 1 });
  link.send({ type: 'joined', room: 'lobby', client_id: 'x' }, { type: 'left', room: 'lobby', client_id: 'x' }, { type: 'gap', room: 'lobby', presence: true });
  await link.answer({ type: 'presence', room: 'lobby' }, { room: 'lobby', members: [{ client_id: 'me' }], count: 2 });
  await until('presence', () => told.length === 3);
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [], { members: [{ client_id: 'me' }], count: 3 })]));
  await until('presence', () => told.length === 4);
  equal(told, [['joined', 'x'], ['left', 'x'], ['presence', 2], ['presence', 3]]);
  equal(client.session.rooms[0].presence, true);
});

test('direct messages that are no longer kept are told as lost', async () => {
  const { client, link } = await inLobby();
  link.send({ type: 'direct', seq: 1, content: 'a' });
  await quiet(client, 'direct a');
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [])], { direct: { seq: 4, recovered: false } }));
  next.send({ type: 'direct', seq: 4, content: 'd' });
  await quiet(client, 'resumed me, lost direct 2-4, direct d');
});

test('a saved session goes on in another client', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('tea', { presence: true });
  await link.answer({ type: 'join' }, { room: 'tea', epoch: 'e', seq: 5, members: [], count: 1 });
  await joined;
  const session = JSON.parse(JSON.stringify(client.session));
  const other = connect({ session });
  const next = await server.accept();
  equal(other.clientId, 'me');
  const resume = await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 1, [say('lobby', 1)]), inRoom('tea', 5, [])]));
  equal(resume.rooms, [{ room: 'lobby', epoch: 'e', seq: 0 }, { room: 'tea', epoch: 'e', seq: 5 }]);
  await quiet(other, 'resumed me, lobby1');
  // The server tells the first connection that the session has moved.
  link.close(4010, 'resumed elsewhere');
  const { end } = client.states.find(({ state }) => state === 'closed') ?? (await client.closed, client.states.at(-1));
  equal([end.code, end.error.code], [4010, 'stopped']);
  equal(other.state, 'open');
});

test('close codes: what stops and what comes back', async () => {
  for (const code of [1000, 1009, 4001, 4010]) {
    const client = connect();
    const link = await server.accept();
    link.send(welcome('me'));
    await client.ready;
    const waiting = client.publish('lobby', 'x');
    link.close(code, 'why');
    const end = await within('end', client.closed);
    equal([end.code, end.reason, end.error.code], [code, 'why', 'stopped']);
    await rejects(waiting, 'stopped');
    await rejects(client.publish('lobby', 'y'), 'closed');
  }
  for (const code of [1001, 1011, 1012, 4101, 4201]) {
    const client = connect();
    const link = await server.accept();
    link.send(welcome('me'));
    await client.ready;
    link.close(code);
    await server.accept();
    equal(client.states.filter(({ state }) => state === 'waiting').map(({ end }) => end.code), [code]);
    await client.close();
  }
});

test('closing.reconnect_after_ms is the next delay', async () => {
  const { client, link } = await inLobby({ random: () => 1 });
  link.send({ type: 'closing', reason: 'drain', reconnect_after_ms: 7 });
  link.close(1001);
  await server.accept();
  equal(client.states.find(({ state }) => state === 'waiting').delayMs, 7);
});

test('a 503 is waited out as it asks, and a 403 ends it', async () => {
  server.refuse(503, { 'retry-after': '0' });
  server.refuse(503, { 'retry-after': '1' });
  const client = connect({ random: () => 0.5 });
  const link = await server.accept();
  link.send(welcome('me'));
  await client.ready;
  const delays = client.states.filter(({ state }) => state === 'waiting').map(({ delayMs, end }) => [delayMs, end.status]);
  equal(delays, [[125, 503], [1250, 503]]);
  server.refuse(403);
  const refused = connect();
  await rejects(refused.ready, 'stopped');
  equal((await refused.closed).status, 403);
});

test('408, 425 and 429 pass, and are waited out as they ask', async () => {
  server.refuse(408);
  server.refuse(425);
  server.refuse(429, { 'retry-after': '1' });
  const client = connect({ random: () => 0, backoffBaseMs: 1 });
  const link = await server.accept();
  link.send(welcome('me'));
  await client.ready;
  const delays = client.states.filter(({ state }) => state === 'waiting').map(({ delayMs, end }) => [delayMs, end.status]);
  equal(delays, [[0, 408], [0, 425], [1000, 429]]);
});

test('attemptsMax ends it, and reconnect: false does at once', async () => {
  for (let i = 0; i < 3; i += 1) server.refuse(500);
  const client = connect({ attemptsMax: 2, backoffBaseMs: 1 });
  equal((await within('end', client.closed)).status, 500);
  equal(client.states.filter(({ state }) => state === 'connecting').length, 3);
  const once = connect({ reconnect: false });
  (await server.accept()).destroy();
  await within('end', once.closed);
});

test('a silent server is given up, one that answers pings is not', async () => {
  const { client, link } = await inLobby({ pingMsMax: 20, silenceMs: 60 });
  const began = performance.now();
  await until('some pings', () => performance.now() - began > 200);
  equal(client.state, 'open');
  link.answersPings = false;
  const next = await server.accept();
  equal(client.states.find(({ state }) => state === 'waiting').end.reason, 'the server went silent');
  await next.take({ type: 'resume' });
});

test('a server that never welcomes is given up', async () => {
  const client = connect({ openTimeoutMs: 50 });
  await server.accept();
  await server.accept();
  equal(client.states.find(({ state }) => state === 'waiting').end.reason, 'no session within 50 ms');
});

test('what is no JSON object ends the connection, not the client', async () => {
  for (const bytes of [encodeFrame(OPCODE.text, Buffer.from('[]')), encodeFrame(OPCODE.text, Buffer.from('{')), encodeFrame(OPCODE.binary, Buffer.from('{}')), Buffer.from([0xff, 0xff])]) {
    const { client, link } = await inLobby();
    link.bytes(bytes);
    const next = await server.accept();
    await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [])]));
    await until('state', () => client.state === 'open');
    await client.close();
  }
});

test('a message over messageBytesMax stops the client, because it would come again', async () => {
  const { client, link } = await inLobby({ messageBytesMax: 2000 });
  link.send(say('lobby', 1, 'x'.repeat(2000)));
  equal((await within('end', client.closed)).code, 1009);
  await until('close frame', () => link.closeCode === 1009);
});

test('close says 1000, and an AbortSignal does the same', async () => {
  const abort = new AbortController();
  for (const [options, close] of [[{}, (client) => client.close()], [{ signal: abort.signal }, () => abort.abort()]]) {
    const { client, link } = await inLobby(options);
    const waiting = client.history('lobby');
    close(client);
    await within('end', client.closed);
    await until('close frame', () => link.closeCode === 1000);
    await rejects(waiting, 'closed');
    equal((await client.closed).error, null);
  }
  const late = connect({ signal: abort.signal });
  equal(late.state, 'closed');
  const waiting = connect({ random: () => 1, backoffBaseMs: 20_000 });
  (await server.accept()).destroy();
  await until('state', () => waiting.state === 'waiting');
  await within('end', waiting.close());
});

test('close ends in bounded time though the server does not answer', async () => {
  const { client, link } = await inLobby({ closeTimeoutMs: 50 });
  link.end = () => {};
  link.bytes = () => {};
  await within('end', client.close(), 5000);
});

test('iteration: what comes, in order, until the end', async () => {
  const { client, link } = await inLobby();
  const read = (async () => {
    const seen = [];
    for await (const { seq } of client) {
      seen.push(seq);
      if (seq === 3) client.close();
    }
    return seen;
  })();
  link.send(...[1, 2, 3].map((seq) => say('lobby', seq)));
  equal(await within('end of the loop', read), [1, 2, 3]);
  for await (const _ of client) assert.fail('a closed client yields nothing');
  const { client: stopped, link: other } = await inLobby();
  const failing = (async () => {
    for await (const _ of stopped);
  })();
  other.close(4009, 'kicked');
  await rejects(failing, 'stopped');
});

test('a reader that falls behind holds the client, and loses nothing', async () => {
  const { client, link } = await inLobby({ queueMax: 4, holdMax: 3 });
  const reader = client[Symbol.asyncIterator]();
  link.send(...Array.from({ length: 20 }, (_, i) => say('lobby', i + 1)));
  await until('full queue', () => client.log.length === 4);
  const seen = [];
  const fetching = link.answer({ type: 'history' }, ({ after }) => ({ ...lobby(20), messages: Array.from({ length: 20 - after }, (_, i) => say('lobby', after + i + 1)) }));
  while (seen.length < 20) seen.push((await within('message', reader.next())).value.seq);
  await fetching;
  equal(seen, Array.from({ length: 20 }, (_, i) => i + 1));
  await reader.return();
  link.send(say('lobby', 21));
  await until('message', () => client.log.includes('lobby21'));
});

test('a listener may change everything, and one that throws stops nobody', async (t) => {
  const { client, link } = await inLobby();
  const faults = [];
  t.mock.method(globalThis, 'queueMicrotask', (run) => {
    try {
      run();
    } catch (error) {
      faults.push(error.message);
    }
  });
  client.on('message', () => {
    throw new Error('my own fault');
  });
  client.on('message', ({ seq }) => seq === 2 && client.leave('lobby'));
  link.send(...[1, 2, 3].map((seq) => say('lobby', seq)));
  await link.answer({ type: 'leave' }, { room: 'lobby' });
  equal(client.told(), 'lobby1, lobby2');
  equal(faults, ['my own fault', 'my own fault']);
});

test('a client that is made and never connected leaves nothing at a signal, and obeys it then', async () => {
  const abort = new AbortController();
  const client = new Client('ws://127.0.0.1:1/ws', { connect: false, signal: abort.signal });
  equal(getEventListeners(abort.signal, 'abort').length, 0);
  abort.abort();
  equal(client.state, 'idle');
  await rejects(client.connect(), 'closed');
  equal([client.state, (await client.closed).code], ['closed', 1000]);
});

test('a client that has ended leaves nothing at a signal', async () => {
  const { signal } = new AbortController();
  const { client } = await inLobby({ signal });
  client.on('message', () => {}, { signal });
  client.once('direct', () => {}, { signal });
  equal(getEventListeners(signal, 'abort').length, 3);
  await client.close();
  equal(getEventListeners(signal, 'abort').length, 0);
  client.on('message', () => {}, { signal });
  equal(getEventListeners(signal, 'abort').length, 0);
});

test('a listener may close the client at any of its states', async () => {
  for (const state of ['connecting', 'open', 'waiting', 'closing', 'closed']) {
    const before = server.accepted;
    const client = connect({ random: () => 1 });
    client.on('state', (event) => event.state === state && client.close());
    if (state !== 'connecting') {
      const link = await server.accept();
      link.send(welcome('me', lobby(0)));
      if (state === 'waiting') link.destroy();
      if (state === 'closing' || state === 'closed') await client.ready.then(() => client.close());
    }
    equal((await within(`end at ${state}`, client.closed)).error, null);
    equal(server.accepted, state === 'connecting' ? before : before + 1);
  }
});

test('after the end each call breaks itself alone', async () => {
  const { client } = await inLobby();
  const end = await client.close();
  const calls = [client.join('tea'), client.leave('lobby'), client.publish('lobby', 'x'), client.direct('you', 'x')];
  calls.push(client.broadcast('x'), client.history('lobby'), client.presence('lobby'));
  for (const call of calls) await rejects(call, 'closed');
  client.on('message', () => {})();
  client.off('message', () => {});
  equal(await client.close(), end);
  for await (const _ of client) assert.fail('a closed client yields nothing');
  equal([client.state, client.pending, client.rooms], ['closed', 0, ['lobby']]);
});

test('pings of the protocol are answered with what they bear', async () => {
  const { link } = await inLobby();
  link.bytes(encodeFrame(OPCODE.ping, Buffer.from('abc')));
  equal((await link.take({ type: 'control pong' })).payload, 'abc');
});

test('another WebSocket can be given', async () => {
  const made = [];
  class Given {
    constructor(url, protocols) {
      made.push([url, protocols]);
      this.sent = [];
      queueMicrotask(() => {
        this.onopen();
        this.onmessage({ data: JSON.stringify(welcome('given')) });
      });
    }
    send(text) {
      this.sent.push(text);
    }
    close(code) {
      this.onclose({ code, reason: '' });
    }
  }
  const client = connect({ WebSocket: Given });
  await client.ready;
  equal(client.clientId, 'given');
  equal(made, [[server.url, ['rusty-socks.v1']]]);
  await client.close();
});

test('a frame that makes no sense ends the connection, not the client', async () => {
  const senseless = [
    say('lobby', 'x'),
    say('lobby', undefined),
    say('lobby', 2 ** 60),
    { ...say('lobby', 1), rooms: 5 },
    { type: 'gap', room: 'lobby', from: 0, to: 2 ** 63 },
    { type: 'gap', room: 'lobby', from: 1 },
    { type: 'epoch', room: 'lobby', epoch: 'f' },
    { type: 'epoch', room: 'lobby', seq: 1 },
    { type: 'matched', pattern: 'p.*', room: 'p.a', epoch: 'e' },
    { type: 'direct', content: 'psst' },
  ];
  for (const frame of senseless) {
    const { client, link } = await inLobby();
    link.send(frame);
    const next = await server.accept();
    const { end } = client.states.find(({ state }) => state === 'waiting');
    equal(end.reason.startsWith('the server sent a frame that makes no sense'), true, end.reason);
    await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [])]));
    next.send(say('lobby', 1));
    await until('message', () => client.told().endsWith('lobby1'));
    await client.close();
  }
});

test('a welcome or a resume without the essential is answered by going', async () => {
  const client = connect();
  for (const wrong of [{ client_id: undefined }, { room: 'lobby', epoch: 'e', seq: -0.5 }]) {
    (await server.accept()).send(welcome('me', wrong));
  }
  const link = await server.accept();
  await link.answer({ type: 'resume' }, resumed(undefined));
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([]));
  await client.ready;
});

test('an answer that makes no sense is told to whoever asked', async () => {
  const { client, link } = await inLobby();
  const joined = client.join('p.*');
  await link.answer({ type: 'join' }, { room: 'p.*' });
  await rejects(joined, 'misbehaved');
  // A page of nothing at all: what it was to bring is lost.
  link.send({ type: 'gap', room: 'lobby', from: 1, to: 2 }, say('lobby', 3));
  await link.answer({ type: 'history' }, { epoch: 'e', seq: 3, messages: [null] });
  await quiet(client, 'lost lobby 1-2, lobby3');
  equal(server.accepted, 1);
});

test('a server that lists rooms without end is left for good', async () => {
  const { client, link } = await inLobby({ roomsMax: 3 });
  const matched = (room) => ({ type: 'matched', pattern: 'p.*', room, epoch: 'e', seq: 0 });
  link.send(...['p.a', 'p.b', 'p.b'].map(matched));
  await until('rooms', () => client.rooms.length === 3);
  link.send(...['p.c', 'p.d', 'p.e'].map(matched));
  const { error } = await within('end', client.closed);
  equal([error.code, error.message], ['misbehaved', 'the server put this client in more than 3 rooms']);
  equal(client.rooms.length, 3);
  await until('close frame', () => link.closeCode === 1000);
  equal(server.accepted, 1);
});

test('who is in a room is asked once at a time', async () => {
  const { client, link } = await inLobby();
  const gap = { type: 'gap', room: 'lobby', presence: true };
  link.send(gap, gap, { ...gap, room: 'nowhere' }, gap);
  await link.answer({ type: 'presence', room: 'lobby' }, { members: [], count: 0 });
  equal(link.frames, []);
  link.send(gap);
  await link.take({ type: 'presence', room: 'lobby' });
  link.destroy();
  const next = await server.accept();
  await next.answer({ type: 'resume' }, resumed([inRoom('lobby', 0, [])]));
  await until('state', () => client.state === 'open');
  next.send(gap);
  await next.take({ type: 'presence', room: 'lobby' });
});

test('no number of a server makes a timer that is endless or beyond what timers hold', async () => {
  const times = [];
  // Of the refusal's wait alone there is nothing to see but its end. Any other timer that rang early would be a
  // connection given up on a busy machine.
  const clock = {
    now: () => performance.now(),
    setTimeout: (run, ms) => times.push(ms) && setTimeout(run, ms === 600_000 ? 20 : ms),
    clearTimeout,
  };
  for (const pingS of [1e300, 1e9, 1e-9, -1, 0, null, 'often', [5]]) {
    const client = connect({ clock, openTimeoutMs: 60_000 });
    const link = await server.accept();
    times.length = 0;
    link.send(welcome('me', { ...lobby(0), ping_s: pingS }));
    await client.ready;
    const refused = client.publish('lobby', 'x');
    await link.refuse({ type: 'publish' }, 'overloaded', { retry_after_ms: 1e300 });
    await link.answer({ type: 'publish' }, { room: 'lobby', seq: 1 });
    await refused;
    equal(times.includes(600_000), true, `${times}`);
    equal(times.every((ms) => ms >= 500 && ms < 2 ** 31), true, `${pingS}: ${times}`);
    await client.close();
  }
});
