/** What is left stays left, whatever is on its way: calls, answers and cuts in every order. */
import { test } from 'node:test';

import { Client } from '../index.js';
import { equal, generator, ok } from './environment.mjs';
import { ModelClock, ModelServer, run } from './model.mjs';

const ROUNDS = Number(process.env.ROUNDS ?? 400);
const ROOMS = ['lobby', 'tea', 'p.a', 'p.b', 'p.q.x', 'p.q.y'];
const PATTERNS = ['p.*', 'p.q.*'];
const NAMES = [...ROOMS, ...PATTERNS];

const turn = () => new Promise((resolve) => setImmediate(resolve));
const matches = (pattern, room) => room.startsWith(pattern.slice(0, -1));

test('random calls, answers and cuts', { timeout: 300_000 }, async (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  t.diagnostic(`SEED=${seed}`);
  for (let round = 0; round < ROUNDS; round += 1) {
    try {
      await play(seed + round);
    } catch (error) {
      error.message = `SEED=${seed + round} ROUNDS=1: ${error.message}`;
      throw error;
    }
  }
});

/** A client that is open, in `lobby` and in these, with what it is told of rooms. */
async function inRooms(rooms) {
  const [server, clock, told] = [new ModelServer(), new ModelClock(), []];
  const client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0 });
  for (const name of ['message', 'matched', 'dropped']) client.on(name, ({ room, seq }) => told.push(`${name} ${room} ${seq}`));
  client.on('lost', ({ room, from, to }) => told.push(`lost ${room} ${from}-${to}`));
  const settle = () => run(server, clock, () => client.state === 'open' && client.pending === 0 && server.link.isIdle);
  const joined = rooms.map((room) => client.join(room));
  await settle();
  await Promise.all(joined);
  const end = () => {
    client.close();
    server.link.end(1000);
  };
  return { client, server, clock, told, settle, end };
}

test('a room that was left by name does not come back with its pattern when the session was lost', async () => {
  const { client, server, told, settle, end } = await inRooms(['p.*']);
  server.makeRoom('p.a');
  server.makeRoom('p.b');
  await settle();
  const left = client.leave('p.a');
  await settle();
  await left;
  told.length = 0;
  server.link.end(1006);
  server.expire();
  server.say(['p.a', 'p.b']);
  server.say(['p.a']);
  await settle();
  equal([client.rooms, told], [['lobby', 'p.b'], ['message p.a 1']], 'what is told');
  equal([...server.session.seats.keys()], ['lobby', 'p.b']);
  // In a client that goes on with what this one has saved neither.
  const { declined } = client.session;
  equal(declined, ['p.a']);
  const again = client.join('p.a');
  await settle();
  await again;
  equal([client.rooms, client.session.declined], [['lobby', 'p.b', 'p.a'], undefined]);
  end();
});

for (const isSaved of [false, true]) {
  test(`a ${isSaved ? 'saved' : 'lost'} session comes back room by room, and no message is passed over`, async () => {
    const { client, server, clock, told, settle, end } = await inRooms(['tea', 'milk']);
    const { session } = client;
    server.link.end(1006);
    server.expire();
    server.say(['milk']);
    if (isSaved) client.close();
    const next = isSaved ? new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, session }) : client;
    if (isSaved) next.on('message', ({ room, seq }) => told.push(`message ${room} ${seq}`));
    const hasTaken = (type, name) => server.link.taken.some((command) => command.type === type && command.room === name);
    await run(server, clock, () => server.link.up.some(({ type }) => type === 'join'));
    while (!hasTaken('join', 'tea')) server.link.stepUp();
    ok(!hasTaken('join', 'milk'), 'milk is still to be joined');
    server.say(['tea', 'milk']);
    for (let frame = 0; frame < 9; frame += 1) server.link.stepDown();
    equal(told, []);
    await (isSaved ? run(server, clock, () => next.state === 'open' && server.link.isIdle) : settle());
    equal(told, ['message milk 1', 'message tea 1']);
    equal(next.session.rooms.map(({ room, seq }) => `${room} ${seq}`), ['lobby 0', 'tea 1', 'milk 2']);
    if (isSaved) next.close();
    if (isSaved) server.link.end(1000);
    else end();
  });
}

test('a room that is left while it is taken up again is not told as dropped', async () => {
  const { client, server, clock, told, settle, end } = await inRooms(['tea']);
  server.link.end(1006);
  server.expire();
  server.refuses = ({ type, room }) => (type === 'join' && room === 'tea' ? { code: 'limit_exceeded' } : undefined);
  await run(server, clock, () => server.link.up.some(({ type, room }) => type === 'join' && room === 'tea'));
  const left = client.leave('tea');
  await settle();
  await left;
  equal([client.rooms, told], [['lobby'], []]);
  end();
});

