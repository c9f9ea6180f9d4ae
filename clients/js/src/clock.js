// A timer beyond this would ring at once.
export const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** Time. Another clock can be given for tests; see `index.d.ts`. */
export const systemClock = {
  now: () => performance.now(),
  date: () => Date.now(),
  setTimeout: (run, ms) => setTimeout(run, Math.min(ms, TIMEOUT_MS_MAX)),
  clearTimeout: (timer) => clearTimeout(timer),
};

// How late a timer may be on a machine that is busy, in milliseconds.
const LATE_MS = 5_000;

/**
 * Calls `run(wasLate)` after `ms`. `wasLate` says that the machine slept meanwhile, or that the page
 * was frozen. The date tells, because on most systems the other clock stops during sleep.
 */
export function setDatedTimeout(clock, run, ms) {
  const date = () => clock.date?.() ?? clock.now();
  const due = date() + ms;
  return clock.setTimeout(() => run(date() - due > LATE_MS), ms);
}
