/** `wss://` in Node, with a certificate that is made for the test. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { Certificate, hasOpenssl } from './certificate.mjs';
import { Server } from './server.mjs';

const CLIENT = new URL('../index.js', import.meta.url);
const options = { skip: hasOpenssl ? false : 'there is no openssl', timeout: 60_000 };

let certificate;
let server;

before(async () => {
  if (!hasOpenssl) return;
  certificate = new Certificate();
  server = await Server.start(certificate.settings);
});

after(async () => {
  await server?.stop();
  certificate?.remove();
});

/** A program that connects, publishes to itself, and prints how it went. */
function program() {
  const path = join(certificate.dir, 'program.mjs');
  writeFileSync(
    path,
    `import { Client } from ${JSON.stringify(CLIENT.href)};
const client = new Client(process.argv[2], { backoffBaseMs: 10, backoffCapMs: 20 });
client.on('state', ({ state, end }) => {
  if (state !== 'waiting') return;
  console.log(end.reason);
  process.exit(0);
});
await client.ready;
await client.publish('lobby', 'x'.repeat(50_000));
await client.close();
console.log('done');
`,
  );
  return path;
}

/** What that program prints, with these variables in its environment. */
async function run(env) {
  const child = await promisify(execFile)(process.execPath, [program(), server.url], { env: { ...process.env, ...env } });
  return child.stdout.trim();
}

test('Node speaks TLS with a server whose authority it is told of', options, async () => {
  const words = await run({ NODE_EXTRA_CA_CERTS: certificate.cert });
  if (words !== 'done') throw new Error(words);
});

test('Node says what is wrong with a certificate that it does not know', options, async () => {
  const words = await run({ NODE_EXTRA_CA_CERTS: '' });
  if (!/self.signed/.test(words)) throw new Error(words);
});
