import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FrameReader, OPCODE, closePayload, encodeFrame } from '../src/frames.js';
import { generator } from './environment.mjs';

/** Feeds `bytes` in pieces of `size`, and gives what came out. */
function read(bytes, { size = bytes.length || 1, isMasked = false, messageBytesMax = 1 << 20 } = {}) {
  const events = [];
  const reader = new FrameReader({
    isMasked,
    messageBytesMax,
    message: (data) => events.push(['message', data]),
    close: ({ code, reason }) => events.push(['close', code, reason]),
    ping: (payload) => events.push(['ping', payload.toString()]),
    pong: (payload) => events.push(['pong', payload.toString()]),
  });
  try {
    for (let at = 0; at < bytes.length; at += size) reader.push(Buffer.from(bytes.subarray(at, at + size)));
  } catch (error) {
    events.push(['fault', error.code]);
  }
  return events;
}

const text = (value, options) => encodeFrame(OPCODE.text, Buffer.from(value), options);
const part = (opcode, value, isFinal) => encodeFrame(opcode, Buffer.from(value), { isFinal });

test('text of every length form passes, in pieces of any size', () => {
  for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]) {
    const value = 'x'.repeat(length);
    for (const size of [1, 7, 4096, 1 << 20]) {
      if (size === 1 && length > 1000) continue;
      assert.deepEqual(read(text(value), { size }), [['message', value]]);
    }
  }
});

test('a mask is taken off again', () => {
  const mask = Buffer.from([1, 2, 3, 250]);
  for (const length of [0, 5, 200, 70_000]) {
    const value = 'é'.repeat(length);
    assert.deepEqual(read(text(value, { mask }), { isMasked: true, size: 999 }), [['message', value]]);
  }
});

test('the example of RFC 6455 section 5.7', () => {
  assert.deepEqual(read(Buffer.from('810548656c6c6f', 'hex')), [['message', 'Hello']]);
  assert.deepEqual(text('Hello', { mask: Buffer.from('37fa213d', 'hex') }).toString('hex'), '818537fa213d7f9f4d5158');
  const pair = Buffer.from('010348656c80026c6f', 'hex');
  for (const size of [1, 2, 3, 9]) assert.deepEqual(read(pair, { size }), [['message', 'Hello']]);
});

test('a control frame between fragments, and a character across them', () => {
  const [first, second] = [Buffer.from('é').subarray(0, 1), Buffer.from('é').subarray(1)];
  const bytes = Buffer.concat([
    encodeFrame(OPCODE.text, first, { isFinal: false }),
    encodeFrame(OPCODE.ping, Buffer.from('p')),
    encodeFrame(OPCODE.continuation, second),
  ]);
  for (const size of [1, 100]) assert.deepEqual(read(bytes, { size }), [['ping', 'p'], ['message', 'é']]);
});

test('a byte order mark is part of the text', () => {
  assert.deepEqual(read(text('\ufeffhi')), [['message', '\ufeffhi']]);
});

test('what the RFC forbids', () => {
  const forbidden = {
    'a reserved bit (5.2)': [Buffer.from([0xc1, 0]), 1002],
    'a reserved opcode (5.2)': [Buffer.from([0x83, 0]), 1002],
    'a reserved control opcode (5.2)': [Buffer.from([0x8b, 0]), 1002],
    'a masked frame from a server (5.1)': [text('x', { mask: Buffer.alloc(4) }), 1002],
    'a length of two bytes that fits in one (5.2)': [Buffer.from([0x81, 126, 0, 125]), 1002],
    'a length of eight bytes that fits in two (5.2)': [Buffer.from([0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), 1002],
    'a length beyond all reason (5.2)': [Buffer.from([0x81, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255]), 1009],
    'a fragmented ping (5.5)': [part(OPCODE.ping, '', false), 1002],
    'a ping of 126 bytes (5.5)': [part(OPCODE.ping, 'x'.repeat(126), true), 1002],
    'a continuation of nothing (5.4)': [part(OPCODE.continuation, 'x', true), 1002],
    'a message inside a message (5.4)': [Buffer.concat([part(OPCODE.text, 'x', false), text('y')]), 1002],
    'text that is not UTF-8 (8.1)': [encodeFrame(OPCODE.text, Buffer.from([0xc3, 0x28])), 1007],
    'a surrogate in UTF-8 (8.1)': [encodeFrame(OPCODE.text, Buffer.from([0xed, 0xa0, 0x80])), 1007],
    'a close of one byte (5.5.1)': [encodeFrame(OPCODE.close, Buffer.from([3])), 1002],
    'a close code nobody may send (7.4.1)': [encodeFrame(OPCODE.close, closePayload(1006)), 1002],
    'a close code below 1000 (7.4.2)': [encodeFrame(OPCODE.close, closePayload(999)), 1002],
    'a close reason that is not UTF-8 (5.5.1)': [encodeFrame(OPCODE.close, Buffer.from([3, 232, 0xff])), 1007],
  };
  for (const [what, [bytes, code]] of Object.entries(forbidden)) {
    for (const size of [1, 1000]) assert.deepEqual(read(bytes, { size }), [['fault', code]], what);
  }
  assert.deepEqual(read(text('x'), { isMasked: true }), [['fault', 1002]], 'a frame of a client without a mask (5.1)');
});

test('a message over the bound is refused by its head, in one frame and in many', () => {
  const options = { messageBytesMax: 10 };
  assert.deepEqual(read(text('0123456789'), options), [['message', '0123456789']]);
  assert.deepEqual(read(text('0123456789x').subarray(0, 2), options), [['fault', 1009]]);
  const many = Buffer.concat([part(OPCODE.text, '012345', false), part(OPCODE.continuation, '6789x', true)]);
  assert.deepEqual(read(many, options), [['fault', 1009]]);
});

test('close codes and reasons', () => {
  for (const code of [1000, 1001, 1011, 1014, 3000, 4999]) {
    assert.deepEqual(read(encodeFrame(OPCODE.close, closePayload(code, 'why'))), [['close', code, 'why']]);
  }
  assert.deepEqual(read(encodeFrame(OPCODE.close, closePayload())), [['close', 1005, '']]);
  assert.throws(() => closePayload(1000, 'x'.repeat(124)), RangeError);
});

test('noise is refused or read, and never throws anything else', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e6);
  const random = generator(seed);
  for (let round = 0; round < 3000; round += 1) {
    const bytes = Buffer.from(Array.from({ length: Math.floor(random() * 40) }, () => Math.floor(random() * 256)));
    const whole = read(bytes);
    assert.deepEqual(read(bytes, { size: 1 }), whole, `SEED=${seed}`);
  }
});
