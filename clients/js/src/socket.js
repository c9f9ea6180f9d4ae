/** Which WebSocket to use, and one face for all of them. */

/**
 * A function `(url) => socket`. The socket has `send`, `bufferedAmount`, `close(code, reason)`,
 * `terminate()` and the handlers `onopen`, `onmessage`, `onlife`, `onclose`, as described at
 * `NodeSocket`.
 */
export async function socketFactory({ WebSocket, headers, protocols, messageBytesMax }) {
  if (WebSocket) return (url) => new StandardSocket(WebSocket, url, protocols);
  if (globalThis.process?.versions?.node && !globalThis.window) {
    const { NodeSocket } = await import('./node-socket.js');
    return (url) => new NodeSocket(url, { headers, protocols, messageBytesMax });
  }
  if (!globalThis.WebSocket) throw new TypeError('there is no WebSocket here; give one with the option WebSocket');
  return (url) => new StandardSocket(globalThis.WebSocket, url, protocols);
}

// "No pong": the server keeps the session after a close with this code, should the frame ever arrive.
const GIVEN_UP = 4201;

/** A WebSocket as browsers have it. */
class StandardSocket {
  onopen = null;
  onmessage = null;
  onlife = null;
  onclose = null;
  #socket;
  #isOver = false;

  constructor(WebSocket, url, protocols) {
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onopen = () => this.#isOver || this.onopen?.();
    this.#socket.onmessage = ({ data }) => this.#isOver || this.onmessage?.({ data });
    this.#socket.onclose = ({ code, reason }) => this.#over({ code, reason: reason || 'the connection was lost' });
    // A close event follows, and has what there is to know.
    this.#socket.onerror = () => {};
  }

  get bufferedAmount() {
    return this.#socket.bufferedAmount;
  }

  send(text) {
    this.#socket.send(text);
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** A page cannot cut its connection, so this one is closed and no longer listened to. */
  terminate() {
    this.#over({ code: 1006, reason: 'given up' });
    this.#socket.close(GIVEN_UP);
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onclose?.(end);
  }
}
