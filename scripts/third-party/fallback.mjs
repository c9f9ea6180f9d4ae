// Our JavaScript client behind a proxy that lets no WebSocket through. `node fallback.mjs URL` exits
// 0 when two clients have talked to each other by event streams.
import assert from 'node:assert/strict';

import { Client } from '../../clients/js/index.js';

const MESSAGES = 20;
const url = process.argv[2];
const timer = setTimeout(() => {
  console.error('not in time');
  process.exit(1);
}, 60_000);

// A proxy may hold back all of the first answer.
const options = { openTimeoutMs: 6000 };
const clients = [new Client(url, options), new Client(url, options)];
const [anna, ben] = clients.map((client) => client.room('tea'));
const heard = [];
const all = new Promise((resolve) => {
  ben.on('message', ({ content }) => {
    heard.push(content.n);
    if (heard.length === MESSAGES) resolve();
  });
});
await Promise.all([anna.join(), ben.join()]);
for (let n = 0; n < MESSAGES; n += 1) await anna.publish({ n, text: 'x'.repeat(n * 1000) });
await all;
assert.deepEqual(heard, [...Array(MESSAGES).keys()]);
for (const client of clients) {
  assert.equal(client.transport, 'event-stream');
  client.close();
}
clearTimeout(timer);
