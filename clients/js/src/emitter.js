/** Listeners by event name. */
export class Emitter {
  #listeners = new Map();

  /** Calls `listener` with each event of this name from now on; what it returns ends that. */
  on(name, listener, { signal } = {}) {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    if (signal?.aborted) return () => {};
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    listeners.add(listener);
    const off = () => this.off(name, listener);
    signal?.addEventListener('abort', off, { once: true });
    return off;
  }

  /** As `on`, for the next event alone. */
  once(name, listener, options) {
    const off = this.on(
      name,
      (event) => {
        off();
        listener(event);
      },
      options,
    );
    return off;
  }

  off(name, listener) {
    this.#listeners.get(name)?.delete(listener);
  }

  emit(name, event) {
    // A copy, because a listener may add and remove listeners.
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        // As EventTarget does it: the fault of one listener is reported, and stops nobody else.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
