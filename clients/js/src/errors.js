// The package may be loaded twice in a program, by `import` and by `require`, with a class each.
const BRAND = Symbol.for('rusty-socks.RustySocksError');

/**
 * The error with which a promise of the client is rejected.
 *
 * `code` is one of the server's error codes, or one of the client's own: `closed`, `left`, `stopped`, `outbox_full`,
 * `answer_lost`, `too_large`, `misbehaved`, `timeout`, `aborted`.
 */
export class RustySocksError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = 'RustySocksError';
    this.code = code;
    Object.assign(this, details);
  }

  get [BRAND]() {
    return true;
  }

  /** An error of the one class is one of the other too. */
  static [Symbol.hasInstance](value) {
    if (this === RustySocksError) return value?.[BRAND] === true;
    return Function.prototype[Symbol.hasInstance].call(this, value);
  }
}

/** The error for an `error` frame of the server. */
export function refusal(frame) {
  const details = frame.retry_after_ms === undefined ? {} : { retryAfterMs: frame.retry_after_ms };
  return new RustySocksError(frame.code, frame.message ?? frame.code, details);
}
