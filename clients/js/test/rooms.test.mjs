/** Rooms as their users have them: one subscription, members, loops, and an end. */
import { afterEach, beforeEach, test } from 'node:test';

import { Client } from '../index.js';
import { equal, generator, ok, rejects, within } from './environment.mjs';
import { ModelClock, ModelServer, run } from './model.mjs';

let server;
let clock;
let clients;

beforeEach(() => {
  [server, clock, clients] = [new ModelServer(), new ModelClock(), []];
});

afterEach(() => {
  for (const client of clients) client.close();
  server.link?.end(1000);
});

function make(options) {
  const client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0, ...options });
  clients.push(client);
  return client;
}

/** Lets everything arrive that is on its way, with the timers of the turn. */
const settle = (client) => run(server, clock, () => client.state === 'open' && client.pending === 0 && server.link.isIdle);

/** A moment later, in which nothing need be on its way. */
async function later(client, ms = 1) {
  clock.pass(ms);
  await settle(client);
}

async function done(client, ...promises) {
  await settle(client);
  return Promise.all(promises);
}

/** The commands about `tea` that reached the server. */
const asked = () => server.link.taken.filter(({ room }) => room === 'tea').map(({ type, watch }) => (watch === undefined ? type : `${type} ${watch}`));

/** Notes what a room yields. */
function noting(room) {
  const seen = [];
  room.on('message', ({ seq }) => seen.push(seq));
  return seen;
}

test('users of a room share one subscription, and the last one leaves', async () => {
  const client = make();
  const [one, two, three] = [1, 2, 3].map(() => client.room('tea'));
  const [first, second] = [noting(one), noting(two)];
  await done(client, one.join(), one.join(), two.join());
  await done(client, one.join(), three.join());
  server.say(['tea']);
  await settle(client);
  await done(client, one.leave(), one.leave(), three.leave());
  await later(client);
  server.say(['tea']);
  await settle(client);
  equal([first, second, asked()], [[1], [1, 2], ['join']]);
  const left = two.leave();
  equal([two.state, client.rooms], ['out', ['lobby', 'tea']]);
  await later(client);
  await left;
  equal([asked(), client.rooms, [...server.session.seats.keys()]], [['join', 'leave'], ['lobby'], ['lobby']]);
  server.say(['tea']);
  await settle(client);
  equal([first, second], [[1], [1, 2]]);
});

test('who goes and comes within a turn leaves nothing behind and misses nothing', async () => {
  const client = make();
  const [one, two] = [client.room('tea'), client.room('tea')];
  const seen = noting(one);
  await done(client, one.join());
  const left = one.leave();
  await done(client, one.join(), left);
  server.say(['tea']);
  one.leave();
  // Another part of the page, in the same turn.
  await done(client, two.join());
  await later(client);
  equal([asked(), one.state, two.state], [['join'], 'out', 'joined']);
  equal(seen, []);
});

test('with roomLingerMs a room stays joined for so long', async () => {
  const client = make({ roomLingerMs: 100 });
  const room = client.room('tea');
  await done(client, room.join());
  room.leave();
  await later(client, 50);
  await done(client, room.join());
  room.leave();
  await later(client, 99);
  equal(client.rooms, ['lobby', 'tea']);
  await later(client, 1);
  equal([client.rooms, asked()], [['lobby'], ['join', 'leave']]);
});

test('a join that nobody wants any more is withdrawn, or followed by a leave', async () => {
  const client = make();
  const room = client.room('tea');
  const withdrawn = rejects(room.join(), 'left');
  room.leave();
  clock.pass(1);
  await withdrawn;
  await settle(client);
  equal(asked(), []);
  const sent = rejects(room.join(), 'left');
  ok(server.link.up.some(({ type }) => type === 'join'), 'the join is on its way');
  room.leave();
  clock.pass(1);
  // And back at once: the new join is behind the leave.
  const back = room.join();
  await done(client, sent, back);
  equal([asked(), client.rooms, room.state], [['join', 'leave', 'join'], ['lobby', 'tea'], 'joined']);
});

