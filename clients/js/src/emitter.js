/** Listeners by event name. */
export class Emitter {
  // Each name's registrations, in the order in which they were made. The arrays are replaced, never
  // changed: a listener may add and remove listeners.
  #registrations = new Map();
  #isClosed = false;

  /**
   * Calls `listener` with each later event of this name. Returns a function that ends this, and that
   * may be called again. As in Node, a function that is added twice is called twice.
   */
  on(name, listener, options) {
    return this.#add(name, listener, options, false);
  }

  /** Like `on`, but for the next event only. */
  once(name, listener, options) {
    return this.#add(name, listener, options, true);
  }

  /**
   * Ends the latest registration of `listener`, by `on` or by `once`; does nothing if there is
   * none.
   */
  off(name, listener) {
    const registration = this.#registrations.get(name)?.findLast((candidate) => candidate.listener === listener);
    registration?.end();
  }

  /** Whether there is a listener for this name. */
  has(name) {
    return this.#registrations.has(name);
  }

  emit(name, event) {
    for (const registration of this.#registrations.get(name) ?? []) {
      // As in EventTarget: a listener that an earlier one has removed is not called.
      if (registration.hasEnded) continue;
      if (registration.isOnce) registration.end();
      try {
        registration.listener(event);
      } catch (error) {
        // As in EventTarget: an error of one listener is reported, and the others are still called.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** Ends all registrations. Later ones have no effect. */
  close() {
    this.#isClosed = true;
    for (const registration of [...this.#registrations.values()].flat()) registration.end();
  }

  #add(name, listener, { signal } = {}, isOnce) {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    if (signal?.aborted || this.#isClosed) return () => {};
    const registration = { listener, isOnce, hasEnded: false };
    registration.end = () => {
      if (registration.hasEnded) return;
      registration.hasEnded = true;
      signal?.removeEventListener('abort', registration.end);
      const rest = this.#registrations.get(name).filter((other) => other !== registration);
      if (rest.length > 0) this.#registrations.set(name, rest);
      else this.#registrations.delete(name);
    };
    signal?.addEventListener('abort', registration.end);
    this.#registrations.set(name, [...(this.#registrations.get(name) ?? []), registration]);
    return registration.end;
  }
}
