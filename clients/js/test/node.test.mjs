/** The scenarios in Node, with its own sockets and by event streams. */
import { test } from 'node:test';

import { Client } from '../index.js';
import { equal, rejects, until, within } from './environment.mjs';
import { runScenario, scenarios } from './scenarios.mjs';
import { inWorld } from './world.mjs';

for (const { name, server } of scenarios) {
  test(name, { timeout: 60_000 }, (t) =>
    inWorld(server, async (world) => {
      const words = await runScenario(name, { ...world, Client });
      if (words) t.diagnostic(words);
    }),
  );
}

/** A client on a network that lets no WebSocket pass, and knows it. */
class Streaming extends Client {
  constructor(url, options) {
    super(url, { fallback: 'only', ...options });
  }
}

for (const { name, server, needsWebSocket } of scenarios) {
  if (needsWebSocket) continue;
  test(`by event streams: ${name}`, { timeout: 60_000 }, (t) =>
    inWorld(server, async (world) => {
      const words = await runScenario(name, { ...world, Client: Streaming });
      if (words) t.diagnostic(words);
    }),
  );
}

test('a full server is waited for as long as it asks', { timeout: 60_000 }, () =>
  inWorld({ max_conn: 1, max_queued_tasks: 0, queue_timeout: 4 }, async ({ url }) => {
    const first = new Client(url);
    await first.ready;
    const second = new Client(url, { random: () => 0 });
    const states = [];
    second.on('state', (event) => states.push(event));
    await until('refusal', () => states.some(({ state }) => state === 'waiting'));
    await first.close();
    await second.ready;
    const { delayMs, end } = states.find(({ state }) => state === 'waiting');
    if (end.status !== 503 || delayMs !== 1000) throw new Error(`${end.status} after ${delayMs} ms`);
    await second.close();
  }),
);

test('a head that the network delays is refused with 408, and the client comes back', { timeout: 60_000 }, (t) =>
  inWorld({ handshake_timeout: 0.3 }, async (world) => {
    const client = new Client(world.proxied, { backoffBaseMs: 20, backoffCapMs: 200 });
    t.after(() => client.close());
    const ends = [];
    client.on('state', ({ state, end }) => state === 'waiting' && ends.push(end));
    await client.ready;
    const { clientId } = client;
    await world.proxy('stall', 'up');
    await world.proxy('reset');
    const published = client.publish('lobby', 'said while away');
    await until('refusal', () => ends.some(({ status }) => status === 408));
    await world.proxy('release');
    equal((await within('answer', published)).seq, 1);
    equal([client.state, client.clientId], ['open', clientId]);
  }),
);

test('an address that is none of ours ends it', { timeout: 60_000 }, () =>
  inWorld({}, async ({ url }) => {
    const client = new Client(url.replace('/ws', '/nowhere'));
    await rejects(client.ready, 'stopped');
  }),
);