for (const way of ['by its user', 'by name']) {
  test(`the answer to a join that was left since, ${way}, does not count for the next one`, async () => {
    const client = make();
    const room = client.room('tea');
    await settle(client);
    let [back, isBack] = [null, false];
    const comeBack = () => {
      back = room.join();
      back.then(() => (isBack = true), () => {});
    };
    const first = rejects(room.join({ presence: true }), 'left');
    if (way === 'by name') {
      // Still in the call, so that the subscription goes on.
      room.on('state', ({ state }) => state === 'out' && comeBack());
      client.leave('tea');
    } else {
      room.leave();
      clock.pass(0);
      comeBack();
    }
    // The answers to the join and to the leave, and not that to the next join.
    for (let command = 0; command < 2; command += 1) {
      server.link.stepUp();
      while (server.link.down.length > 0) server.link.stepDown();
      await first;
      equal([isBack, room.state, client.rooms], [false, 'joining', ['lobby']]);
    }
    const [{ seq, epoch }] = await done(client, back);
    equal([seq, epoch, room.state, asked()], [0, 'e', 'joined', ['join', 'leave', 'join']]);
  });
}

test('a listener may leave the room, whatever it is told', async () => {
  for (const state of ['joining', 'joined']) {
    const client = make();
    const room = client.room('tea');
    const end = room.on('state', (event) => event.state === state && room.leave());
    const joins = [room.join(), room.join()].map((joined) => joined.catch(({ code }) => code));
    const outcomes = await done(client, ...joins);
    equal(outcomes.map((outcome) => outcome.seq ?? outcome), state === 'joining' ? ['left', 'left'] : [0, 'left']);
    await later(client);
    equal([room.state, client.rooms], ['out', ['lobby']], state);
    end();
    await done(client, room.join());
    equal([room.state, client.rooms], ['joined', ['lobby', 'tea']], state);
    const left = room.leave();
    await later(client);
    await left;
  }
});

test('coming and going without a network does not fill the outbox', async () => {
  const client = make({ outboxMax: 10, backoffBaseMs: 0 });
  const room = client.room('tea');
  await done(client, room.join());
  server.link.end(1006);
  for (let i = 0; i < 100; i += 1) {
    room.leave();
    await Promise.resolve();
    clock.pass(0);
    room.join().catch(() => {});
    await Promise.resolve();
  }
  ok(client.pending <= 2, `${client.pending} commands wait`);
  await settle(client);
  equal([client.rooms, room.state], [['lobby', 'tea'], 'joined']);
});

test('a room that the client is in by other means is entered without a join, and not left', async () => {
  const client = make();
  const early = client.room('lobby');
  // The server has joined it, but the client does not know yet.
  await done(client, early.join(), client.join('tea'));
  const [lobby, tea] = [client.room('lobby'), client.room('tea')];
  const seen = noting(lobby);
  await done(client, lobby.join(), tea.join());
  server.say(['lobby']);
  await settle(client);
  await Promise.all([early, lobby, tea].map((room) => (room.leave(), later(client))));
  server.say(['lobby']);
  await settle(client);
  equal([seen, client.rooms, asked()], [[1], ['lobby', 'tea'], ['join']]);
});

test('a join that is refused rejects, is told, and can be made again', async () => {
  const client = make();
  const [one, two] = [client.room('tea'), client.room('tea')];
  const states = [];
  two.on('state', ({ state, error }) => states.push(error ? `${state} ${error.code}` : state));
  server.refuses = ({ type }) => (type === 'join' ? { code: 'forbidden' } : undefined);
  const loop = rejects(two[Symbol.asyncIterator]().next(), 'forbidden');
  await done(client, rejects(one.join(), 'forbidden'), rejects(two.join(), 'forbidden'), loop);
  equal([one.state, one.error.code, states], ['out', 'forbidden', ['joining', 'out forbidden']]);
  server.refuses = () => undefined;
  await done(client, one.join());
  equal([one.state, one.error, two.state], ['joined', null, 'out']);
});

