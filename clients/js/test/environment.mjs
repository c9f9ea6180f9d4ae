/** What the tests are told from outside, and checks that work in Node and in a page alike. */

/** The longest that anything here may take; who reaches it hangs. */
export const DEADLINE_MS = 20_000;

/** Waits until `look()` gives something true, and gives that. `what` names it; a function is asked when it did not come. */
export async function until(what, look, deadlineMs = DEADLINE_MS) {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (performance.now() > end) throw new Error(`no ${typeof what === 'function' ? what() : what} within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits for a promise, for so long. */
export async function within(what, promise, deadlineMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${deadlineMs} ms`)), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export function equal(actual, expected, what = 'values') {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what} differ:\n  got      ${a}\n  expected ${b}`);
}

export function ok(value, what) {
  if (!value) throw new Error(what);
}

export async function rejects(promise, code) {
  const error = await promise.then(
    () => null,
    (reason) => reason,
  );
  equal(error?.code, code, 'error codes');
  return error;
}

/** A generator of numbers in [0, 1) that gives the same ones for the same seed. */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
