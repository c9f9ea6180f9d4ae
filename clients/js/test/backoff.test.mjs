import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, verdict } from '../src/backoff.js';
import { retryAfter } from '../src/retry-after.js';

const backoff = (random = () => 1) => new Backoff({ baseMs: 250, capMs: 30_000, settledMs: 5000, random });

test('what an end means', () => {
  const expected = {
    stop: [1000, 1002, 1003, 1007, 1008, 1009, 4000, 4001, 4003, 4008, 4009, 4010, 4099],
    back_off: [1001, 1005, 1006, 1011, 1012, 1013, 3000, 4100, 4101, 4102, 4199, 4300],
    at_once: [4200, 4201, 4202, 4203, 4299],
  };
  for (const [means, codes] of Object.entries(expected)) {
    for (const code of codes) assert.equal(verdict({ code }), means, `close code ${code}`);
  }
  for (const status of [200, 301, 400, 401, 403, 404, 407, 409, 410, 426, 431]) assert.equal(verdict({ code: 1006, status }), 'stop');
  for (const status of [408, 425, 429, 500, 502, 503, 504, 599]) assert.equal(verdict({ code: 1006, status }), 'back_off');
});

test('the window doubles up to its cap, and jitter is full', () => {
  const ends = backoff();
  const delays = Array.from({ length: 9 }, () => ends.after({ code: 1006 }));
  assert.deepEqual(delays, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
  const least = backoff(() => 0);
  assert.deepEqual([1, 2, 3].map(() => least.after({ code: 1006 })), [0, 0, 0]);
  const half = backoff(() => 0.5);
  assert.deepEqual([1, 2, 3].map(() => half.after({ code: 1006 })), [125, 250, 500]);
});

test('a thousand failures do not overflow', () => {
  const ends = backoff();
  for (let i = 0; i < 2000; i += 1) ends.after({ code: 1006 });
  assert.equal(ends.after({ code: 1006 }), 30_000);
});

test('only a session that lasted begins anew', () => {
  const ends = backoff();
  ends.after({ code: 1006 });
  ends.after({ code: 1006 });
  assert.equal(ends.after({ code: 1006, livedMs: 4999 }), 1000);
  assert.equal(ends.after({ code: 1006, livedMs: 5000 }), 250);
  assert.equal(ends.after({ code: 1006 }), 500);
});

test('42xx comes back at once, but only once', () => {
  const ends = backoff();
  assert.equal(ends.after({ code: 4201, livedMs: 60_000 }), 0);
  assert.equal(ends.after({ code: 4201, livedMs: 10 }), 500);
  assert.equal(ends.after({ code: 4201, livedMs: 5000 }), 0);
});

test('reconnect_after_ms is taken as it is, and Retry-After is a floor', () => {
  const ends = backoff();
  assert.equal(ends.after({ code: 1001, reconnectAfterMs: 1234 }), 1234);
  assert.equal(ends.after({ code: 1006, status: 503, retryAfterMs: 3000 }), 3500);
  assert.equal(ends.after({ code: 1006, status: 503 }), 1000);
  // Nobody waits for a day because a header said so.
  assert.equal(ends.after({ code: 1001, reconnectAfterMs: 86_400_000 }), 600_000);
  assert.equal(ends.after({ code: 1001, reconnectAfterMs: Infinity }), 600_000);
  assert.equal(backoff().after({ code: 1001, reconnectAfterMs: -5 }), 0);
  assert.equal(backoff().after({ code: 1001, reconnectAfterMs: 'soon' }), 250);
  assert.equal(ends.after({ code: 4001, reconnectAfterMs: 5 }), null);
});

test('a server that sends everyone away at once is not hammered', () => {
  const ends = backoff();
  const delays = [1, 2, 3].map(() => ends.after({ code: 1001, reconnectAfterMs: 0 }));
  assert.deepEqual(delays, [0, 500, 1000]);
});

test('Retry-After is a number of seconds or a date', () => {
  assert.equal(retryAfter('3'), 3000);
  assert.equal(retryAfter('Sat, 21 Nov 2026 07:36:27 GMT', Date.parse('2026-11-21T07:36:17Z')), 10_000);
  assert.equal(retryAfter('Sat, 21 Nov 2026 07:36:07 GMT', Date.parse('2026-11-21T07:36:17Z')), 0);
  assert.equal(retryAfter('soon'), undefined);
  assert.equal(retryAfter(undefined), undefined);
});