test('a wait that ends ends that user alone', async () => {
  const client = make();
  const [one, two] = [client.room('tea'), client.room('tea')];
  const stop = new AbortController();
  const aborted = rejects(one.join({ signal: stop.signal }), 'aborted');
  const late = rejects(client.room('milk').join({ timeoutMs: 5 }), 'timeout');
  const joined = two.join();
  stop.abort();
  clock.pass(5);
  await Promise.all([aborted, late]);
  await done(client, joined);
  equal([one.state, two.state, client.rooms], ['out', 'joined', ['lobby', 'tea']]);
  await rejects(one.join({ timeoutMs: -1 }), 'bad_request');
  await rejects(one.join({ sender: 5 }), 'bad_request');
  for (const name of [5, 'prices.*', '\ud800']) {
    let code;
    try {
      client.room(name);
    } catch (error) {
      ({ code } = error);
    }
    equal(code, 'bad_request');
  }
});

test('a room that is left by its name, or that the server drops, has ended for all its users', async () => {
  const client = make();
  const [one, two] = [client.room('tea'), client.room('tea')];
  const read = async () => {
    for await (const message of one) if (!message) return 'nothing';
    return 'over';
  };
  const reading = read();
  await done(client, one.join(), two.join());
  await done(client, client.leave('tea'));
  equal([one.state, two.state, one.error, await reading], ['out', 'out', null, 'over']);
  await done(client, one.join(), two.join());
  const next = rejects(two[Symbol.asyncIterator]().next(), 'forbidden');
  server.link.down.push({ type: 'left', room: 'tea', client_id: client.clientId });
  await settle(client);
  await next;
  equal([one.state, one.error.code, two.error.code], ['out', 'forbidden', 'forbidden']);
});

test('a loop joins, yields all from there on, and leaves with the last loop', async () => {
  const client = make();
  const room = client.room('tea');
  const seen = [];
  const reading = (async () => {
    for await (const { seq } of room) {
      seen.push(seq);
      if (seq === 3) break;
    }
  })();
  await settle(client);
  for (let i = 0; i < 5; i += 1) server.say(['tea']);
  await settle(client);
  await within('loop', reading);
  await later(client);
  equal([seen, room.state, client.rooms], [[1, 2, 3], 'out', ['lobby']]);
  // After an explicit join the messages wait for a loop, and the room is kept after it.
  await done(client, room.join());
  server.say(['tea']);
  await settle(client);
  for await (const { seq } of room) {
    equal(seq, 6);
    break;
  }
  await later(client);
  equal([room.state, client.rooms], ['joined', ['lobby', 'tea']]);
});

test('a loop that has fallen behind holds everything, until it is read or left', async () => {
  const client = make({ queueMax: 2 });
  const [slow, fast] = [client.room('tea'), client.room('tea')];
  const seen = noting(fast);
  const iterator = slow[Symbol.asyncIterator]();
  const joined = fast.join();
  await settle(client);
  await joined;
  for (let i = 0; i < 5; i += 1) server.say(['tea']);
  await settle(client);
  equal(seen, [1, 2]);
  equal((await iterator.next()).value.seq, 1);
  await settle(client);
  equal(seen, [1, 2, 3]);
  slow.leave();
  await settle(client);
  equal([seen, (await iterator.next()).done], [[1, 2, 3, 4, 5], true]);
});

test('a message to several rooms has in each its own number there', async () => {
  const client = make();
  server.say(['milk']);
  const [tea, milk, rum] = ['tea', 'milk', 'rum'].map((name) => client.room(name));
  const seen = [];
  for (const room of [tea, milk, rum]) room.on('message', ({ room: name, seq }) => seen.push(`${name} ${seq}`));
  await done(client, tea.join(), milk.join());
  // Known to be wanted, but not joined yet.
  server.say(['tea', 'milk', 'rum']);
  rum.join().catch(() => {});
  while (server.link.down.length > 0) server.link.stepDown();
  equal(seen, ['tea 1', 'milk 2']);
});

const ids = (room) => room.members?.map(({ client_id }) => client_id) ?? null;

