/** Event streams: what comes of them does not depend on where the network cuts them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EventParser, EventTooLarge } from '../src/event-parser.js';
import { generator } from './environment.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1e6);

/** The events of these pieces of a stream. */
function read(pieces, lengthMax = 1_000) {
  const events = [];
  const parser = new EventParser({ event: (name, data) => events.push([name, data]), lengthMax });
  for (const piece of pieces) parser.push(typeof piece === 'string' ? Buffer.from(piece) : piece);
  return events;
}

test('events, fields and comments', () => {
  assert.deepEqual(read(['data: a\n\n']), [['message', 'a']]);
  assert.deepEqual(read(['event: ping\ndata: {}\n\ndata: b\n\n']), [['ping', '{}'], ['message', 'b']]);
  assert.deepEqual(read(['data: a\ndata: b\ndata:\ndata\n\n']), [['message', 'a\nb\n\n']]);
  assert.deepEqual(read(['data:a\n\ndata:  a: b\n\n']), [['message', 'a'], ['message', ' a: b']]);
  assert.deepEqual(read([': hello\n:\ndata: a\n: there\n\n']), [['message', 'a']]);
  assert.deepEqual(read(['id: 1\nretry: 5\nother: x\nnothing\n data: b\ndata: a\n\n']), [['message', 'a']]);
  assert.deepEqual(read(['\uFEFFdata: a\n\n\uFEFFdata: b\n\n']), [['message', 'a']]);
});

test('an event without data is none, and its name is forgotten', () => {
  assert.deepEqual(read(['event: ping\n\ndata: a\n\n\n\n']), [['message', 'a']]);
  assert.deepEqual(read(['event: ping\nevent:\ndata\n\n']), [['message', '']]);
});

test('what is not complete at the end is none', () => {
  assert.deepEqual(read(['data: a\n\ndata: b\n']), [['message', 'a']]);
});

test('a line ends with CR, LF or both', () => {
  assert.deepEqual(read(['data: a\rdata: b\r\rdata: c\r\ndata: d\n\r\n']), [['message', 'a\nb'], ['message', 'c\nd']]);
  assert.deepEqual(read(['data: a\r', '\ndata: b\r', '\n\r', '\ndata: c\n\n']), [['message', 'a\nb'], ['message', 'c']]);
  // No bytes do not part a CR from its LF.
  assert.deepEqual(read(['data: a\r', '', '\ndata: b\n\n']), [['message', 'a\nb']]);
});

test(`a stream cut anywhere is the same stream, seed ${SEED}`, () => {
  const random = generator(SEED);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const CHARACTERS = ['a', ':', ' ', 'é', '☕', '🫖', '"', '0'];
  for (let round = 0; round < 300; round += 1) {
    const expected = [];
    let text = '';
    const line = (content) => {
      // An empty line that ends with an LF would end the line before, after a CR.
      const isAfterCr = content === '' && text.endsWith('\r');
      text += content + pick(isAfterCr ? ['\r\n', '\r'] : ['\n', '\r\n', '\r']);
    };
    const word = () => Array.from({ length: Math.floor(random() * 6) }, () => pick(CHARACTERS)).join('');
    for (let event = 0; event < 4; event += 1) {
      const name = pick(['', 'ping', 'closed']);
      const data = Array.from({ length: 1 + Math.floor(random() * 3) }, word);
      if (random() < 0.3) line(`: ${word()}`);
      if (name) line(`event: ${name}`);
      for (const part of data) line(`data: ${part}`);
      line('');
      expected.push([name || 'message', data.join('\n')]);
    }
    const bytes = Buffer.from(text);
    for (let way = 0; way < 4; way += 1) {
      const pieces = [];
      for (let at = 0; at < bytes.length; ) {
        const length = way === 0 ? 1 : way === 1 ? bytes.length : 1 + Math.floor(random() * 9);
        pieces.push(bytes.subarray(at, at + length));
        at += length;
      }
      assert.deepEqual(read(pieces), expected, JSON.stringify(text));
    }
  }
});

test('an event may be as large as the bound, and no larger, in however many pieces', () => {
  const data = 'x'.repeat(94);
  assert.deepEqual(read([`data: ${data}\n\ndata: ${data}\n\n`], 100), [['message', data], ['message', data]]);
  for (const text of [`data: ${data}x\n\n`, `data: ${data}x`, `data: ${'x'.repeat(40)}\ndata: ${'x'.repeat(60)}`, 'event: a\n'.repeat(20)]) {
    assert.throws(() => read([text], 100), EventTooLarge);
    assert.throws(() => read([...text], 100), EventTooLarge);
  }
  // Comments take no room, however many.
  assert.deepEqual(read([':hello\n'.repeat(1_000), 'data: a\n\n'], 100), [['message', 'a']]);
});

test('a large line in many pieces takes no more time than it must', () => {
  const piece = Buffer.from('x'.repeat(100));
  const started = performance.now();
  const pieces = Array.from({ length: 100_000 }, () => piece);
  assert.equal(read([Buffer.from('data: '), ...pieces, Buffer.from('\n\n')], Infinity)[0][1].length, 10_000_000);
  assert.ok(performance.now() - started < 5_000);
});
