/** A TCP proxy that does to connections what networks do. It listens on a free port of the loopback. */
import net from 'node:net';

// A stalled direction holds back this much and then stops reading, as a full pipe would.
const HELD_BYTES_MAX = 1 << 16;

/** Ends a socket with an RST. */
export function reset(socket) {
  // After a shutdown the kernel's handle refuses, and Node would leak it.
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

export class Proxy {
  #server;
  #target;
  #links = new Set();
  #isRefusing = false;
  #stalled = new Set();
  #delayMs = 0;
  #blocked = null;
  #accepted = 0;

  static async start(target) {
    const proxy = new Proxy();
    proxy.#target = target;
    proxy.#server = net.createServer((client) => proxy.#accept(client));
    await new Promise((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port() {
    return this.#server.address().port;
  }

  /** Connections accepted so far, and those that are open. */
  get counts() {
    return { accepted: this.#accepted, open: this.#links.size };
  }

  /** Where new connections lead. */
  set target(target) {
    this.#target = target;
  }

  /** Ends all connections with a FIN in both directions. */
  cut() {
    for (const { client, server } of this.#links) {
      client.end();
      server.end();
      client.resume();
      server.resume();
    }
    this.#links.clear();
  }

  /** Ends all connections with an RST in both directions. */
  reset() {
    for (const { client, server } of this.#links) {
      reset(client);
      reset(server);
    }
    this.#links.clear();
  }

  /** Nothing passes in this direction any more: `up` is to the server, `down` to the client. */
  stall(...directions) {
    for (const direction of directions) this.#stalled.add(direction);
  }

  /** What was held back passes now. */
  release() {
    this.#stalled.clear();
    for (const link of this.#links) for (const pipe of link.pipes) pipe.flush();
  }

  /** New connections are reset at once. */
  refuse(isRefusing = true) {
    this.#isRefusing = isRefusing;
  }

  /** Connections on which a client sends this text, in upper or lower case, are reset; `null` for none. */
  block(text) {
    this.#blocked = text?.toLowerCase() ?? null;
  }

  /** Everything takes so much longer, in each direction. */
  delay(ms) {
    this.#delayMs = ms;
  }

  async stop() {
    this.reset();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #accept(client) {
    this.#accepted += 1;
    client.on('error', () => {});
    if (this.#isRefusing) return reset(client);
    const server = net.connect(this.#target, '127.0.0.1');
    client.setNoDelay(true);
    server.setNoDelay(true);
    const link = { client, server };
    client.on('data', (chunk) => {
      if (this.#blocked === null || !chunk.toString('latin1').toLowerCase().includes(this.#blocked)) return;
      reset(client);
      reset(server);
    });
    link.pipes = [this.#pipe(link, client, server, 'up'), this.#pipe(link, server, client, 'down')];
    this.#links.add(link);
    server.on('error', () => reset(client));
    for (const socket of [client, server]) socket.on('close', () => this.#links.delete(link));
    return undefined;
  }

  #pipe(link, from, to, direction) {
    const held = [];
    let bytes = 0;
    let timer = null;
    let isEnding = false;
    const flush = () => {
      timer = null;
      while (held.length > 0 && !this.#stalled.has(direction)) {
        const { chunk, at } = held[0];
        if (at > performance.now()) {
          timer = setTimeout(flush, at - performance.now());
          return;
        }
        held.shift();
        bytes -= chunk.length;
        if (to.writable) to.write(chunk);
      }
      if (this.#stalled.has(direction)) return;
      from.resume();
      if (isEnding) to.end();
    };
    from.on('data', (chunk) => {
      if (held.length === 0 && this.#delayMs === 0 && !this.#stalled.has(direction)) {
        if (to.writable) to.write(chunk);
        return;
      }
      held.push({ chunk, at: performance.now() + this.#delayMs });
      bytes += chunk.length;
      if (bytes > HELD_BYTES_MAX) from.pause();
      if (timer === null) flush();
    });
    from.on('end', () => {
      isEnding = true;
      if (held.length === 0) to.end();
    });
    from.on('close', () => clearTimeout(timer));
    return { flush };
  }
}
