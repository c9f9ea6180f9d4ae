import { Weight, weightOf } from './weight.js';

/** The messages that wait for one `for await` loop. */
class Queue {
  /** How many may wait. */
  max;
  #items;
  #readers = [];
  #end = null;
  #onRead;
  #onReturn;

  /**
   * `onRead()` is called when an item was taken, `onReturn(items)` when the loop was left, with
   * what it did not read.
   */
  constructor(items, { max, onRead, onReturn }) {
    this.max = max;
    this.#items = items;
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

  get weight() {
    return weigh(this.#items);
  }

  /** Changes the waiting items. */
  change(rest) {
    this.#items = rest(this.#items);
  }

  /** Ends the queue. Waiting items can still be read; then `error` is thrown, if there is one. */
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
    const unread = this.#items;
    this.#items = [];
    this.end();
    this.#end = { error: null };
    this.#onReturn(unread);
    return { value, done: true };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  #finish({ resolve, reject }) {
    const { error } = this.#end;
    if (!error) return resolve({ value: undefined, done: true });
    // Thrown once; after that the iterator is done.
    this.#end = { error: null };
    reject(error);
  }
}

/**
 * All `for await` loops of a client. While there is none, the newest messages wait for the next one:
 * a loop begins where the previous one ended, and the first one where the client began.
 */
export class Loops {
  #queues = new Set();
  #backlog = [];
  // The range of each room that did not fit the backlog: `{room, epoch, from, to}`.
  #unread = new Map();
  #end = null;
  #queueMax;
  #queueBytesMax;
  #weight;
  #backlogMax;
  #hold;
  #lost;

  /**
   * `hold(isFull)` is called when a loop has fallen behind as far as it may, and when it has caught
   * up; `lost(range)` reports what no loop will yield.
   */
  constructor({ queueMax, queueBytesMax, backlogMax, hold, lost }) {
    this.#queueMax = queueMax;
    this.#queueBytesMax = queueBytesMax;
    this.#weight = new Weight(queueBytesMax);
    this.#backlogMax = backlogMax;
    this.#hold = hold;
    this.#lost = lost;
  }

  /**
   * Adds a message with its places: `{room, seq, epoch}` for each followed room that it counts in.
   */
  push(message, places) {
    for (const queue of this.#queues) queue.push({ message, places });
    if (this.#queues.size === 0) {
      this.#backlog.push({ message, places });
      this.#trim();
    } else if (this.#isFull()) this.#hold(true);
  }

  /**
   * Counts bytes that have come, with messages or without. A backlog that is too large in total
   * loses its older half, and a queue that is too large counts as full.
   */
  received(bytes) {
    if (!this.#weight.isDue(bytes)) return;
    if (weigh(this.#backlog) > this.#queueBytesMax) this.#drop(this.#backlog.length / 2);
    for (const queue of this.#queues) {
      if (queue.weight > this.#queueBytesMax) queue.max = Math.min(queue.max, queue.length);
    }
    if (this.#isFull()) this.#hold(true);
  }

  /** An iterator of messages. */
  open() {
    const queue = new Queue(this.#backlog, {
      max: this.#queueMax,
      onRead: () => {
        if (queue.length > queue.max / 2) return;
        queue.max = this.#queueMax;
        this.#look();
      },
      onReturn: (unread) => this.#close(queue, unread),
    });
    const unread = [...this.#unread.values()];
    this.#backlog = [];
    this.#unread.clear();
    this.#queues.add(queue);
    if (this.#end) queue.end(this.#end.error);
    if (this.#isFull()) this.#hold(true);
    for (const range of unread) this.#lost({ ...range, reason: 'not_read' });
    return iterator(queue);
  }

  /** Drops the waiting messages that belong to no other rooms than these, which were left. */
  forget(rooms) {
    const rest = (items) =>
      items
        .map(({ message, places }) => ({ message, places: places.filter(({ room }) => !rooms.has(room)) }))
        .filter(({ places }) => places.length > 0);
    for (const queue of this.#queues) queue.change(rest);
    this.#backlog = rest(this.#backlog);
    for (const room of rooms) this.#unread.delete(room);
    this.#look();
  }

  /** The client has ended. Waiting messages can still be read. */
  end(error) {
    this.#end = { error };
    for (const queue of this.#queues) queue.end(error);
  }

  #close(queue, unread) {
    if (!this.#queues.delete(queue)) return;
    if (this.#queues.size === 0) {
      this.#backlog = unread;
      this.#trim();
    }
    this.#look();
  }

  #trim() {
    this.#drop(Math.max(0, this.#backlog.length - this.#backlogMax));
  }

  /** Drops the oldest `count` messages of the backlog. */
  #drop(count) {
    for (const { places } of this.#backlog.splice(0, Math.ceil(count))) {
      for (const { room, epoch, seq } of places) {
        const range = this.#unread.get(room);
        // If a new epoch gives numbers again, those of the earlier one were reported as lost when it
        // began; otherwise its numbers go on.
        if (range && (range.epoch === epoch || seq > range.to)) Object.assign(range, { epoch, to: Math.max(range.to, seq) });
        else this.#unread.set(room, { room, epoch, from: seq, to: seq });
      }
    }
  }

  #isFull() {
    for (const { length, max } of this.#queues) if (length >= max) return true;
    return false;
  }

  #look() {
    if (!this.#isFull()) this.#hold(false);
  }
}

function weigh(items) {
  return items.reduce((sum, { message }) => sum + weightOf(message), 0);
}

/** A queue's messages, without what the queue keeps beside them. */
function iterator(queue) {
  return {
    next: () => queue.next().then(({ value, done }) => ({ value: value?.message, done })),
    return: (value) => queue.return(value),
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
