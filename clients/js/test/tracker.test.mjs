import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Tracker } from '../src/tracker.js';
import { generator } from './environment.mjs';

/** A tracker that notes what it says: `a1` was yielded, `!a2-3` was lost, `?a1` is asked for. */
function setUp({ holdMax = 100 } = {}) {
  const log = [];
  const tracker = new Tracker({
    holdMax,
    deliver: (message) => log.push(message.content),
    lost: ({ room, from, to }) => log.push(from === null ? `!${room}` : `!${room}${from}-${to}`),
    fetch: (room, after) => log.push(`?${room}${after}`),
  });
  const told = () => log.splice(0).join(' ');
  return { tracker, told };
}

const message = (room, seq) => ({ type: 'message', room, seq, id: `${room}-${seq}`, content: `${room}${seq}` });

/** One message in several rooms, given as `{a: 1, b: 2}`. */
function multi(places) {
  const rooms = Object.entries(places).map(([room, seq]) => ({ room, seq }));
  const name = rooms.map(({ room, seq }) => `${room}${seq}`).join('+');
  return { type: 'message', ...rooms[0], rooms, id: name, content: name };
}

const answer = (room, seq, messages, rest = {}) => ({ room, epoch: 'e', seq, recovered: true, messages, ...rest });

test('each message once, in order, and the position follows', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 4 });
  for (const seq of [5, 6, 6, 5, 4, 8]) tracker.live(message('a', seq));
  tracker.live(message('stranger', 1));
  assert.equal(told(), 'a5 a6 a8');
  assert.equal(tracker.room('a').seq, 8);
});

test('own numbers wait for what was said before them', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.own('a', 1);
  assert.equal(tracker.room('a').seq, 1);
  // The answer to our own message may overtake what somebody else said before it.
  tracker.own('a', 3);
  tracker.own('a', 4);
  assert.equal(tracker.room('a').seq, 1);
  tracker.live(message('a', 2));
  assert.equal(told(), 'a2');
  assert.equal(tracker.room('a').seq, 4);
  tracker.own('a', 7);
  tracker.live(message('a', 9));
  assert.equal(told(), 'a9');
  assert.equal(tracker.room('a').seq, 9);
});

test('the replay of the default room comes before its position', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 10, replay: true });
  assert.equal(tracker.room('a').seq, 10);
  for (const seq of [8, 9, 10, 11]) tracker.live(message('a', seq));
  assert.equal(told(), 'a8 a9 a10 a11');
  tracker.live(message('a', 9));
  assert.equal(told(), '');
});

test('a gap is fetched while the room waits, and other rooms do not', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.start('b', { epoch: 'e', seq: 0 });
  tracker.live(message('a', 1));
  tracker.gap('a', 2, 5);
  tracker.live(message('a', 6));
  tracker.live(message('b', 1));
  assert.equal(told(), 'a1 ?a1 b1');
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [message('a', 2), message('a', 3)] });
  assert.equal(told(), 'a2 a3 ?a3');
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [4, 5, 6].map((seq) => message('a', seq)) });
  assert.equal(told(), 'a4 a5 a6');
  assert.equal(tracker.waiting('a'), 0);
});

test('what history no longer has is lost', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.gap('a', 1, 6);
  tracker.live(message('a', 7));
  tracker.fill('a', { epoch: 'e', seq: 7, messages: [message('a', 4), message('a', 6), message('a', 7)] });
  assert.equal(told(), '?a0 !a1-3 a4 !a5-5 a6 a7');
  tracker.gap('a', 8, 9);
  tracker.fill('a', { epoch: 'e', seq: 9, messages: [] });
  assert.equal(told(), '?a7 !a8-9');
  tracker.gap('a', 10, 11);
  tracker.unfilled('a');
  assert.equal(told(), '?a9 !a10-11');
});

test('our own numbers in a gap are not lost', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.own('a', 3);
  tracker.gap('a', 1, 4);
  tracker.own('a', 2);
  tracker.fill('a', { epoch: 'e', seq: 4, messages: [] });
  assert.equal(told(), '?a0 !a1-1 !a4-4');
  assert.equal(tracker.room('a').seq, 4);
});

