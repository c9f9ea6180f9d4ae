/** A server of event streams, every event and answer of which is the test's; it takes WebSockets if told to. */
import { createServer } from 'node:http';
import net from 'node:net';

import { until } from './environment.mjs';
import { reset } from './proxy.mjs';

export class StreamServer {
  /** What an upgrade is answered: a status, or `null` for a reset. */
  upgradeStatus = 426;
  upgrades = 0;
  /** The `ScriptedServer` to which upgrades go instead, if any. */
  websockets = null;
  /** What the next streams are answered instead: `{status, headers, body}`, or `null` for nothing at all. */
  refusals = [];
  streams = [];
  /** Whether a stream begins with its `connection` event. */
  greets = true;
  #http;
  #accepted = 0;

  static async start() {
    const server = new StreamServer();
    server.#http = createServer((request, response) => server.#request(request, response));
    server.#http.on('upgrade', (request, socket) => {
      server.upgrades += 1;
      socket.on('error', () => {});
      if (server.websockets) server.#pass(request, socket);
      else if (server.upgradeStatus === null) reset(socket);
      else socket.end(`HTTP/1.1 ${server.upgradeStatus} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    });
    await new Promise((resolve) => server.#http.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get url() {
    return `ws://127.0.0.1:${this.#http.address().port}/ws?as=anna`;
  }

  /** The next stream that nobody has taken. */
  async accept() {
    await until('stream', () => this.streams.length > this.#accepted);
    this.#accepted += 1;
    return this.streams[this.#accepted - 1];
  }

  async stop() {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  /** Passes an upgrade on as it came. */
  #pass({ method, url, rawHeaders }, socket) {
    const other = net.connect(new URL(this.websockets.url).port, '127.0.0.1');
    const headers = rawHeaders.map((part, at) => (at % 2 === 0 ? `${part}: ` : `${part}\r\n`));
    other.write(`${method} ${url} HTTP/1.1\r\n${headers.join('')}\r\n`);
    other.on('error', () => reset(socket));
    socket.on('error', () => other.destroy());
    socket.pipe(other).pipe(socket);
  }

  #request(request, response) {
    // Pages of tests are of another origin.
    response.setHeader('access-control-allow-origin', request.headers.origin ?? '*');
    response.setHeader('access-control-allow-credentials', 'true');
    if (request.method === 'POST') return this.#post(request, response);
    const refusal = this.refusals.shift();
    if (refusal === null) return undefined;
    if (refusal) return response.writeHead(refusal.status, refusal.headers).end(refusal.body);
    const stream = new Stream(request, response, `key-${this.streams.length}`);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    if (this.greets) stream.event('connection', { connection: stream.key });
    this.streams.push(stream);
    return undefined;
  }

  async #post(request, response) {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += chunk;
    const [head, ...lines] = body.split('\n');
    const { connection } = JSON.parse(head);
    const stream = this.streams.find(({ key }) => key === connection);
    if (stream) await stream.take(JSON.parse(head), lines, request, response, body);
    else response.writeHead(404).end();
  }
}

class Stream {
  key;
  request;
  /** Messages that were posted, in order and each once, and were not looked for. */
  frames = [];
  /** All posts as they came, `{post, close, lines, body}`, repeats among them. */
  posts = [];
  /** What the next posts are answered: a status, `{status, headers}`, or a function, which may wait. */
  answers = [];
  isOpen = true;
  close = null;
  /** How many posts were there at the same time, at most. */
  atOnce = 0;
  #now = 0;
  #taken = 0;
  #response;

  constructor(request, response, key) {
    this.request = request;
    this.#response = response;
    this.key = key;
    response.on('close', () => {
      this.isOpen = false;
    });
  }

  event(name, data) {
    this.raw(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  send(...frames) {
    for (const frame of frames) this.raw(`data: ${JSON.stringify(frame)}\n\n`);
  }

  raw(bytes) {
    this.#response.write(bytes);
  }

  closed(code, reason) {
    this.event('closed', { code, reason });
    this.end();
  }

  end() {
    this.#response.end();
  }

  /** Cuts it. */
  reset() {
    reset(this.#response.socket);
  }

  async take({ post, close }, lines, request, response, body) {
    this.posts.push({ post, close, lines, body, type: request.headers['content-type'] });
    this.#now += 1;
    this.atOnce = Math.max(this.atOnce, this.#now);
    let answer = this.answers.shift() ?? 204;
    if (typeof answer === 'function') answer = await answer(post);
    this.#now -= 1;
    const { status, headers, isTaken } = typeof answer === 'object' ? answer : { status: answer };
    if (status === 204 || isTaken) this.#handle(post, close, lines);
    if (status === 'none') reset(request.socket);
    else response.writeHead(status, headers).end();
  }

  /** The first frame with these fields that was not taken yet. */
  async find(fields) {
    const matches = (frame) => Object.entries(fields).every(([name, value]) => frame[name] === value);
    const found = await until(`frame like ${JSON.stringify(fields)}`, () => this.frames.find(matches));
    this.frames.splice(this.frames.indexOf(found), 1);
    return found;
  }

  async answer(fields, answer = {}) {
    const frame = await this.find(fields);
    this.send({ type: 'ok', ref: frame.ref, ...answer });
    return frame;
  }

  #handle(post, close, lines) {
    if (post === this.#taken) return;
    this.#taken = post;
    for (const line of lines) {
      const frame = JSON.parse(line);
      if (frame.type === 'ping') this.send({ type: 'pong', ref: frame.ref });
      else this.frames.push(frame);
    }
    if (!close) return;
    this.close = close;
    this.closed(close.code, close.reason);
  }
}
