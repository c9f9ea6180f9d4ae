/** The messages that wait for one `for await` loop. */
export class Queue {
  #items = [];
  #readers = [];
  #end = null;
  #onRead;
  #onReturn;

  /** `onRead` is called when an item was taken, `onReturn` when the loop was left. */
  constructor({ onRead, onReturn }) {
    this.#onRead = onRead;
    this.#onReturn = onReturn;
  }

  get length() {
    return this.#items.length;
  }

  push(value) {
    if (this.#end) return;
    const reader = this.#readers.shift();
    if (reader) reader.resolve({ value, done: false });
    else this.#items.push(value);
  }

  /** No more comes; what waits can still be read, and then `error` is thrown if there is one. */
  end(error = null) {
    if (this.#end) return;
    this.#end = { error };
    for (const reader of this.#readers.splice(0)) this.#finish(reader);
  }

  next() {
    return new Promise((resolve, reject) => {
      const reader = { resolve, reject };
      if (this.#items.length > 0) {
        resolve({ value: this.#items.shift(), done: false });
        this.#onRead();
      } else if (this.#end) {
        this.#finish(reader);
      } else {
        this.#readers.push(reader);
      }
    });
  }

  async return(value) {
    this.#items = [];
    this.end();
    this.#onReturn();
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  #finish({ resolve, reject }) {
    const { error } = this.#end;
    if (!error) return resolve({ value: undefined, done: true });
    // Told once; whoever goes on asking is simply at the end.
    this.#end = { error: null };
    reject(error);
  }
}