test('a room that keeps the latest is not asked for more', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0, overflow: 'latest' });
  tracker.gap('a', 1, 4);
  tracker.live(message('a', 5));
  assert.equal(told(), '!a1-4 a5');
});

test('a second gap waits for the first', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.gap('a', 1, 2);
  tracker.live(message('a', 3));
  tracker.gap('a', 4, 5);
  tracker.live(message('a', 6));
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [1, 2].map((seq) => message('a', seq)) });
  assert.equal(told(), '?a0 a1 a2 a3 ?a3');
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [4, 5].map((seq) => message('a', seq)) });
  assert.equal(told(), 'a4 a5 a6');
});

test('beyond the bound, what waits is fetched later instead', () => {
  const { tracker, told } = setUp({ holdMax: 5 });
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.gap('a', 1, 1);
  for (let seq = 2; seq <= 50; seq += 1) {
    tracker.live(message('a', seq));
    assert.ok(tracker.waiting('a') <= 6);
  }
  tracker.fill('a', { epoch: 'e', seq: 50, messages: [message('a', 1)] });
  assert.equal(told(), '?a0 a1 a2 a3 a4 a5 ?a5');
  const page = [];
  for (let seq = 30; seq <= 50; seq += 1) page.push(message('a', seq));
  tracker.fill('a', { epoch: 'e', seq: 50, messages: page });
  assert.ok(told().startsWith('!a6-29 a30 a31'));
  assert.equal(tracker.room('a').seq, 50);
});

test('resume: what was missed, a gap, another epoch', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b', 'c']) tracker.start(room, { epoch: 'e', seq: 2 });
  tracker.interrupt();
  tracker.resume('a', answer('a', 4, [3, 4].map((seq) => message('a', seq))));
  tracker.resume('b', answer('b', 4, [], { recovered: false }));
  tracker.resume('c', answer('c', 9, [], { recovered: false, epoch: 'f' }));
  tracker.live(message('a', 5));
  tracker.live(message('b', 5));
  tracker.live(message('c', 10));
  assert.equal(told(), 'a3 a4 ?b2 !c a5 c10');
  tracker.fill('b', { epoch: 'e', seq: 5, messages: [4, 5].map((seq) => message('b', seq)) });
  assert.equal(told(), '!b3-3 b4 b5');
});

test('a new epoch at our position costs nothing', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 4 });
  tracker.epoch('a', { epoch: 'f', seq: 4 });
  tracker.epoch('stranger', { epoch: 'f', seq: 9 });
  tracker.live(message('a', 5));
  assert.equal(told(), 'a5');
  assert.deepEqual([tracker.room('a').epoch, tracker.room('a').seq], ['f', 5]);
});

test('a new epoch below our position gives its numbers again', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 4 });
  tracker.live(message('a', 5));
  tracker.own('a', 7);
  tracker.epoch('a', { epoch: 'f', seq: 3 });
  assert.equal(tracker.room('a').seq, 3);
  for (const seq of [4, 5, 6, 7]) tracker.live(message('a', seq));
  assert.equal(told(), 'a5 !a a4 a5 a6 a7');
  // One of our own is lost, too.
  tracker.own('a', 8);
  tracker.epoch('a', { epoch: 'g', seq: 7 });
  tracker.live(message('a', 8));
  assert.equal(told(), '!a a8');
});

test('a new epoch above our position is a gap, in a room that keeps the latest too', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 4 });
  tracker.start('b', { epoch: 'e', seq: 4, overflow: 'latest' });
  for (const room of ['a', 'b']) {
    tracker.epoch(room, { epoch: 'f', seq: 7 });
    tracker.live(message(room, 8));
  }
  assert.equal(told(), '?a4 !b5-7 b8');
  tracker.fill('a', { epoch: 'f', seq: 8, messages: [5, 7, 8].map((seq) => message('a', seq)) });
  assert.equal(told(), 'a5 !a6-6 a7 a8');
});

test('a new epoch drops what waits above it, and the page that is under way', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.gap('a', 1, 2);
  for (const seq of [3, 4, 5]) tracker.live(message('a', seq));
  const asking = tracker.room('a');
  tracker.epoch('a', { epoch: 'f', seq: 3 });
  assert.notEqual(tracker.room('a'), asking, 'or the page would be taken');
  tracker.live({ ...message('a', 4), content: 'A4' });
  assert.equal(told(), '?a0 !a ?a0');
  tracker.fill('a', { epoch: 'f', seq: 4, messages: [1, 2].map((seq) => message('a', seq)) });
  assert.equal(told(), 'a1 a2 a3 A4');
});