test('a leave is tried until it is done', async () => {
  const { client, server, settle, end } = await inRooms(['tea']);
  let refusals = 30;
  server.refuses = ({ type }) => (type === 'leave' && refusals-- > 0 ? { code: 'overloaded', retry_after_ms: 1 } : undefined);
  const left = client.leave('tea');
  await settle();
  equal([await left, [...server.session.seats.keys()]], [{ room: 'tea' }, ['lobby']]);
  end();
});

test('a page of history that was asked for before a leave fills no gap after it', async () => {
  const { client, server, clock, told, end } = await inRooms(['tea']);
  for (let i = 0; i < 4; i += 1) server.makeRoom('tea').log.push({ type: 'message', room: 'tea', seq: i + 1, id: `t${i}`, content: 'x', client_id: 'other' });
  server.link.down.push({ type: 'gap', room: 'lobby', from: 1, to: 1 }, { type: 'gap', room: 'tea', from: 1, to: 2 });
  server.link.stepDown();
  server.link.stepDown();
  const calls = [client.leave('tea'), client.join('tea')];
  let refusals = 1;
  server.refuses = ({ type, room }) =>
    type === 'history' && room === 'tea' && refusals-- > 0 ? { code: 'overloaded', retry_after_ms: 50 } : undefined;
  // The page of lobby and the leave, then what these let go.
  for (let i = 0; i < 2; i += 1) server.link.stepUp();
  for (let i = 0; i < 2; i += 1) server.link.stepDown();
  while (server.link.up.length > 0) server.link.stepUp();
  for (let i = 0; i < 2; i += 1) server.makeRoom('tea').log.push({ type: 'message', room: 'tea', seq: i + 5, id: `u${i}`, content: 'x', client_id: 'other' });
  server.link.down.push({ type: 'gap', room: 'tea', from: 5, to: 6 });
  while (server.link.down.length > 0) server.link.stepDown();
  await run(server, clock, () => told.length === 3);
  await Promise.all(calls);
  equal(told, ['lost lobby 1-1', 'message tea 5', 'message tea 6']);
  end();
});

