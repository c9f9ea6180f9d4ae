/** What is wrong with a call fails that call, at once, and nothing else. */
import { afterEach, beforeEach, test } from 'node:test';

import { Client } from '../index.js';
import { equal, ok, rejects } from './environment.mjs';
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

function connect(options = {}) {
  const client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0, ...options });
  clients.push(client);
  return client;
}

const isQuiet = (client) => () => client.state === 'open' && client.pending === 0 && server.link.isIdle;

async function opened(options) {
  const client = connect(options);
  await run(server, clock, isQuiet(client));
  return client;
}

const circle = {};
circle.again = circle;
const throwing = {
  toJSON() {
    throw new Error('not me');
  },
};

// The call, and what its error must name.
const WRONG = [
  ['a number that JSON has not', (client) => client.publish('lobby', 10n), /BigInt/],
  ['it in an object', (client) => client.publish('lobby', { n: 10n }), /BigInt/],
  ['a circle', (client) => client.publish('lobby', circle), /circular/],
  ['a toJSON that throws', (client) => client.publish('lobby', throwing), /not me/],
  ['a toJSON that throws nothing', (client) => client.publish('lobby', { toJSON() { throw undefined; } }), /JSON: undefined/],
  ['a toJSON that gives nothing', (client) => client.publish('lobby', { toJSON() {} }), /an object/],
  ['a getter that throws', (client) => client.publish('lobby', { get n() { throw new Error('not this'); } }), /not this/],
  ['undefined', (client) => client.publish('lobby', undefined), /undefined/],
  ['no content', (client) => client.publish('lobby'), /undefined/],
  ['a function', (client) => client.publish('lobby', () => {}), /a function/],
  ['a symbol', (client) => client.publish('lobby', Symbol('s')), /a symbol/],
  ['direct content', (client) => client.direct('somebody', 10n), /BigInt/],
  ['no direct content', (client) => client.direct('somebody'), /undefined/],
  ['broadcast content', (client) => client.broadcast(circle), /circular/],
  ['several rooms and a circle', (client) => client.publish(['lobby'], circle), /circular/],
  ['a room that is a number', (client) => client.publish(7, 'x'), /room must be a string, not a number/],
  ['no room', (client) => client.publish(undefined, 'x'), /room must be a string, not undefined/],
  ['a room that is half a pair', (client) => client.publish('a\ud800', 'x'), /room .* surrogate/],
  ['no rooms', (client) => client.publish([], 'x'), /at least one/],
  ['rooms that are no names', (client) => client.publish(['lobby', null], 'x'), /each of rooms must be a string, not null/],
  ['a hole in the rooms', (client) => client.publish(['lobby', , 'b'], 'x'), /each of rooms/],
  ['rooms with half a pair', (client) => client.publish(['lobby', '\udc00b'], 'x'), /surrogate/],
  ['an id that is no UUID', (client) => client.publish('lobby', 'x', { id: 'mine' }), /id must be a UUID.*"mine"/],
  ['the nil id', (client) => client.publish('lobby', 'x', { id: '00000000-0000-0000-0000-000000000000' }), /id/],
  ['an id that is a number', (client) => client.direct('somebody', 'x', { id: 5 }), /id .* a number/],
  ['a sender that is an object', (client) => client.publish('lobby', 'x', { sender: {} }), /sender .* an object/],
  ['a sender that is half a pair', (client) => client.broadcast('x', { sender: '\ud800' }), /sender .* surrogate/],
  ['a timestamp that is none', (client) => client.publish('lobby', 'x', { timestamp: 'yesterday' }), /RFC 3339/],
  ['a Date that is none', (client) => client.publish('lobby', 'x', { timestamp: new Date(NaN) }), /RFC 3339/],
  ['an echo that is a word', (client) => client.publish('lobby', 'x', { echo: 'yes' }), /echo must be true or false, not a string/],
  ['an option that throws', (client) => client.publish('lobby', 'x', { get id() { throw Object.assign(new Error('no'), { code: 'bad_request' }); } }), /no/],
  ['options that are none', (client) => client.publish('lobby', 'x', 'echo'), /options must be an object, not a string/],
  ['a receiver that is none', (client) => client.direct(null, 'x'), /to must be a string, not null/],
  ['join without a room', (client) => client.join(), /room must be a string/],
  ['join of an object', (client) => client.join({ room: 'tea' }), /room must be a string, not an object/],
  ['join since an epoch alone', (client) => client.join('tea', { since: { epoch: 'e' } }), /since.seq .* undefined/],
  ['join since a big number', (client) => client.join('tea', { since: { epoch: 'e', seq: 5n } }), /since.seq .* a bigint/],
  ['join since half a number', (client) => client.join('tea', { since: { epoch: 'e', seq: 1.5 } }), /since.seq .* 1.5/],
  ['join since a number', (client) => client.join('tea', { since: 5 }), /since must be \{epoch, seq\}/],
  ['join with presence of a kind', (client) => client.join('tea', { presence: 1 }), /presence must be/],
  ['join of a pattern since', (client) => client.join('p.*', { since: { epoch: 'e', seq: 0 } }), /pattern/],
  ['leave of nothing', (client) => client.leave(), /room must be a string/],
  ['leave of a symbol', (client) => client.leave(Symbol('tea')), /a symbol/],
  ['history of nothing', (client) => client.history(), /room/],
  ['history before and after', (client) => client.history('lobby', { before: 1, after: 2 }), /not both/],
  ['history after infinity', (client) => client.history('lobby', { after: Infinity }), /after .* Infinity/],
  ['history of less than nothing', (client) => client.history('lobby', { limit: -1 }), /limit .* -1/],
  ['presence of a list', (client) => client.presence(['lobby']), /an array/],
  ['a watch that is a word', (client) => client.presence('lobby', { watch: 'on' }), /watch must be/],
];