test('what another room still has does not count in a new epoch', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.gap('b', 1, 1);
  tracker.live(multi({ a: 3, b: 2 }));
  tracker.epoch('a', { epoch: 'f', seq: 0 });
  tracker.fill('b', { epoch: 'e', seq: 2, messages: [message('b', 1)] });
  for (const seq of [1, 2, 3]) tracker.live(message('a', seq));
  assert.equal(told(), '?b0 !a b1 a3+b2 a1 a2 a3');
});

test('a resume in a new epoch that has everything costs nothing', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 2 });
  tracker.interrupt();
  tracker.resume('a', answer('a', 3, [message('a', 3)], { epoch: 'f' }));
  assert.deepEqual([told(), tracker.room('a').epoch], ['a3', 'f']);
});

test('what waited when the connection was lost fills the gap that the server leaves', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.gap('a', 1, 2);
  tracker.live(message('a', 3));
  tracker.live(message('a', 4));
  tracker.interrupt();
  tracker.resume('a', answer('a', 6, [], { recovered: false }));
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [message('a', 6)] });
  assert.equal(told(), '?a0 ?a0 !a1-2 a3 a4 !a5-5 a6');
});

test('a message to several rooms is yielded once, and counts in each', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.live(multi({ a: 1, b: 1, stranger: 7 }));
  tracker.live(message('a', 1));
  tracker.live(message('b', 2));
  assert.equal(told(), 'a1+b1+stranger7 b2');
});

test('in an answer to resume it stands in several lists', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b', 'c']) tracker.start(room, { epoch: 'e', seq: 0 });
  const [ab, bc] = [multi({ a: 2, b: 1 }), multi({ c: 1, b: 2 })];
  tracker.batch(() => {
    tracker.resume('a', answer('a', 3, [message('a', 1), ab, message('a', 3)]));
    tracker.resume('b', answer('b', 3, [ab, bc, message('b', 3)]));
    tracker.resume('c', answer('c', 2, [bc, message('c', 2)]));
  });
  const order = told().split(' ');
  assert.equal([...order].sort().join(' '), 'a1 a2+b1 a3 b3 c1+b2 c2');
  for (const [first, second] of [['a1', 'a2+b1'], ['a2+b1', 'a3'], ['a2+b1', 'c1+b2'], ['c1+b2', 'b3'], ['c1+b2', 'c2']]) {
    assert.ok(order.indexOf(first) < order.indexOf(second), `${first} before ${second} in ${order}`);
  }
});

test('in a replay or a page of one room it waits for what is on its way in another', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  // The server has entered `a`, `a2` and the message to both are published, and it enters `b`.
  const both = multi({ b: 2, a: 3 });
  tracker.batch(() => {
    tracker.resume('a', answer('a', 1, [message('a', 1)]));
    tracker.resume('b', answer('b', 2, [message('b', 1), both]));
  });
  assert.equal(told(), 'a1 b1 ?a1');
  for (const live of [message('a', 2), both, message('a', 4)]) tracker.live(live);
  tracker.fill('a', { epoch: 'e', seq: 4, messages: [message('a', 2), both, message('a', 4)] });
  assert.equal(told(), 'a2 b2+a3 a4');
  const more = multi({ b: 4, a: 7 });
  tracker.gap('b', 3, 4);
  tracker.fill('b', { epoch: 'e', seq: 4, messages: [message('b', 3), more] });
  assert.equal(told(), '?b2 b3 ?a4');
  for (const live of [message('a', 5), message('a', 6), more, message('a', 8)]) tracker.live(live);
  assert.equal(told(), '');
  tracker.unfilled('a');
  assert.equal(told(), 'a5 a6 b4+a7 a8');
  assert.deepEqual([tracker.room('a').seq, tracker.room('b').seq], [8, 4]);
});