async function play(seed) {
  const random = generator(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const server = new ModelServer();
  const clock = new ModelClock();
  const harshness = random();
  server.refuses = ({ type }) =>
    !['resume', 'ping'].includes(type) && random() < harshness * 0.4
      ? { code: pick(['rate_limited', 'overloaded']), retry_after_ms: 10 }
      : undefined;
  const client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0, retriesMax: Infinity });
  const trace = [];
  // The calls with each name, in order, with their number among all calls.
  const calls = new Map(NAMES.map((name) => [name, []]));
  let callCount = 0;

  /** Whether something of a room may be told now, by what the user has called. */
  const mayTell = (room) => {
    const own = calls.get(room);
    const last = own.at(-1);
    if (last ? last.type === 'join' : room === 'lobby') return true;
    const patterns = PATTERNS.filter((pattern) => matches(pattern, room));
    // Left by name, it comes back with the next pattern that is joined, and stays for as long as
    // any matches.
    const isBack = patterns.some((pattern) => calls.get(pattern).some(({ type, number }) => type === 'join' && number > last?.number));
    const isHeld = patterns.some((pattern) => calls.get(pattern).at(-1)?.type === 'join');
    return isHeld && (!last || last.wasNoMember || isBack);
  };
  const note = (what) => {
    trace.push(what);
    if (process.env.TRACE) console.log(what);
  };
  const watch = (name, roomsOf) =>
    client.on(name, (event) => {
      const rooms = roomsOf(event);
      note(`  told ${name} of ${rooms}${event.seq === undefined ? '' : ` ${event.seq}`}`);
      if (!rooms.some(mayTell)) faults.push(`${name} of ${rooms} was told after it was left`);
    });
  const faults = [];
  watch('message', (message) => (message.rooms ?? [message]).map(({ room }) => room));
  for (const name of ['joined', 'left', 'presence', 'matched', 'dropped']) watch(name, ({ room }) => [room]);

  const call = (type, name, options) => {
    const entry = { type, number: (callCount += 1), outcome: 'waits', wasNoMember: !server.hasRoom(name) };
    calls.get(name).push(entry);
    note(`${type} ${name}`);
    client[type](name, options).then(
      () => (entry.outcome = 'ok'),
      ({ code }) => {
        entry.outcome = code;
        entry.wasNoMember ||= type === 'leave' && code === 'not_member';
      },
    ).then(() => note(`  ${type} ${name}: ${entry.outcome}`));
  };
  const actions = {
    join: () => {
      const name = pick(NAMES);
      call('join', name, !name.endsWith('*') && random() < 0.3 ? { presence: true } : undefined);
    },
    leave: () => call('leave', pick(NAMES)),
    publish: () => client.publish(random() < 0.7 ? pick(ROOMS) : ['tea', 'p.a'], 'mine').catch(() => {}),
    presence: () => client.presence(pick(ROOMS), { watch: random() < 0.5 }).catch(() => {}),
    say: () => server.say(random() < 0.7 ? [pick(ROOMS)] : ['tea', 'p.b']),
    notice: () => server.notice(pick(['joined', 'left']), pick(ROOMS)),
    gap: () => {
      const room = pick(ROOMS);
      const { log } = server.makeRoom(room);
      // As an overflow of "gap" does it, but for what was delivered already.
      if (server.session?.seats.has(room)) server.link.down.push({ type: 'gap', room, from: log.length, to: log.length });
    },
    up: () => server.link?.stepUp(),
    down: () => server.link?.stepDown(),
    pass: () => clock.pass(pick([0, 1, 10, 300])),
    cut: () => {
      note('cut');
      server.link?.end(1006);
    },
    lose: () => {
      actions.cut();
      actions.expire();
    },
    expire: () => {
      if (server.link?.isOver) note('the session ends');
      if (server.link?.isOver) server.expire();
    },
  };
  const bag = [
    ...['join', 'join', 'join', 'leave', 'leave', 'leave', 'publish', 'presence', 'say', 'say', 'notice', 'gap', 'pass', 'pass'],
    ...Array(7).fill('up'),
    ...Array(7).fill('down'),
    ...(random() < 0.7 ? ['cut', 'expire', 'lose'] : []),
  ];
  await turn();
  const steps = 20 + Math.floor(random() * 150);
  for (let step = 0; step < steps; step += 1) {
    actions[pick(bag)]();
    // Sometimes several calls in one turn.
    if (random() < 0.7) await turn();
  }

  // Now everything arrives.
  server.refuses = () => undefined;
  for (let step = 0; step < 5000 && !(client.state === 'open' && client.pending === 0 && server.link.isIdle); step += 1) {
    actions.up();
    actions.down();
    clock.pass(1);
    if (step % 8 === 0) await turn();
  }
  await turn();
  const hint = () => `\n  ${trace.join('\n  ')}\n`;
  ok(faults.length === 0, `${faults.join('; ')} ${hint()}`);
  equal([client.state, client.pending], ['open', 0], `the end ${hint()}`);
  const { seats, patterns } = server.session;
  equal(client.rooms.sort(), [...seats.keys()].sort(), `rooms of the client and of the server ${hint()}`);
  equal(client.session.patterns.sort(), patterns.slice().sort(), `patterns of the client and of the server ${hint()}`);
  for (const name of NAMES) {
    const last = calls.get(name).at(-1);
    ok(calls.get(name).every(({ outcome }) => outcome !== 'waits'), `a call with ${name} waits ${hint()}`);
    const isIn = seats.has(name) || patterns.includes(name);
    if (last?.type === 'join' && last.outcome === 'ok') ok(isIn, `${name} was joined ${hint()}`);
    if (last?.type === 'leave') ok(!isIn || mayTell(name), `${name} was left ${hint()}`);
    for (const [at, { type, outcome }] of calls.get(name).entries()) {
      const before = calls.get(name)[at - 1];
      if (type === 'join') ok(['ok', 'already_member'].includes(outcome), `join ${name}: ${outcome} ${hint()}`);
      else if (before?.type === 'join' && before.outcome === 'ok') equal(outcome, 'ok', `leave ${name} ${hint()}`);
      if (type === 'join' && before?.type === 'leave' && PATTERNS.includes(name)) equal(outcome, 'ok', `join ${name} ${hint()}`);
    }
  }

  // And each is where it seems to be.
  const seen = [];
  client.on('message', ({ room, content }) => content === 'x' && seen.push(room));
  for (const room of ROOMS) server.say([room]);
  while (!server.link.isIdle) {
    actions.up();
    actions.down();
  }
  equal(seen.sort(), client.rooms.sort(), `who hears ${hint()}`);
  // Nobody has read yet: what waits is of rooms that were not left.
  const unread = client[Symbol.asyncIterator]();
  client.close();
  server.link.end(1000);
  for (let { value, done } = await unread.next(); !done; { value, done } = await unread.next()) {
    const rooms = (value.rooms ?? [value]).map(({ room }) => room);
    ok(rooms.some(mayTell), `${rooms} is yielded after it was left ${hint()}`);
  }
}