test('a wrong call rejects and says why, before there is a connection and after', async () => {
  for (const make of [connect, opened]) {
    const client = await make();
    const before = client.rooms;
    for (const [what, call, words] of WRONG) {
      const error = await rejects(call(client), 'bad_request');
      ok(words.test(error.message), `${what}: ${error.message}`);
      equal(client.pending, 0, what);
    }
    equal(client.rooms, before);
    const fine = client.publish('lobby', 'fine');
    await run(server, clock, isQuiet(client));
    equal((await fine).room, 'lobby');
    equal(server.link.taken.map(({ type }) => type), ['publish']);
    client.close();
    server.link.end(1000);
  }
});

test('what is sent is what was given, whatever becomes of it later', async () => {
  const client = connect();
  const [content, rooms, options, since] = [{ n: 1 }, ['lobby'], { sender: 'anna' }, { epoch: 'e', seq: 0 }];
  const calls = [client.publish(rooms, content, options), client.join('tea', { since })];
  content.n = 2;
  rooms.push('nowhere');
  options.sender = 5;
  since.seq = 10n;
  calls.push(client.publish('lobby', content));
  content.n = 10n;
  await run(server, clock, isQuiet(client));
  await Promise.all(calls);
  const [first, join, second] = server.link.taken;
  equal([first.content, first.rooms, first.sender, second.content, join.since], [{ n: 1 }, ['lobby'], 'anna', { n: 2 }, { epoch: 'e', seq: 0 }]);
});

test('JSON is told as JSON has it, and null is an option that was not given', async () => {
  const client = await opened();
  const time = new Date(0);
  const none = { id: null, sender: null, timestamp: null, echo: null };
  const odd = { list: [undefined, NaN], text: 'a\ud800"\u2028', date: time, none: undefined };
  const calls = [
    client.publish('lobby', odd, { id: '67E55044-10B1-426F-9247-BB680E5FE0C8', timestamp: time }),
    client.publish('lobby', null, none),
    client.join('tea', { since: null, presence: null }),
    client.history('lobby', null),
  ];
  await run(server, clock, isQuiet(client));
  const [{ id }] = await Promise.all(calls);
  equal(id, '67e55044-10b1-426f-9247-bb680e5fe0c8');
  const [first, second, join] = server.link.taken;
  equal([first.content, first.timestamp], [JSON.parse(JSON.stringify(odd)), '1970-01-01T00:00:00.000Z']);
  equal([second.content, 'sender' in second, 'timestamp' in second, 'since' in join], [null, false, false, false]);
});

test('what content calls while it is made text is no harm', async () => {
  const client = await opened();
  const inner = [];
  const calling = {
    toJSON() {
      inner.push(client.publish('lobby', 'inner'));
      return 'outer';
    },
  };
  const closing = { toJSON: () => void client.close() ?? 'late' };
  const outer = client.publish('lobby', calling);
  await run(server, clock, isQuiet(client));
  await Promise.all([outer, ...inner]);
  equal(server.link.taken.map(({ content }) => content), ['inner', 'outer']);
  await rejects(client.publish('lobby', closing), 'closed');
});

