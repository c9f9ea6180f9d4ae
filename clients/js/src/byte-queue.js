const NOTHING = Buffer.alloc(0);

/**
 * Bytes that are added at the end and taken from the front.
 *
 * One buffer holds all bytes, so that any number of small pieces takes at most twice the memory of
 * their bytes.
 */
export class ByteQueue {
  #buffer = NOTHING;
  #start = 0;
  #end = 0;
  // A piece added to an empty queue is not copied, and nothing may be written after it.
  #isOwn = false;

  get length() {
    return this.#end - this.#start;
  }

  push(piece) {
    if (this.length === 0) {
      this.#buffer = piece;
      this.#start = 0;
      this.#end = piece.length;
      this.#isOwn = false;
      return;
    }
    if (!this.#isOwn || this.#end + piece.length > this.#buffer.length) this.#grow(piece.length);
    piece.copy(this.#buffer, this.#end);
    this.#end += piece.length;
  }

  /** The first `count` bytes, left where they are. There must be as many. */
  peek(count) {
    return this.#buffer.subarray(this.#start, this.#start + count);
  }

  /**
   * Takes the first `count` bytes, which must exist. The returned bytes are not overwritten later.
   */
  take(count) {
    const bytes = this.peek(count);
    this.#start += count;
    // An idle queue keeps no buffer.
    if (this.length === 0) this.#buffer = NOTHING;
    return bytes;
  }

  /**
   * Makes space for `count` more bytes, by doubling: amortised, each byte is moved a bounded number
   * of times.
   */
  #grow(count) {
    const { length } = this;
    const grown = Buffer.allocUnsafe(Math.max(length * 2, length + count));
    this.#buffer.copy(grown, 0, this.#start, this.#end);
    this.#buffer = grown;
    this.#start = 0;
    this.#end = length;
    this.#isOwn = true;
  }
}
