import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';

import { Emitter } from '../src/emitter.js';

const aborts = (signal) => getEventListeners(signal, 'abort').length;

/** An emitter, a listener that notes its events, and the notes. */
function make() {
  const seen = [];
  return { emitter: new Emitter(), seen, note: (event) => seen.push(event) };
}

test('off ends what on and once began, and nothing else', () => {
  const { emitter, seen, note } = make();
  emitter.on('a', note);
  emitter.off('a', note);
  emitter.once('a', note);
  emitter.off('a', note);
  emitter.on('b', note);
  emitter.off('a', note);
  emitter.off('c', note);
  emitter.emit('a', 1);
  emitter.emit('b', 2);
  assert.deepEqual(seen, [2]);
});

test('once is called once, though it causes the next event itself', () => {
  const { emitter, seen } = make();
  emitter.once('a', (event) => {
    seen.push(event);
    emitter.emit('a', event + 1);
  });
  emitter.emit('a', 1);
  emitter.emit('a', 3);
  assert.deepEqual(seen, [1]);
});

test('a function that is added twice is called twice, and off takes one of them', () => {
  const { emitter, seen, note } = make();
  const [first, second] = [emitter.on('a', note), emitter.on('a', note)];
  emitter.emit('a', 1);
  first();
  first();
  emitter.emit('a', 2);
  second();
  emitter.emit('a', 3);
  assert.deepEqual(seen, [1, 1, 2]);
  emitter.on('a', note);
  emitter.once('a', note);
  emitter.off('a', note);
  emitter.emit('a', 4);
  emitter.emit('a', 5);
  assert.deepEqual(seen.slice(3), [4, 5], 'the latest is taken, which was the one of once');
});

test('what an event adds and removes holds from the next listener on', () => {
  const { emitter, seen, note } = make();
  emitter.on('a', () => {
    emitter.off('a', note);
    emitter.on('a', (event) => seen.push(`late ${event}`));
  });
  emitter.on('a', note);
  emitter.emit('a', 1);
  assert.deepEqual(seen, []);
  emitter.emit('a', 2);
  assert.deepEqual(seen, ['late 2']);
});

test('a signal ends its listeners', () => {
  const { emitter, seen, note } = make();
  const abort = new AbortController();
  emitter.on('a', note, { signal: abort.signal });
  emitter.once('a', note, { signal: abort.signal });
  abort.abort();
  emitter.on('a', note, { signal: abort.signal });
  emitter.emit('a', 1);
  assert.deepEqual(seen, []);
  assert.equal(aborts(abort.signal), 0);
});

test('nothing stays at a signal of what was spent, removed or closed', () => {
  const { emitter, note } = make();
  const { signal } = new AbortController();
  for (let i = 0; i < 100; i += 1) {
    emitter.once('spent', note, { signal });
    emitter.on('removed', note, { signal });
    emitter.off('removed', note);
    emitter.on('ended', note, { signal })();
  }
  emitter.emit('spent', 1);
  assert.equal(aborts(signal), 0);
  for (const name of ['a', 'b']) emitter.on(name, note, { signal });
  assert.equal(aborts(signal), 2);
  emitter.close();
  assert.equal(aborts(signal), 0);
  emitter.on('a', note, { signal });
  assert.equal(aborts(signal), 0);
});

test('a listener that throws stops nobody, and its fault is reported', async (t) => {
  const { emitter, seen, note } = make();
  const faults = [];
  t.mock.method(globalThis, 'queueMicrotask', (run) => {
    try {
      run();
    } catch (error) {
      faults.push(error.message);
    }
  });
  for (const add of ['on', 'once']) {
    emitter[add]('a', () => {
      throw new Error(`from ${add}`);
    });
  }
  emitter.on('a', note);
  emitter.emit('a', 1);
  emitter.emit('a', 2);
  assert.deepEqual([seen, faults], [[1, 2], ['from on', 'from once', 'from on']]);
});

test('what is no function is refused, and breaks nothing', () => {
  const { emitter, seen, note } = make();
  emitter.on('a', note);
  for (const add of ['on', 'once']) assert.throws(() => emitter[add]('a', undefined), TypeError);
  emitter.emit('a', 1);
  assert.deepEqual(seen, [1]);
});
