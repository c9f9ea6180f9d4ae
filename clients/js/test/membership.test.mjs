/** What is left stays left, whatever is on its way: calls, answers and cuts in every order. */
import { test } from 'node:test';

import { Client } from '../index.js';
import { equal, generator, ok } from './environment.mjs';
import { ModelClock, ModelServer } from './model.mjs';

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
    // Left by name, it comes back with the next pattern that is joined, and stays for as long as any matches.
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
    expire: () => {
      if (server.link?.isOver) note('the session ends');
      if (server.link?.isOver) server.expire();
    },
  };
  const bag = [
    ...['join', 'join', 'join', 'leave', 'leave', 'leave', 'publish', 'presence', 'say', 'say', 'notice', 'gap', 'pass', 'pass'],
    ...Array(7).fill('up'),
    ...Array(7).fill('down'),
    ...(random() < 0.7 ? ['cut', 'expire'] : []),
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