test('what history does not have of that is not lost, and order gives way', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  const overtakes = (both, after) => {
    tracker.gap('b', after + 1, after + 1);
    tracker.fill('b', { epoch: 'e', seq: after + 1, messages: [both] });
  };
  const [first, second] = [multi({ b: 1, a: 3 }), multi({ b: 2, a: 6 })];
  overtakes(first, 0);
  tracker.fill('a', { epoch: 'e', seq: 3, messages: [] });
  assert.equal(told(), '?b0 ?a0 b1+a3');
  for (const live of [message('a', 1), message('a', 2), first]) tracker.live(live);
  assert.equal(told(), 'a1 a2');
  tracker.own('a', 5);
  overtakes(second, 1);
  tracker.fill('a', { epoch: 'e', seq: 6, messages: [] });
  assert.equal(told(), '?b1 ?a3 b2+a6');
  for (const live of [message('a', 4), second, message('a', 7)]) tracker.live(live);
  assert.equal(told(), 'a4 a7');
});

test('but what came meanwhile, and was not kept for want of space, is', () => {
  for (const came of [[1, 2, 3], [1, 2, 6]]) {
    const { tracker, told } = setUp({ holdMax: 3 });
    for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
    tracker.gap('b', 1, 1);
    tracker.fill('b', { epoch: 'e', seq: 1, messages: [multi({ b: 1, a: 5 })] });
    for (const seq of came) tracker.live(message('a', seq));
    tracker.unfilled('a');
    assert.equal(told(), `?b0 ?a0 a1 a2 !a3-4 b1+a5${came.includes(6) ? ' !a6-6' : ''}`);
  }
});

test('it waits for a room that the server has still to speak of', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b', 'c']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.interrupt();
  const [both, other] = [multi({ b: 1, a: 3 }), multi({ b: 2, c: 2 })];
  tracker.resume('b', answer('b', 2, [both, other]));
  assert.equal(told(), '');
  tracker.resume('a', answer('a', 3, [message('a', 1), message('a', 2), both]));
  assert.equal(told(), 'a1 a2 b1+a3');
  tracker.stop('c');
  assert.equal(told(), 'b2+c2');
  // A number below our position may be of a new epoch.
  tracker.interrupt();
  tracker.resume('b', answer('b', 2, []));
  tracker.live(multi({ b: 3, a: 2 }));
  assert.equal(told(), '');
  tracker.resume('a', answer('a', 1, [], { recovered: false, epoch: 'f' }));
  assert.equal(told(), '!a b3+a2');
  assert.equal(tracker.room('a').seq, 2);
});

test('it waits for a room whose gap is being fetched', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.gap('b', 1, 2);
  tracker.live(multi({ a: 1, b: 3 }));
  tracker.live(message('a', 2));
  assert.equal(told(), '?b0');
  tracker.fill('b', { epoch: 'e', seq: 3, messages: [message('b', 1), message('b', 2)] });
  assert.equal(told(), 'b1 b2 a1+b3 a2');
  // The other way: the gap holds the message itself, and history has it no more.
  tracker.gap('b', 4, 6);
  tracker.live(multi({ a: 3, b: 5 }));
  tracker.unfilled('b');
  assert.equal(told(), '?b3 !b4-4 a3+b5 !b6-6');
});

test('it is not lost to a room whose gap holds it, while another room still has it', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.gap('b', 1, 1);
  tracker.live(message('b', 2));
  tracker.gap('b', 3, 5);
  tracker.live(multi({ a: 1, b: 4 }));
  tracker.unfilled('b');
  tracker.unfilled('b');
  assert.equal(told(), '?b0 !b1-1 b2 ?b2 !b3-3 a1+b4 !b5-5');
  tracker.interrupt();
  tracker.batch(() => {
    tracker.resume('a', answer('a', 2, [multi({ a: 2, b: 7 })]));
    tracker.resume('b', answer('b', 8, [], { recovered: false }));
  });
  tracker.unfilled('b');
  assert.equal(told(), '?b5 !b6-6 a2+b7 !b8-8');
});

test('leaving a room lets go of what waited for it', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.gap('b', 1, 2);
  tracker.live(multi({ a: 1, b: 3 }));
  tracker.stop('b');
  assert.equal(told(), '?b0 a1+b3');
});