test('a closed client changes no more, and each call says so', async () => {
  const client = await opened();
  client.close();
  const calls = () => [client.join('tea'), client.leave('lobby'), client.publish('lobby', 1), client.history('lobby')];
  for (const call of calls()) await rejects(call, 'closed');
  server.link.end(1000);
  for (const call of calls()) await rejects(call, 'closed');
  // Where it was is what a later client goes on with.
  equal([client.rooms, client.session.rooms.length], [['lobby'], 1]);
  equal((await client.close()).error, null);
});

test('a full outbox refuses a leave, and so nothing is left', async () => {
  const client = connect({ outboxMax: 1 });
  await run(server, clock, () => client.state === 'open');
  const waits = client.publish('lobby', 'x');
  await rejects(client.leave('lobby'), 'outbox_full');
  await rejects(client.publish('lobby', 'y', { echo: true }), 'outbox_full');
  equal(client.rooms, ['lobby']);
  await run(server, clock, isQuiet(client));
  await waits;
});

test('the bytes that wait are bounded, and freed with the answer', async () => {
  const client = await opened({ outboxBytesMax: 3000 });
  for (let round = 0; round < 3; round += 1) {
    const waits = client.publish('lobby', 'x'.repeat(2000));
    await rejects(client.publish('lobby', 'y'.repeat(1000)), 'outbox_full');
    await run(server, clock, isQuiet(client));
    await waits;
  }
});

test('a mistake that is made often does not end the connection', async () => {
  const client = await opened();
  const calls = Array.from({ length: 100 }, (_, i) => client.publish(i % 40 === 39 ? 'lobby' : 'nowhere', i));
  const codes = calls.map((call) => call.then(() => 'ok', ({ code }) => code));
  await run(server, clock, isQuiet(client));
  equal((await Promise.all(codes)).filter((code) => code === 'ok').length, 2);
  equal((await Promise.all(codes)).filter((code) => code === 'not_member').length, 98);
  equal(client.state, 'open');
});

test('a socket that does not send ends the connection, and no command', async () => {
  const client = await opened();
  const reasons = [];
  client.on('state', ({ end }) => end && reasons.push(end.reason));
  server.breaks = true;
  const waits = client.publish('lobby', 'x');
  server.breaks = false;
  equal(reasons, ['the socket does not send: broken']);
  await run(server, clock, isQuiet(client));
  equal((await waits).seq, 1);
});

test('joins and leaves of one name wait for each other, and others do not', async () => {
  const client = await opened();
  const calls = [client.join('tea'), client.leave('tea'), client.join('tea'), client.join('cake')];
  equal(server.link.up.map(({ type, room }) => `${type} ${room}`), ['join tea']);
  await run(server, clock, isQuiet(client));
  await Promise.all(calls);
  equal(client.rooms, ['lobby', 'tea', 'cake']);
  const others = [client.join('milk'), client.publish('lobby', 1), client.leave('cake')];
  equal(server.link.up.length, 3);
  await run(server, clock, isQuiet(client));
  await Promise.all(others);
});

test('what follows a join that is refused for the moment comes after it again', async () => {
  const client = await opened();
  let refusals = 1;
  server.refuses = ({ type }) => (type === 'join' && refusals-- > 0 ? { code: 'overloaded', retry_after_ms: 5 } : undefined);
  const calls = [client.join('tea'), client.publish('tea', 'first'), client.history('tea')];
  await run(server, clock, isQuiet(client));
  equal((await Promise.all(calls))[1].room, 'tea');
  server.refuses = () => undefined;
  const wrong = rejects(client.publish('nowhere', 'x'), 'not_member');
  await run(server, clock, isQuiet(client));
  await wrong;
});

test('a saved session that is none, and numbers that are none, are told when they are given', () => {
  const tries = [
    [{ session: 'token' }, /option session/],
    [{ session: { token: 5 } }, /option session/],
    [{ session: { token: 't', clientId: 'c', direct: 0, rooms: [{ room: 5, epoch: 'e', seq: 0 }] } }, /option session/],
    [{ session: { token: 't', clientId: 'c', direct: 0, rooms: [], patterns: [null] } }, /option session/],
    [{ queueMax: 0 }, /queueMax must be a number from 1 up, not 0/],
    [{ inFlightMax: NaN }, /inFlightMax .* NaN/],
    [{ backoffBaseMs: '20' }, /backoffBaseMs/],
    [{ holdMax: -1 }, /holdMax must be a number from 0 up, not -1/],
  ];
  for (const [options, words] of tries) {
    let message = 'nothing';
    try {
      connect(options);
    } catch (error) {
      ({ message } = error);
    }
    ok(words.test(message), `${JSON.stringify(options)}: ${message}`);
  }
});
