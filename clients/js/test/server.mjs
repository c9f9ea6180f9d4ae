/** The real server, for the length of a test. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

import { until } from './environment.mjs';

export const BINARY =
  process.env.RUSTY_SOCKS_BINARY ?? fileURLToPath(new URL('../../../target/debug/rusty_socks', import.meta.url));

export class Server {
  #child;
  #scheme;
  #log = '';
  #exit;

  /** Starts the binary with these settings, on a free port unless `port` is given. */
  static async start(settings = {}) {
    const server = new Server();
    server.#scheme = settings.tls_cert ? 'wss' : 'ws';
    // Of the caller's environment, no setting may reach the server.
    const kept = Object.entries(process.env).filter(([name]) => !/^(RUSTY_SOCKS_|RUST_LOG)/.test(name));
    const given = { host: '127.0.0.1', port: 0, drain_timeout: 2, ...settings };
    const ours = Object.entries(given).map(([key, value]) => [`RUSTY_SOCKS_${key.toUpperCase()}`, String(value)]);
    server.#child = spawn(BINARY, [], { env: Object.fromEntries([...kept, ...ours]), stdio: ['ignore', 'pipe', 'pipe'] });
    server.#exit = new Promise((resolve) => {
      server.#child.on('exit', resolve);
      server.#child.on('error', (error) => {
        server.#log += error.message;
        resolve(null);
      });
    });
    let hasEnded = false;
    server.#exit.then(() => {
      hasEnded = true;
    });
    for (const stream of [server.#child.stdout, server.#child.stderr]) {
      stream.on('data', (chunk) => {
        server.#log += chunk;
      });
    }
    server.port = await until('line with the address in the log', () => {
      if (hasEnded) throw new Error(`the server ended: ${server.#log}`);
      return Number(/listens on \S+:(\d+):/.exec(server.#log)?.[1]);
    });
    return server;
  }

  get log() {
    return this.#log;
  }

  get url() {
    return this.urlAt(this.port);
  }

  /** Its address as it is through another port. */
  urlAt(port) {
    return `${this.#scheme}://127.0.0.1:${port}/ws`;
  }

  async stats() {
    const answer = await fetch(`http://127.0.0.1:${this.port}/stats`);
    return answer.json();
  }

  /** Ends it, with `SIGTERM` for a drain, and waits until it has gone. */
  async stop(signal = 'SIGKILL') {
    this.#child.kill(signal);
    await this.#exit;
  }
}
