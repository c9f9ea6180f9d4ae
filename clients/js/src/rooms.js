/** The rooms that the program has asked for one by one, with `client.room`. */
import { RustySocksError } from './errors.js';
import { Room } from './room.js';
import { Subscription } from './subscription.js';

export class Rooms {
  // One for each room with users.
  #subscriptions = new Map();
  #link;

  /**
   * `link` is what rooms need of the client:
   *
   * - `join(room, options, {joined, withdrawn})`, `watch(room, isOn, done)` and `leave(room)` send
   *   commands; `joined(answer, isOurs)` and `done(answer)` are called before anything else is read;
   * - `isIn(room)` and `position(room)` say where the client is, and `closedError()` why it is nowhere
   *   any more, or `null`;
   * - `hold(loops, isFull)` stops what is yielded, and `receivedBytes()` counts what has come;
   * - `client`, `clock`, `options`, `lingerMs` and `membersMax`.
   */
  constructor(link) {
    this.#link = link;
  }

  /** A room for one more user. Until it is joined, it is known to nobody but its user. */
  open(name) {
    return new Room(name, this.#link, () => this.#subscription(name));
  }

  /** Takes a message that the client yields. */
  message(message) {
    if (this.#subscriptions.size === 0) return;
    for (const { room, seq } of message.rooms ?? [message]) {
      // A listener may have left it, or it is still to be joined.
      const subscription = this.#link.isIn(room) ? this.#subscriptions.get(room) : undefined;
      // Each room has it with its own number, however many rooms it was published to.
      if (subscription) subscription.message(room === message.room ? message : { ...message, room, seq });
    }
  }

  /** Takes any other event of the client. */
  event(name, event) {
    if (name === 'lost' || name === 'joined' || name === 'left' || name === 'presence') {
      this.#subscriptions.get(event.room)?.event(name, event);
    } else if (name === 'session') {
      for (const subscription of this.#subscriptions.values()) subscription.sessionBegan();
    } else if (name === 'dropped') {
      const text = `the server does not let this client be in ${event.room} any more: ${event.code}`;
      this.#check(new RustySocksError(event.code, text));
    }
  }

  live() {
    for (const subscription of [...this.#subscriptions.values()]) subscription.live();
  }

  /** Some rooms were left by the program, by their names or with a pattern. */
  left(names) {
    for (const name of names) this.#subscriptions.get(name)?.ended(null);
  }

  /** The client has ended; `error` is `null` if the program has closed it. */
  end(error, reason) {
    for (const subscription of [...this.#subscriptions.values()]) subscription.ended(error, reason);
  }

  /** Ends the rooms that the client is not in any more. */
  #check(error) {
    for (const [name, subscription] of [...this.#subscriptions]) {
      if (subscription.isIn && !this.#link.isIn(name)) subscription.ended(error);
    }
  }

  #subscription(name) {
    let subscription = this.#subscriptions.get(name);
    if (!subscription) {
      subscription = new Subscription(name, this.#link, () => {
        if (this.#subscriptions.get(name) === subscription) this.#subscriptions.delete(name);
      });
      this.#subscriptions.set(name, subscription);
    }
    return subscription;
  }
}
