/** A room's methods in every state and order, and with what they cannot take: no call harms another. */
import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { Client } from '../index.js';
import { systemClock } from '../src/clock.js';
import { equal, generator, ok } from './environment.mjs';
import { ModelClock, ModelServer, run } from './model.mjs';

let server;
let clock;
let client;

beforeEach(() => {
  [server, clock] = [new ModelServer(), new ModelClock()];
  client = new Client('ws://model/ws', { WebSocket: server.WebSocket, clock, random: () => 0 });
});

afterEach(() => {
  client.close();
  server.link?.end(1000);
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

async function settle() {
  await run(server, clock, () => client.state === 'open' && client.pending === 0 && server.link.isIdle);
  clock.pass(1);
  await run(server, clock, () => client.pending === 0 && server.link.isIdle);
  await turn();
}

/** What becomes of a call: `fine`, or the code or the kind of its error. */
async function outcome(call) {
  try {
    await call();
    return 'fine';
  } catch (error) {
    return error.code ?? error.constructor.name;
  }
}

const circle = {};
circle.circle = circle;

/** Calls that are wrong whenever they are made, and what they are told. */
const WRONG = [
  [(room) => room.publish(circle), 'bad_request'],
  [(room) => room.publish(1n), 'bad_request'],
  [(room) => room.publish(undefined), 'bad_request'],
  [(room) => room.publish(() => {}), 'bad_request'],
  [(room) => room.publish({ toJSON: () => { throw new Error('no'); } }), 'bad_request'],
  [(room) => room.publish('x', { id: 'no UUID' }), 'bad_request'],
  [(room) => room.publish('x', 'options'), 'bad_request'],
  [(room) => room.publish('x', { signal: AbortSignal.abort() }), 'aborted'],
  [(room) => room.history({ before: 1, after: 1 }), 'bad_request'],
  [(room) => room.history({ limit: -1 }), 'bad_request'],
  [(room) => room.history({ signal: AbortSignal.abort() }), 'aborted'],
  [(room) => room.join(5), 'bad_request'],
  [(room) => room.join({ since: 5 }), 'bad_request'],
  [(room) => room.join({ presence: 'yes' }), 'bad_request'],
  [(room) => room.join({ sender: '\ud800' }), 'bad_request'],
  [(room) => room.join({ timeoutMs: NaN }), 'bad_request'],
  [(room) => room.join({ signal: {} }), 'bad_request'],
  [(room) => room.join({ signal: AbortSignal.abort() }), 'aborted'],
  [(room) => room.on('message', 'listener'), 'TypeError'],
  [(room) => room.once('state'), 'TypeError'],
];

/** Brings a room into a state, with another user of it who is `in` all the time. */
const STATES = {
  out: async () => {},
  joining: async (room) => void room.join().catch(() => {}),
  joined: async (room) => {
    const joined = room.join();
    await settle();
    await joined;
  },
  read: async (room) => {
    room[Symbol.asyncIterator]();
    await settle();
  },
  left: async (room) => {
    await STATES.joined(room);
    const left = room.leave();
    await settle();
    await left;
  },
  dropped: async (room) => {
    await STATES.joined(room);
    server.session.seats.delete(room.name);
    server.link.down.push({ type: 'left', room: room.name, client_id: client.clientId });
    await settle();
  },
  closed: async () => {
    client.close();
    server.link.end(1000);
  },
};

for (const [state, reach] of Object.entries(STATES)) {
  test(`what a room that is ${state} cannot take changes nothing`, async () => {
    await settle();
    const room = client.room('tea');
    await reach(room);
    const before = room.state;
    for (const [call, told] of WRONG) {
      for (let time = 0; time < 2; time += 1) {
        const got = await outcome(() => call(room));
        // A client that has ended says so first, but for what is wrong in any client.
        ok(got === told || (state === 'closed' && told === 'aborted' && got === 'closed'), `${call} in ${state}: ${got}, not ${told}`);
        equal([room.state, client.pending <= 1], [before, true], `${call} in ${state}`);
      }
    }
    room.off('message', 'listener');
    room.off('nothing');
    if (state === 'closed') return;
    // It is as good as new.
    const seen = [];
    room.on('message', ({ seq }) => seen.push(seq));
    const joined = room.join({ presence: true });
    await settle();
    const { members } = await joined;
    const [{ seq }] = server.say(['tea']);
    await settle();
    equal([room.state, seen, members.length], ['joined', [seq], 1]);
  });
}

test('calls in every order, twice and after the end: each is answered, and the room is in order', { timeout: 60_000 }, async (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  t.diagnostic(`SEED=${seed}`);
  const random = generator(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  await settle();
  for (let round = 0; round < 200; round += 1) {
    const room = client.room(pick(['tea', 'milk']));
    const open = [];
    const calls = [];
    const note = (call) => {
      call.catch(() => {});
      calls.push(call);
    };
    const verbs = [
      () => note(room.join()),
      () => note(room.join({ presence: true, timeoutMs: 1 })),
      () => note(room.join({ signal: AbortSignal.abort() })),
      () => note(room.leave()),
      () => note(room.publish('x')),
      () => note(room.history()),
      () => open.push(room[Symbol.asyncIterator]()),
      () => open.length > 0 && note(pick(open).next()),
      () => open.length > 0 && note(pick(open).return()),
      () => note(client.leave(room.name)),
      () => clock.pass(1),
      () => server.link.stepUp(),
      () => server.link.stepDown(),
    ];
    for (let step = 0; step < 12; step += 1) {
      pick(verbs)();
      if (random() < 0.2) await turn();
    }
    note(room.leave());
    for (const iterator of open) note(iterator.return());
    const outcomes = Promise.allSettled(calls);
    await settle();
    const codes = (await outcomes).map(({ reason }) => reason?.code).filter((code) => code !== undefined);
    const known = ['left', 'timeout', 'aborted', 'not_member'];
    const hint = `SEED=${seed}, round ${round}`;
    equal(codes.filter((code) => !known.includes(code)), [], `codes, ${hint},`);
    equal([room.state, client.rooms, [...server.session.seats.keys()]], ['out', ['lobby'], ['lobby']], hint);
  }
});

test('parts that come and go ten thousand times leave nothing behind', { timeout: 120_000 }, async () => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  await settle();
  const names = Array.from({ length: 10_000 }, (_, part) => `room-${part}`);
  // What the server keeps is not ours.
  for (const name of names) server.makeRoom(name);
  const heap = () => {
    server.link.taken.length = 0;
    gc();
    return process.memoryUsage().heapUsed;
  };
  const [timers, before] = [clock.timers, heap()];
  const rooms = [];
  const { signal } = new AbortController();
  for (const [part, name] of names.entries()) {
    const room = client.room(name);
    rooms.push(new WeakRef(room));
    room.on('message', () => {});
    const joined = room.join({ presence: part % 3 === 0, signal }).catch(() => {});
    const loop = part % 2 === 0 ? room[Symbol.asyncIterator]() : null;
    if (part % 5 === 0) await settle();
    loop?.return();
    room.leave();
    await joined;
  }
  await settle();
  equal([client.rooms, client.pending, clock.timers, [...server.session.seats.keys()]], [['lobby'], 0, timers, ['lobby']]);
  equal(getEventListeners(signal, 'abort').length, 0, 'listeners');
  await turn();
  const kept = heap() - before;
  const alive = rooms.filter((room) => room.deref() !== undefined).length;
  ok(alive <= 1, `${alive} of ${rooms.length} rooms are still held`);
  // Of each part there is the weak reference, and nothing of the size of a subscription.
  ok(kept < 300 * names.length, `${kept} bytes are still held`);
});

test('a time without end is no timer that rings at once', (t) => {
  const { mock } = t.mock.method(globalThis, 'setTimeout', () => {});
  systemClock.setTimeout(() => {}, Infinity);
  systemClock.setTimeout(() => {}, 5);
  equal(mock.calls.map(({ arguments: given }) => given[1]), [2 ** 31 - 1, 5]);
});
