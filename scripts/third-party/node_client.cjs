// What Node's `ws` sees. `node node_client.cjs WHAT URL...` exits 0 when it is what should be seen.
'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const WebSocket = require('ws');

const DEADLINE_MS = 20_000;
const SEED =
  '{"id":"00000000-0000-0000-0000-000000000000","sender":"test_user",' +
  '"content":"Hello from wscat!","timestamp":"2025-03-15T12:00:00Z"}';

// A connection whose messages can be waited for one by one.
class Client {
  constructor(url) {
    this.socket = new WebSocket(url);
    this.waiting = [];
    this.messages = [];
    this.socket.on('message', (data, isBinary) => {
      this.messages.push({ data, isBinary });
      this.waiting.shift()?.();
    });
  }

  async open() {
    await once(this.socket, 'open');
    return this;
  }

  async next() {
    if (this.messages.length === 0) await new Promise((resolve) => this.waiting.push(resolve));
    return this.messages.shift();
  }

  async json() {
    return JSON.parse((await this.next()).data.toString());
  }

  send(object) {
    this.socket.send(typeof object === 'string' ? object : JSON.stringify(object));
  }

  async close() {
    this.socket.close(1000);
    const [code] = await once(this.socket, 'close');
    assert.strictEqual(code, 1000);
  }
}

const checks = {
  async chat(url) {
    const anna = await new Client(url).open();
    const { type, client_id: annas, room } = await anna.json();
    assert.deepStrictEqual([type, room], ['welcome', 'lobby']);
    const ben = await new Client(url).open();
    assert.strictEqual((await ben.json()).type, 'welcome');

    anna.send(SEED);
    const message = await ben.json();
    assert.strictEqual(message.type, 'message');
    assert.strictEqual(message.sender, 'test_user');
    assert.strictEqual(message.content, 'Hello from wscat!');
    assert.strictEqual(message.timestamp, '2025-03-15T12:00:00Z');
    assert.strictEqual(message.client_id, annas);
    assert.notStrictEqual(message.id, '00000000-0000-0000-0000-000000000000');

    // The sender hears nothing of its own message: the next frame is the answer to this.
    anna.send({ type: 'history', room: 'lobby', limit: 1, ref: 'h' });
    const page = await anna.json();
    assert.deepStrictEqual([page.type, page.ref], ['ok', 'h']);
    assert.deepStrictEqual(page.messages, [message]);

    anna.send({ type: 'ping', ref: 7 });
    assert.deepStrictEqual(await anna.json(), { type: 'pong', ref: 7 });
    anna.socket.ping('are you there');
    const [payload] = await once(anna.socket, 'pong');
    assert.strictEqual(payload.toString(), 'are you there');
    await anna.close();
    await ben.close();
  },

  async echo(url) {
    const client = await new Client(url).open();
    const text = 'ü'.repeat(32 * 1024);
    const binary = Buffer.from(Array.from({ length: 64 * 1024 }, (_, i) => i % 251));
    for (const [sent, isBinary] of [[text, false], [binary, true]]) {
      client.socket.send(sent);
      const back = await client.next();
      assert.strictEqual(back.isBinary, isBinary);
      assert.ok(back.data.equals(Buffer.from(sent)), 'the echo differs');
    }
    await client.close();
  },

  async rejected(url) {
    const socket = new WebSocket(url);
    const [, response] = await once(socket, 'unexpected-response');
    assert.strictEqual(response.statusCode, 503);
    assert.match(response.headers['retry-after'], /^\d+$/);
    let body = '';
    for await (const chunk of response) body += chunk;
    const told = JSON.parse(body);
    assert.strictEqual(told.error, 'full');
    assert.strictEqual(String(told.retry_after_s), response.headers['retry-after']);
  },

  async 'too-big'(url) {
    const client = await new Client(url).open();
    client.socket.send('x'.repeat(64 * 1024 + 1));
    const [code] = await once(client.socket, 'close');
    assert.strictEqual(code, 1009);
  },

  // Says when it is inside, and waits for the server to end it.
  async shutdown(url) {
    const client = await new Client(url).open();
    await client.json();
    console.log('open');
    const closing = await client.json();
    assert.strictEqual(closing.type, 'closing');
    assert.ok(closing.reconnect_after_ms >= 0);
    const [code] = await once(client.socket, 'close');
    assert.strictEqual(code, 1001);
  },
};

const [what, url] = process.argv.slice(2);
setTimeout(() => {
  console.error(`${what} did not end within ${DEADLINE_MS} ms`);
  process.exit(1);
}, DEADLINE_MS).unref();
// A promise that nobody settles would end Node with 0 once there is nothing left to wait for.
process.exitCode = 1;
checks[what](url).then(
  () => { process.exitCode = 0; },
  (error) => { console.error(error); process.exit(1); },
);
