/**
 * A WebSocket server whose every frame is the test's: for what a real server does rarely, or at no time that
 * a test could choose.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';

import { FrameReader, OPCODE, closePayload, encodeFrame } from '../src/frames.js';
import { until } from './environment.mjs';
import { reset } from './proxy.mjs';

export class ScriptedServer {
  #http;
  #connections = [];
  #taken = 0;
  // What the next upgrades are answered instead of 101.
  #refusals = [];
  #held = new Set();

  static async start() {
    const server = new ScriptedServer();
    server.#http = createServer((_, response) => response.writeHead(426).end());
    server.#http.on('upgrade', (request, socket) => server.#upgrade(request, socket));
    await new Promise((resolve) => server.#http.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url() {
    return `ws://127.0.0.1:${this.#http.address().port}/ws`;
  }

  /** The next upgrade is answered with this status. */
  refuse(status, headers = {}) {
    this.#refusals.push({ status, headers });
  }

  /** The next upgrade is left without an answer. */
  hold() {
    this.#refusals.push(null);
  }

  /** The upgrades that are left without an answer. */
  get held() {
    return this.#held.size;
  }

  /** The next connection that nobody has taken. */
  async accept() {
    await until('connection', () => this.#connections.length > this.#taken);
    this.#taken += 1;
    return this.#connections[this.#taken - 1];
  }

  get accepted() {
    return this.#connections.length;
  }

  async stop() {
    for (const connection of this.#connections) connection.destroy();
    for (const socket of this.#held) reset(socket);
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  #upgrade(request, socket) {
    socket.on('error', () => {});
    const refusal = this.#refusals.shift();
    if (refusal === null) {
      this.#held.add(socket);
      socket.on('close', () => this.#held.delete(socket));
      socket.on('end', () => socket.end());
      socket.resume();
      return;
    }
    if (refusal) {
      const lines = Object.entries(refusal.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.end(`HTTP/1.1 ${refusal.status} No\r\n${lines.join('')}Content-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    const key = request.headers['sec-websocket-key'];
    const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n` +
        'Sec-WebSocket-Protocol: rusty-socks.v1\r\n\r\n',
    );
    this.#connections.push(new ScriptedConnection(socket, request));
  }
}

class ScriptedConnection {
  request;
  /** What came and was not yet looked for; pings are answered and not listed. */
  frames = [];
  /** The code of the close frame that came, `1006` if there was none, `null` while it is open. */
  closeCode = null;
  answersPings = true;
  pings = 0;
  #socket;

  constructor(socket, request) {
    this.#socket = socket;
    this.request = request;
    const reader = new FrameReader({
      isMasked: true,
      messageBytesMax: 1 << 24,
      message: (text) => this.#message(JSON.parse(text)),
      close: ({ code }) => {
        this.closeCode = code;
        this.bytes(encodeFrame(OPCODE.close, closePayload(code === 1005 ? undefined : code)));
        socket.end();
      },
      ping: (payload) => this.bytes(encodeFrame(OPCODE.pong, payload)),
      pong: (payload) => this.frames.push({ type: 'control pong', payload: payload.toString() }),
    });
    socket.on('data', (chunk) => reader.push(chunk));
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      this.closeCode ??= 1006;
    });
  }

  send(...frames) {
    // In one piece, so that they come in one read.
    return this.bytes(Buffer.concat(frames.map((frame) => encodeFrame(OPCODE.text, Buffer.from(JSON.stringify(frame))))));
  }

  /** Settles when the system has taken them. */
  bytes(bytes) {
    return new Promise((resolve) => {
      if (this.#socket.writable) this.#socket.write(bytes, () => resolve());
      else resolve();
    });
  }

  /** Reads nothing until `resume()`. */
  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  /** The first frame with these fields that was not taken yet. */
  async take(fields) {
    const matches = (frame) => Object.entries(fields).every(([name, value]) => JSON.stringify(frame[name]) === JSON.stringify(value));
    const at = await until(`frame like ${JSON.stringify(fields)}`, () => {
      const found = this.frames.findIndex(matches);
      return found < 0 ? null : { found };
    });
    return this.frames.splice(at.found, 1)[0];
  }

  /** Takes a command and answers it with `ok` and these fields. */
  async answer(fields, answer) {
    const frame = await this.take(fields);
    const rest = typeof answer === 'function' ? answer(frame) : answer;
    this.send({ type: 'ok', ref: frame.ref, ...rest });
    return frame;
  }

  async refuse(fields, code, rest = {}) {
    const frame = await this.take(fields);
    this.send({ type: 'error', ref: frame.ref, code, message: code, ...rest });
    return frame;
  }

  close(code, reason = '') {
    this.bytes(encodeFrame(OPCODE.close, closePayload(code, reason)));
  }

  end() {
    this.#socket.end();
  }

  destroy() {
    reset(this.#socket);
  }

  #message(frame) {
    if (frame.type === 'ping') {
      this.pings += 1;
      if (this.answersPings) this.send({ type: 'pong', ref: frame.ref });
    } else {
      this.frames.push(frame);
    }
  }
}
