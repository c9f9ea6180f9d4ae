/** How long the caller of a command waits for its answer: `{timeoutMs, signal}`. */
import { TIMEOUT_MS_MAX } from './clock.js';
import { RustySocksError } from './errors.js';

/** A promise, with the functions that settle it beside it. */
export function settleable() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}

/** The error if the caller must not wait at all, or `null`. */
export function waitFault(wait) {
  const { timeoutMs, signal } = wait ?? {};
  const isTime = typeof timeoutMs === 'number' && timeoutMs >= 0;
  if (timeoutMs !== undefined && !isTime) {
    return new RustySocksError('bad_request', `timeoutMs must be a number of milliseconds from 0 up, not ${String(timeoutMs)}`);
  }
  if (signal && typeof signal.addEventListener !== 'function') {
    return new RustySocksError('bad_request', `signal must be an AbortSignal, not ${String(signal)}`);
  }
  return signal?.aborted ? aborted(signal, false) : null;
}

/**
 * Calls `end(makeError)` when the time is up or the signal is aborted, unless `settleable` was
 * resolved or rejected before. `makeError(wasSent)` makes the error of the rejection. No listener
 * stays on the signal.
 */
export function boundWait(settleable, { timeoutMs, signal, clock, end }) {
  if (timeoutMs === undefined && !signal) return;
  let timer = null;
  const onAbort = () => end((wasSent) => aborted(signal, wasSent));
  const onTime = () => end((wasSent) => timedOut(timeoutMs, wasSent));
  const { resolve, reject } = settleable;
  const release = () => {
    clock.clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  };
  settleable.resolve = (value) => {
    release();
    resolve(value);
  };
  settleable.reject = (error) => {
    release();
    reject(error);
  };
  if (timeoutMs <= TIMEOUT_MS_MAX) timer = clock.setTimeout(onTime, timeoutMs);
  signal?.addEventListener('abort', onAbort);
}

function aborted(signal, wasSent) {
  return new RustySocksError('aborted', `the wait was aborted; ${fate(wasSent)}`, { cause: signal.reason, wasSent });
}

function timedOut(timeoutMs, wasSent) {
  return new RustySocksError('timeout', `no answer within ${timeoutMs} ms; ${fate(wasSent)}`, { wasSent });
}

function fate(wasSent) {
  return wasSent ? 'the command was sent, and may be carried out' : 'the command was not sent';
}