test('joining one of its rooms later does not bring it again', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.live(multi({ a: 1, b: 1 }));
  tracker.start('b', { epoch: 'e', seq: 0 });
  tracker.resume('b', answer('b', 2, [multi({ a: 1, b: 1 }), message('b', 2)]));
  assert.equal(told(), 'a1+b1 b2');
  assert.equal(tracker.room('b').seq, 2);
});

test('a server that contradicts itself does not stop the client', () => {
  const { tracker, told } = setUp();
  for (const room of ['a', 'b']) tracker.start(room, { epoch: 'e', seq: 0 });
  tracker.batch(() => {
    tracker.live(multi({ a: 1, b: 2 }));
    tracker.live(multi({ a: 2, b: 1 }));
  });
  assert.equal(told().split(' ').sort().join(' '), 'a1+b2 a2+b1');
});

test('while paused nothing is yielded', () => {
  const { tracker, told } = setUp();
  tracker.start('a', { epoch: 'e', seq: 0 });
  tracker.paused = true;
  tracker.live(message('a', 1));
  assert.equal(told(), '');
  assert.equal(tracker.room('a').seq, 0);
  tracker.paused = false;
  assert.equal(told(), 'a1');
});

/**
 * A server of a few rooms with little history, and a network that loses connections and whole ranges. A lost
 * session comes back to each room at another instant, and answers overtake messages. Whatever happens, each
 * room's messages come in order and once, and what did not come was reported as lost.
 */
test('random scripts', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  for (let round = 0; round < 400; round += 1) play(seed + round);
});

