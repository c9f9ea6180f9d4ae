/** The scenarios in Node, with its own sockets. */
import { test } from 'node:test';

import { Client } from '../index.js';
import { rejects, until } from './environment.mjs';
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

test('an address that is none of ours ends it', { timeout: 60_000 }, () =>
  inWorld({}, async ({ url }) => {
    const client = new Client(url.replace('/ws', '/nowhere'));
    await rejects(client.ready, 'stopped');
  }),
);