test('the members are kept from answers, notices and gaps, once a turn', async () => {
  const client = make();
  const [room, other] = [client.room('tea'), client.room('tea')];
  await done(client, other.join());
  equal(room.members, null);
  const told = [];
  room.on('members', ({ members, count }) => told.push([members.length, count]));
  const { members, count } = (await done(client, room.join({ presence: true })))[0];
  equal([members.length, count, asked()], [1, 1, ['join', 'presence true']]);
  const before = room.members;
  ok(before === room.members, 'the list is the same until it changes');
  server.link.down.push(
    { type: 'joined', room: 'tea', client_id: 'ben', sender: 'Ben' },
    { type: 'presence', room: 'tea', joined: [{ client_id: 'cleo' }, { client_id: 'dora' }], left: [{ client_id: 'ben' }] },
  );
  for (let i = 0; i < 2; i += 1) server.link.stepDown();
  equal([ids(room), room.memberCount, before.length], [[client.clientId, 'cleo', 'dora'], 3, 1]);
  await settle(client);
  // What the server says after a gap is right.
  server.link.down.push({ type: 'gap', room: 'tea', presence: true });
  await settle(client);
  await Promise.resolve();
  equal([ids(room), told], [[client.clientId], [[1, 1], [3, 3], [1, 1]]]);
  equal([other.members, asked().at(-1)], [null, 'presence']);
  // Who goes and comes in a turn is watched for all the time.
  const commands = asked().length;
  room.leave();
  room.join({ presence: true });
  await later(client);
  equal(asked().length, commands);
  await done(client, room.leave());
  await later(client);
  equal([room.members, asked().at(-1)], [null, 'presence false']);
});

test('only so many members are listed, and all are counted', async () => {
  const client = make({ membersMax: 2 });
  const room = client.room('tea');
  await done(client, room.join({ presence: true }));
  for (const name of ['ben', 'cleo', 'dora']) server.link.down.push({ type: 'joined', room: 'tea', client_id: name });
  server.link.down.push({ type: 'left', room: 'tea', client_id: 'dora' });
  await settle(client);
  equal([ids(room), room.memberCount], [[client.clientId, 'ben'], 3]);
});

test('a session that is lost is joined and watched again, whatever joined the room', async () => {
  const client = make();
  const [tea, lobby] = [client.room('tea'), client.room('lobby')];
  await done(client, tea.join({ presence: true }), lobby.join({ presence: true }));
  const first = client.clientId;
  server.link.end(1006);
  server.expire();
  await settle(client);
  await settle(client);
  ok(client.clientId !== first, 'another session');
  equal([tea.state, ids(tea), ids(lobby)], ['joined', [client.clientId], [client.clientId]]);
  for (const room of ['tea', 'lobby']) equal(server.session.seats.get(room).watch, true, room);
});

test('presence that is refused ends who asked for it, and nobody else', async () => {
  const client = make();
  const [one, two] = [client.room('tea'), client.room('tea')];
  server.refuses = ({ type }) => (type === 'presence' ? { code: 'forbidden' } : undefined);
  await done(client, one.join());
  await done(client, rejects(two.join({ presence: true }), 'forbidden'));
  equal([one.state, two.state, two.error.code], ['joined', 'out', 'forbidden']);
});

test('a client that is made without connecting waits for connect', async () => {
  const client = make({ connect: false });
  const room = client.room('tea');
  const joined = room.join();
  client.reconnect();
  clock.pass(60_000);
  equal([client.state, server.link], ['idle', undefined]);
  const ready = client.connect();
  ok(ready === client.connect() && ready === client.ready, 'connect gives ready');
  await done(client, ready, joined);
  equal([client.state, room.state], ['open', 'joined']);
  const never = make({ connect: false });
  const waits = rejects(never.room('tea').join(), 'closed');
  equal((await never.close()).code, 1000);
  await rejects(never.connect(), 'closed');
  await waits;
});

test('the end of the client is the end of its rooms', async () => {
  const client = make();
  const room = client.room('tea');
  await done(client, room.join({ presence: true }));
  const next = room[Symbol.asyncIterator]().next();
  client.close();
  server.link.end(1000);
  equal([(await next).done, room.state, room.members], [true, 'out', null]);
  await rejects(room.join(), 'closed');
});

