/** A room as one user of it sees it: a part of a page, or of a program. */
import * as commands from './command.js';
import { Emitter } from './emitter.js';
import { Loops } from './queue.js';
import { leftBefore } from './subscription.js';
import { waitFault } from './wait.js';

export class Room {
  #name;
  #link;
  // Gives the subscription that all users of the room share.
  #shared;
  #emitter = new Emitter();
  // `out`, `joining` or `joined`.
  #state = 'out';
  #error = null;
  // Whether `join` was called: then the room is kept until `leave`, and not only while a loop runs.
  #isKept = false;
  // What waits for the loops, from `join` to `leave`.
  #loops = null;
  #open = new Set();
  #seenBytes = 0;
  // What is the subscription's to call.
  #user = {
    wantsPresence: false,
    message: (message) => this.#message(message),
    event: (name, event) => this.#emitter.emit(name, event),
    entered: () => this.#setState('joined', null),
    ended: (error) => this.#end(error),
  };

  /** `shared()` gives the subscription of this room; for `link` see `Rooms`. */
  constructor(name, link, shared) {
    this.#name = name;
    this.#link = link;
    this.#shared = shared;
  }

  get name() {
    return this.#name;
  }

  get state() {
    return this.#state;
  }

  get error() {
    return this.#error;
  }

  get members() {
    return this.#members?.list ?? null;
  }

  get memberCount() {
    return this.#members?.count ?? null;
  }

  on(name, listener, options) {
    return this.#emitter.on(name, listener, options);
  }

  once(name, listener, options) {
    return this.#emitter.once(name, listener, options);
  }

  off(name, listener) {
    this.#emitter.off(name, listener);
  }

  async join(options) {
    // Checked here, because it is the first join alone that is sent.
    commands.join(this.#name, options);
    const fault = waitFault(options);
    if (fault) throw fault;
    this.#isKept = true;
    return this.#enter(options ?? {});
  }

  /** Ends what this user gets, its loops included. */
  async leave() {
    return this.#end(null);
  }

  publish(content, options) {
    return this.#link.client.publish(this.#name, content, options);
  }

  history(options) {
    return this.#link.client.history(this.#name, options);
  }

  [Symbol.asyncIterator]() {
    const loops = this.#begin();
    const iterator = loops.open();
    this.#open.add(iterator);
    if (this.#state === 'out') this.#enter({}).catch(() => {});
    const leave = iterator.return;
    iterator.return = (value) => {
      const wasOpen = this.#open.delete(iterator);
      if (wasOpen && this.#open.size === 0 && !this.#isKept) this.#end(null);
      return leave(value);
    };
    return iterator;
  }

  get #members() {
    return this.#user.wantsPresence ? this.#shared().members : null;
  }

  #enter(options) {
    if (options.presence) this.#user.wantsPresence = true;
    const loops = this.#begin();
    const closed = this.#state === 'out' ? this.#link.closedError() : null;
    if (closed) {
      // Always the same error: a listener that joins again is not told again.
      this.#end(closed);
      return Promise.reject(closed);
    }
    if (this.#state === 'out') this.#setState('joining', null);
    // A listener may have left it.
    if (this.#loops !== loops) return Promise.reject(leftBefore(this.#name));
    return this.#shared().enter(this.#user, options);
  }

  #begin() {
    if (this.#loops === null) {
      this.#seenBytes = this.#link.receivedBytes();
      const loops = new Loops({
        ...this.#link.options,
        hold: (isFull) => this.#link.hold(loops, isFull),
        lost: (range) => this.#emitter.emit('lost', range),
      });
      this.#loops = loops;
    }
    return this.#loops;
  }

  #end(error) {
    const loops = this.#loops;
    if (loops === null) return Promise.resolve();
    this.#loops = null;
    this.#isKept = false;
    this.#open.clear();
    // Of what was on its way nothing is yielded any more.
    loops.forget(new Set([this.#name]));
    loops.end(error);
    const left = this.#state === 'out' ? Promise.resolve() : this.#shared().leave(this.#user);
    this.#user.wantsPresence = false;
    this.#setState('out', error);
    return left;
  }

  #message(message) {
    this.#emitter.emit('message', message);
    // A listener may have left the room.
    const loops = this.#loops;
    // Where there are listeners alone, nobody will read what is kept for a loop.
    if (loops === null || (this.#open.size === 0 && this.#emitter.has('message'))) return;
    const { room, seq } = message;
    loops.push(message, [{ room, seq, epoch: this.#link.position(room)?.epoch }]);
    const bytes = this.#link.receivedBytes();
    loops.received(bytes - this.#seenBytes);
    this.#seenBytes = bytes;
  }

  #setState(state, error) {
    if (state === this.#state && error === this.#error) return;
    this.#state = state;
    this.#error = error;
    this.#emitter.emit('state', error ? { state, error } : { state });
  }
}
