/** `wss://` in Node, with a certificate that is made for the test. */
import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { Server } from './server.mjs';

const CLIENT = new URL('../index.js', import.meta.url);
const hasOpenssl = (process.env.PATH ?? '').split(delimiter).some((dir) => existsSync(join(dir, 'openssl')));
const options = { skip: hasOpenssl ? false : 'there is no openssl', timeout: 60_000 };

let dir;
let server;

before(async () => {
  if (!hasOpenssl) return;
  dir = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  const [cert, key] = ['server.pem', 'server.key'].map((name) => join(dir, name));
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2']
      .concat(['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'])
      .concat(['-keyout', key, '-out', cert]),
    { stdio: 'ignore' },
  );
  server = await Server.start({ tls_cert: cert, tls_key: key });
});

after(async () => {
  await server?.stop();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

/** A program that connects, publishes to itself, and prints how it went. */
function program() {
  const path = join(dir, 'program.mjs');
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
  const url = `wss://127.0.0.1:${server.port}/ws`;
  const child = await promisify(execFile)(process.execPath, [program(), url], { env: { ...process.env, ...env } });
  return child.stdout.trim();
}

test('Node speaks TLS with a server whose authority it is told of', options, async () => {
  const words = await run({ NODE_EXTRA_CA_CERTS: join(dir, 'server.pem') });
  if (words !== 'done') throw new Error(words);
});

test('Node says what is wrong with a certificate that it does not know', options, async () => {
  const words = await run({ NODE_EXTRA_CA_CERTS: '' });
  if (!/self.signed/.test(words)) throw new Error(words);
});
