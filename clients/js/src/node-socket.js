/**
 * A WebSocket for Node, over the upgrade of `node:http`.
 *
 * Node 20 has no `WebSocket`, and later ones have one that hides the status and `Retry-After` of a refused
 * upgrade. This one has what the client needs: text, close codes, and why an upgrade was refused.
 */
import { createHash, randomBytes } from 'node:crypto';
import { request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';

import { FrameWriter } from './frame-writer.js';
import { FrameError, FrameReader, OPCODE, closePayload, encodeFrame } from './frames.js';
import { retryAfter } from './retry-after.js';

// RFC 6455 section 1.3.
const ACCEPT_GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

// There was no connection at all, for a WebSocket or for anything else.
const UNREACHABLE = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT']);

// The largest head of an answer to the upgrade. It is Node's default, which a flag may have raised.
const HEAD_BYTES_MAX = 16 * 1024;

// A server that was sent our close frame, or has sent its own, has this long to end the connection.
const LINGER_MS = 2000;

/**
 * Calls `onopen()`, `onmessage({data})`, `onlife()` for control frames, and exactly once `onclose(end)` with
 * `{code, reason}`, with `status` and `retryAfterMs` if the upgrade was refused, and `isBlameless` if
 * there was no connection at all.
 */
export class NodeSocket {
  onopen = null;
  onmessage = null;
  onlife = null;
  onclose = null;
  #request;
  #socket = null;
  #writer = null;
  #reader;
  #isOver = false;
  #isClosing = false;

  constructor(url, { protocols = [], headers = {}, messageBytesMax }) {
    const { protocol, username, password } = new URL(url);
    const key = randomBytes(16).toString('base64');
    const options = {
      // Its own connection, which no pool takes back.
      agent: false,
      maxHeaderSize: HEAD_BYTES_MAX,
      headers: {
        ...headers,
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
        ...(protocols.length > 0 ? { 'sec-websocket-protocol': protocols.join(', ') } : {}),
      },
    };
    if (username) options.auth = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    this.#reader = new FrameReader({
      isMasked: false,
      messageBytesMax,
      message: (data) => this.onmessage?.({ data }),
      close: (end) => this.#closeFrame(end),
      ping: (payload) => {
        // Section 5.5.3: a pong carries the payload of the ping.
        if (this.#isWritable) this.#writer.pong(encode(OPCODE.pong, payload));
        this.onlife?.();
      },
      pong: () => this.onlife?.(),
    });
    const isTls = protocol === 'wss:' || protocol === 'https:';
    const target = url.replace(/^ws/i, 'http');
    this.#request = (isTls ? requestTls : requestPlain)(target, options);
    this.#request.on('upgrade', (response, socket, head) => {
      const fault = upgradeFault(response.headers, key, protocols);
      if (!fault) return this.#opened(socket, head);
      socket.on('error', () => {});
      socket.destroy();
      this.#over({ code: 1006, reason: fault });
    });
    this.#request.on('response', (response) => {
      response.on('error', () => {});
      response.destroy();
      const status = response.statusCode;
      const retryAfterMs = retryAfter(response.headers['retry-after']);
      this.#over({ code: 1006, reason: `the upgrade was refused with ${status}`, status, retryAfterMs });
    });
    this.#request.on('error', (error) => {
      this.#over({ code: 1006, reason: error.message, isBlameless: UNREACHABLE.has(error.code) });
    });
    this.#request.end();
  }

  /** How many bytes wait to be sent. */
  get bufferedAmount() {
    return this.#writer?.bufferedAmount ?? 0;
  }

  send(text) {
    this.#write(OPCODE.text, Buffer.from(text));
  }

  /** Begins the closing handshake (section 7.1.2); `onclose` follows within a bounded time. */
  close(code, reason) {
    if (this.#isOver || this.#isClosing) return;
    if (!this.#socket) return this.terminate();
    this.#write(OPCODE.close, closePayload(code, reason));
    this.#isClosing = true;
    this.#linger({ code: 1006, reason: 'the server did not answer the close' });
  }

  /** Ends the connection without a close frame. */
  terminate() {
    this.#over({ code: 1006, reason: 'given up' });
    this.#request.destroy();
    this.#socket?.destroy();
  }

  #opened(socket, head) {
    this.#socket = socket;
    this.#writer = new FrameWriter(socket);
    socket.setNoDelay(true);
    socket.setTimeout(0);
    let why = 'the connection was lost';
    socket.on('error', (error) => {
      why = error.message;
    });
    socket.on('close', () => this.#over({ code: 1006, reason: why }));
    socket.on('data', (chunk) => this.#read(chunk));
    this.onopen?.();
    if (head.length > 0) this.#read(head);
  }

  #read(chunk) {
    if (this.#isOver) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      // Section 7.1.7: the peer is told why, and the connection is failed.
      this.#write(OPCODE.close, closePayload(error.code));
      // A reconnect would bring the message that is too large again; the network may cause other faults.
      const code = error.code === 1009 ? 1009 : 1006;
      this.#over({ code, reason: `the server sent ${error.message}` });
      this.#writer.end();
      this.#linger();
    }
  }

  #closeFrame({ code, reason }) {
    if (!this.#isClosing) this.#write(OPCODE.close, closePayload(code === 1005 ? undefined : code));
    this.#over({ code, reason });
    // Section 7.1.1: the server ends the TCP connection first, so that it is the one to hold TIME_WAIT.
    this.#linger();
  }

  #linger(end) {
    const timer = setTimeout(() => {
      if (end) this.#over(end);
      this.#socket.destroy();
    }, LINGER_MS);
    this.#socket.once('close', () => clearTimeout(timer));
    this.#socket.once('end', () => this.#socket.destroySoon());
  }

  #write(opcode, payload) {
    if (this.#isWritable) this.#writer.send(encode(opcode, payload));
  }

  get #isWritable() {
    return this.#socket !== null && !this.#isOver && !this.#isClosing;
  }

  #over(end) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onclose?.(end);
  }
}

/** A frame of a client, with an unpredictable mask (section 5.3). */
function encode(opcode, payload) {
  return encodeFrame(opcode, payload, { mask: randomBytes(4) });
}

/** What is wrong with a 101 (section 4.1), or `null`. */
function upgradeFault(headers, key, protocols) {
  const accept = createHash('sha1').update(key + ACCEPT_GUID).digest('base64');
  const chosen = headers['sec-websocket-protocol'];
  if (headers.upgrade?.toLowerCase() !== 'websocket') return 'the upgrade was to something else';
  if (headers['sec-websocket-accept'] !== accept) return 'the upgrade was not accepted for this key';
  if (headers['sec-websocket-extensions']) return 'the server chose an extension that was not offered';
  if (chosen !== undefined && !protocols.includes(chosen)) return 'the server chose a subprotocol that was not offered';
  return null;
}