function play(seed) {
  const random = generator(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];
  // Whether the client does no more than lose its session and come back, over a slow network.
  const isCalm = random() < 0.5;
  const names = isCalm ? ['a', 'b'] : ['a', 'b', 'c'];
  const pace = isCalm ? 0.4 * random() : 0.7;
  const kept = isCalm ? 100 : 1 + Math.floor(random() * 12);
  const logs = Object.fromEntries(names.map((name) => [name, []]));
  const told = Object.fromEntries(names.map((name) => [name, []]));
  const nulls = Object.fromEntries(names.map((name) => [name, 0]));
  // The epoch, and after which number each began in each room.
  const begins = [Object.fromEntries(names.map((name) => [name, 0]))];
  const epochNow = () => `e${begins.length}`;
  const published = [];
  // Lost messages, which count no more in a room that was told of its new epoch.
  const gone = [];
  const dead = Object.fromEntries(names.map((name) => [name, new Set()]));
  let count = 0;
  const mine = new Set();
  const isOwn = new Set();
  let isUp = true;
  // The rooms that the server has the client in, those that it is still to be asked for, and how many
  // of its answers are on their way.
  let entered = new Set(names);
  let joins = [];
  let entering = 0;
  // How many messages were published when a command was carried out last.
  let askedAt = 0;
  let wire = [];
  let fetches = [];
  let yielded = 0;
  const tracker = new Tracker({
    holdMax: 2 + Math.floor(random() * 10),
    deliver: (message, isReplay) => {
      if (isReplay && mine.has(message.id)) return;
      yielded += 1;
      for (const { room, seq } of message.rooms ?? [message]) {
        if (!dead[room].has(message.id)) told[room].push({ seq, id: message.id, isMulti: message.rooms !== undefined });
      }
    },
    lost: ({ room, from, to }) => {
      if (from === null) nulls[room] += 1;
      else told[room].push({ from, to });
    },
    fetch: (room, after) => fetches.push({ room, after, record: tracker.room(room) }),
  });
  for (const name of names) tracker.start(name, { epoch: epochNow(), seq: 0 });
  const have = (name) => logs[name].slice(-kept);
  const seqOf = (message, name) => message.rooms?.find(({ room }) => room === name).seq ?? message.seq;

  const deliver = (all) => {
    // Now or later, but in the order of the wire; own answers are on the wire too.
    while (wire.length > 0 && (all || random() < pace)) wire.shift()();
  };
  /**
   * Answers a command. The answer may overtake messages, but none that was published before the
   * command before it.
   */
  const reply = (run) => {
    const first = wire.findLastIndex(({ at }) => at === undefined || at <= askedAt) + 1;
    askedAt = count;
    wire.splice(first + Math.floor(random() * (wire.length - first + 1)), 0, Object.assign(run, { isAnswer: true }));
  };
  const publish = () => {
    const rooms = names.filter(() => random() < (isCalm ? 0.6 : 0.4));
    if (rooms.length === 0) rooms.push(pick(names));
    const places = rooms.map((room) => ({ room, seq: logs[room].length + 1 }));
    const id = `${places.map(({ room, seq }) => `${room}${seq}`).join('+')}#${(count += 1)}`;
    const message = { ...places[0], ...(places.length > 1 ? { rooms: places } : {}), id, content: id };
    for (const { room } of places) logs[room].push(message);
    published.push(message);
    const isMine = (!isUp || (joins.length === 0 && entering === 0)) && random() < 0.2;
    if (isMine) {
      mine.add(id);
      for (const { room, seq } of places) isOwn.add(`${room}${seq}`);
      const at = Math.floor(random() * (wire.length + 1));
      const answer = () => places.forEach(({ room, seq }) => tracker.own(room, seq));
      // An answer may overtake others' messages.
      if (isUp) wire.splice(Math.max(at, wire.findLastIndex(({ isAnswer }) => isAnswer) + 1), 0, Object.assign(answer, { isAnswer: true }));
    } else if (isUp && rooms.some((room) => entered.has(room))) {
      wire.push(Object.assign(() => tracker.live(message), { at: count }));
    }
  };
  const dropRange = () => {
    const room = pick(names);
    if (!isUp || !entered.has(room)) return;
    const from = logs[room].length + 1;
    const to = from + Math.floor(random() * 5);
    skip(room, to);
    wire.push(() => tracker.gap(room, from, to));
  };
  /** Somebody publishes up to this number, and the client is not told. */
  const skip = (room, to) => {
    while (logs[room].length < to) {
      const message = { room, seq: logs[room].length + 1, id: `${room}#${(count += 1)}`, content: '' };
      logs[room].push(message);
      published.push(message);
    }
  };
  /** The server loses its newest messages, or none, and goes on in a new epoch. */
  const failOver = () => {
    const isCut = {};
    const lost = random() < 0.5 ? published.splice(Math.max(0, published.length - 4 * random())) : [];
    for (const message of lost) {
      for (const { room } of message.rooms ?? [message]) {
        logs[room].pop();
        isCut[room] = true;
      }
    }
    gone.push(...lost.map(({ id }) => id));
    // What is published while the server does not reach the client.
    for (const room of names) if (!isCut[room] && random() < 0.3) skip(room, logs[room].length + Math.floor(random() * 3));
    begins.push(Object.fromEntries(names.map((name) => [name, logs[name].length])));
    const epoch = epochNow();
    for (const room of isUp ? entered : []) {
      const seq = logs[room].length;
      wire.push(() => {
        const [reached, lossesBefore] = [tracker.room(room).seq, nulls[room]];
        told[room].push({ back: seq });
        for (const { id } of lost) dead[room].add(id);
        tracker.epoch(room, { epoch, seq });
        assert.ok(reached <= seq || nulls[room] > lossesBefore, `SEED=${seed}: ${room} fell back in silence`);
        assert.ok(tracker.room(room).seq <= seq, `SEED=${seed}: ${room} is ahead`);
      });
    }
  };
  const serveFetch = () => {
    if (!isUp || fetches.length === 0) return;
    const { room, after, record } = fetches.shift();
    const page = have(room).filter((message) => seqOf(message, room) > after).slice(0, 1 + Math.floor(random() * 4));
    const seq = logs[room].length;
    const epoch = epochNow();
    reply(() => tracker.room(room) === record && tracker.fill(room, { epoch, seq, messages: page }));
  };
  const lose = () => {
    if (!isUp) return;
    isUp = false;
    [wire, fetches, joins, entering] = [[], [], [], 0];
    tracker.interrupt();
  };
  /** Enters a room again, and gives what tells the tracker. */
  const enter = (room, { seq: since, epoch }) => {
    const missed = logs[room].slice(since);
    const isGood = begins.slice(Number(epoch.slice(1))).every((begin) => since <= begin[room]);
    const recovered = isGood && missed.length <= kept && random() < 0.8;
    const seq = logs[room].length;
    const [isSameEpoch, lost] = [epoch === epochNow(), [...gone]];
    const place = { epoch: epochNow(), seq, recovered, messages: recovered ? missed : [] };
    entered.add(room);
    return () => {
      for (const id of lost) dead[room].add(id);
      if (!recovered && !isSameEpoch) told[room].push({ next: seq + 1 });
      tracker.resume(room, place);
    };
  };
  const comeBack = () => {
    if (isUp) return;
    isUp = true;
    const takes = names.map((room) => enter(room, tracker.room(room)));
    tracker.batch(() => takes.forEach((take) => take()));
  };
  /** The session was lost: each room is joined for itself, at its own instant. */
  const comeBackApart = () => {
    if (isUp) return;
    isUp = true;
    entered = new Set();
    joins = names.map((room) => ({ room, since: { ...tracker.room(room) } }));
  };
  const serveJoin = () => {
    if (joins.length === 0) return;
    const { room, since } = joins.shift();
    const take = enter(room, since);
    entering += 1;
    reply(() => {
      entering -= 1;
      take();
    });
  };
  const pause = () => {
    tracker.paused = random() < 0.5;
  };
  const calm = [publish, publish, publish, publish, lose, comeBackApart, comeBackApart, serveJoin, serveJoin, serveFetch];
  for (let step = 0; step < 120; step += 1) {
    pick(isCalm ? calm : [publish, publish, publish, publish, failOver, dropRange, serveFetch, serveFetch, lose, comeBack, comeBackApart, serveJoin, serveJoin, pause, deliver])(false);
    deliver(false);
  }
  comeBack();
  for (let round = 0; round < 1000 && (wire.length + fetches.length + joins.length > 0 || round < 3); round += 1) {
    tracker.paused = false;
    serveJoin();
    serveFetch();
    deliver(true);
  }
  const hint = `SEED=${seed}`;
  assert.equal(fetches.length, 0, hint);
  for (const room of names) {
    let next = 1;
    const skipOwn = (upto) => {
      while (next < upto && isOwn.has(`${room}${next}`)) next += 1;
    };
    const isLost = (seq) => told[room].some(({ from, to, next: begin }) => seq < begin || (from <= seq && seq <= to));
    const ids = told[room].filter(({ id }) => id !== undefined).map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length, `${hint}: ${room} ${JSON.stringify(told[room])}`);
    for (const item of told[room]) {
      if (item.next !== undefined) next = item.next;
      if (item.back !== undefined) next = Math.min(next, item.back + 1);
      if (item.seq === undefined && item.from === undefined) continue;
      // This room had lost it, and another room still found it.
      if (item.isMulti && item.seq < next && isLost(item.seq)) continue;
      skipOwn(item.seq ?? item.from);
      if (item.seq === undefined) {
        assert.equal(item.from, next, `${hint}: ${room} ${JSON.stringify(told[room])}`);
        next = item.to + 1;
      } else {
        assert.equal(item.seq, next, `${hint}: ${room} ${JSON.stringify(told[room])}`);
        next += 1;
      }
    }
    skipOwn(logs[room].length + 1);
    assert.equal(next, logs[room].length + 1, `${hint}: the end of ${room}, ${JSON.stringify(told[room])}`);
  }
  assert.ok(yielded >= 0);
}

test('gaps without end are held to the bound', () => {
  const { tracker, told } = setUp({ holdMax: 10 });
  tracker.start('a', { epoch: 'e', seq: 0 });
  for (let seq = 2; seq <= 2000; seq += 2) {
    tracker.gap('a', seq, seq);
    assert.ok(tracker.waiting('a') <= 11);
  }
  assert.equal(told(), '?a1');
  tracker.fill('a', answer('a', 2000, [message('a', 2)]));
  assert.equal(told(), 'a2 ?a2');
  tracker.unfilled('a');
  for (let asked = told(); asked.includes('?'); asked = told()) tracker.unfilled('a');
  assert.equal(tracker.room('a').seq, 2000);
});

test('pages that bring nothing new end the search', () => {
  for (const page of [[], [message('a', 1), message('a', 2)], [message('a', 1000)]]) {
    const { tracker, told } = setUp();
    tracker.start('a', { epoch: 'e', seq: 2 });
    tracker.gap('a', 0, 9);
    assert.equal(told(), '?a2');
    tracker.fill('a', answer('a', 9, page));
    assert.equal(told(), '!a3-9');
  }
});