test('a listener that joins again whenever the room has ended is told so once by a client that has ended', async () => {
  const client = make();
  const room = client.room('tea');
  await done(client, room.join());
  const ends = [];
  room.on('state', ({ state, error }) => {
    if (state !== 'out') return;
    ends.push(error?.code ?? 'none');
    room.join().catch(({ code }) => ends.push(`rejected ${code}`));
  });
  client.close();
  server.link.end(1000);
  await new Promise((resolve) => setImmediate(resolve));
  equal(ends, ['none', 'closed', 'rejected closed', 'rejected closed']);
  await rejects(room[Symbol.asyncIterator]().next(), 'closed');
  equal([room.state, room.error.code, room.members], ['out', 'closed', null]);
});

test('random users, cuts and lost sessions: in the room while it has users, and out after', { timeout: 120_000 }, async (t) => {
  const first = Number(process.env.SEED ?? Date.now() % 1e6);
  t.diagnostic(`SEED=${first}`);
  const rounds = Number(process.env.ROUNDS ?? 150);
  for (let seed = first; seed < first + rounds; seed += 1) {
    try {
      await play(seed);
    } catch (error) {
      error.message = `SEED=${seed} ROUNDS=1: ${error.message}`;
      throw error;
    }
  }
});

async function play(seed) {
  const random = generator(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  [server, clock] = [new ModelServer(), new ModelClock()];
  const client = make({ retriesMax: Infinity, roomLingerMs: pick([0, 5]), backoffBaseMs: 1 });
  const harshness = random();
  server.refuses = ({ type }) =>
    type !== 'resume' && type !== 'ping' && random() < harshness * 0.4 ? { code: pick(['rate_limited', 'overloaded']), retry_after_ms: 3 } : undefined;
  const users = ['tea', 'tea', 'tea', 'p.a', 'p.a', 'lobby'].map((name) => {
    const room = client.room(name);
    const user = { room, wanted: false, presence: false, faults: [] };
    room.on('message', ({ room: told }) => {
      if (!user.wanted || told !== name) user.faults.push(`a message of ${told} for ${name}, wanted: ${user.wanted}`);
    });
    return user;
  });
  for (let step = 0; step < 120; step += 1) {
    const user = pick(users);
    switch (pick(['join', 'leave', 'up', 'up', 'up', 'down', 'down', 'down', 'pass', 'say', 'cut', 'lose', 'turn'])) {
      case 'join':
        user.wanted = true;
        user.presence ||= random() < 0.4;
        user.room.join({ presence: user.presence }).catch(({ code }) => code === 'left' || user.faults.push(code));
        break;
      case 'leave':
        [user.wanted, user.presence] = [false, false];
        user.room.leave();
        break;
      case 'up':
        server.link?.stepUp();
        break;
      case 'down':
        server.link?.stepDown();
        break;
      case 'pass':
        clock.pass(pick([0, 1, 5]));
        break;
      case 'say':
        server.say(pick([['tea'], ['p.a'], ['tea', 'p.a'], ['lobby']]));
        break;
      case 'cut':
        if (random() < 0.3) server.link?.end(1006);
        break;
      case 'lose':
        if (random() < 0.3) {
          server.link?.end(1006);
          server.expire();
        }
        break;
      default:
        await new Promise((resolve) => setImmediate(resolve));
    }
  }
  server.refuses = () => undefined;
  for (let i = 0; i < 3; i += 1) {
    clock.pass(50);
    await new Promise((resolve) => setImmediate(resolve));
    await settle(client);
  }
  const faults = users.flatMap((user) => user.faults);
  equal(faults, []);
  for (const { room, wanted, presence } of users) {
    equal([room.name, room.state, room.members !== null], [room.name, wanted ? 'joined' : 'out', presence]);
  }
  for (const name of ['tea', 'p.a']) {
    const ours = users.filter(({ room }) => room.name === name);
    const seat = server.session.seats.get(name);
    const expected = [ours.some(({ wanted }) => wanted), ours.some(({ presence }) => presence)];
    equal([seat !== undefined, seat?.watch === true], expected, `in ${name}, and watching`);
    equal(client.rooms.includes(name), expected[0], `in ${name}, as the client knows it`);
  }
  client.close();
  server.link.end(1000);
}
