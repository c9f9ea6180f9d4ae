/** The first page of the server, in Chromium, and what it tells its readers to run. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, relative } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Client } from '../index.js';
import { launch, missing } from './chromium.mjs';
import { until, within } from './environment.mjs';
import { BINARY, Server } from './server.mjs';

const options = { skip: missing ? `${missing} was not found` : false, timeout: 60_000 };
const SECRET = 'a secret for tests that has enough bytes';
const repository = fileURLToPath(new URL('../../../', import.meta.url));
const KEY = 'a-key-for-tests-of-the-first-page';

let browser;
let home;

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  if (!missing) browser = await launch();
});

after(async () => {
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
});

/** Opens the page of a server, calls `use`, and fails if the page or its policy complained. */
async function onPage(settings, use) {
  const server = await Server.start(settings);
  const page = await browser.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (line) => line.type() === 'error' && faults.push(line.text()));
  try {
    await page.goto(`http://127.0.0.1:${server.port}/`);
    await until(() => `room in the address: ${faults}`, () => /#try-/.test(page.url()));
    await use(page, server);
    assert.deepEqual(faults, []);
  } finally {
    await page.close();
    await server.stop();
  }
}

const logOf = (page, name) => page.locator(`[data-name=${name}] .log`).innerText();
async function hears(page, name, text) {
  let log;
  const look = async () => (log = await logOf(page, name)).includes(text);
  await until(() => `"${text}" at ${name}, but: ${log}`, look);
}
const connected = (page) =>
  until('two connected panes', async () => (await page.locator('.status[data-state=open]').count()) === 2);

/** Runs a program; gives what it wrote so far, and ends it. */
function start(program, args, input) {
  const path = [dirname(BINARY), process.env.PATH].join(delimiter);
  // Of the caller's environment, no setting may reach the program.
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('RUSTY_SOCKS_'));
  const env = { ...Object.fromEntries(kept), PATH: path };
  const child = spawn(program, args, { cwd: home, env, stdio: ['pipe', 'pipe', 'pipe'] });
  let written = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (written += chunk));
  const ended = new Promise((resolve, reject) => {
    child.on('exit', resolve);
    child.on('error', reject);
  });
  child.stdin.end(input);
  const stop = () => {
    child.kill();
    return ended;
  };
  return { ended, stop, written: () => written };
}

test('two clients in the page talk, and a second window of its address hears them', options, () =>
  onPage({}, async (page, server) => {
    assert.equal(await page.locator('[data-address]').innerText(), server.url);
    assert.equal((await server.stats()).sessions, 0, 'a page that is only looked at takes no place');
    await page.getByRole('button', { name: 'Connect both' }).click();
    await connected(page);
    const other = await browser.newPage();
    await other.goto(page.url());
    await other.getByRole('button', { name: 'Connect both' }).click();
    await connected(other);
    await page.getByLabel('Anna says').fill('<b>tea?</b>');
    await page.getByLabel('Anna says').press('Enter');
    await hears(page, 'Ben', 'Anna: <b>tea?</b>');
    await hears(page, 'Anna', '#1');
    await page.getByLabel('Ben says').fill('yes');
    await page.getByLabel('Ben says').press('Enter');
    await hears(page, 'Anna', '#2Ben: yes');
    await hears(other, 'Ben', '#1Anna: <b>tea?</b>\n#2Ben: yes');
    await other.close();
  }),
);

test('a server that wants tokens is told so, and talked to with one', options, () => {
  const settings = { identity: 'required', token_hmac_secret: SECRET, auth_timeout: 0.3 };
  return onPage(settings, async (page) => {
    await page.getByRole('button', { name: 'Connect both' }).click();
    await until('reason', async () => /wants to know who you are/.test(await page.locator('#told').innerText()));
    await writeFile(join(home, 'secret'), SECRET);
    const token = start(BINARY, ['token', '--token-hmac-secret-file', 'secret', '--user', 'anna', '--rooms', '*']);
    assert.equal(await token.ended, 0, token.written());
    await page.getByLabel('Token').fill(token.written().trim());
    await page.getByRole('button', { name: 'Connect both' }).click();
    await connected(page);
    await page.getByLabel('Anna says').press('Enter');
    await hears(page, 'Ben', 'anna: Hello Ben');
  });
});

test('each snippet works as it is shown, and is heard in the page', options, () => {
  const settings = { admin_port: 0, api_key: KEY };
  return onPage(settings, async (page, server) => {
    await page.getByRole('button', { name: 'Connect both' }).click();
    await connected(page);
    const shown = await page.locator('[data-snippet]').evaluateAll((all) => all.map((one) => [one.dataset.snippet, one.textContent]));
    const snippets = Object.fromEntries(shown);
    assert.deepEqual(Object.keys(snippets), ['page', 'node', 'python', 'rust', 'shell', 'curl']);
    const room = /#(.*)/.exec(page.url())[1];
    for (const text of Object.values(snippets)) {
      assert.ok(text.includes(room), text);
      assert.ok(!text.includes('localhost:3030'), text);
    }

    // A page of another server of this machine.
    const others = createServer((_, response) => response.setHeader('content-type', 'text/html').end(snippets.page));
    await new Promise((resolve) => others.listen(0, '127.0.0.1', resolve));
    const other = await browser.newPage();
    await other.goto(`http://127.0.0.1:${others.address().port}/`);
    await hears(page, 'Anna', 'page: hello from a page');
    await page.getByLabel('Anna says').press('Enter');
    await until('message', async () => (await other.locator('body').innerText()).includes('Anna: Hello Ben'));
    await other.close();
    others.close();

    const [, command] = /First: (curl .*)\n/.exec(snippets.node);
    const fetched = start('bash', ['-c', command]);
    assert.equal(await fetched.ended, 0, fetched.written());
    await writeFile(join(home, 'hello.mjs'), snippets.node);
    const node = start(process.execPath, ['hello.mjs']);
    await hears(page, 'Anna', 'node: hello from Node');
    await until(() => `line of Node, but ${node.written()}`, () => node.written().includes('node hello from Node'));
    await node.stop();

    const shell = start('bash', ['-ec', snippets.shell]);
    assert.equal(await shell.ended, 0, shell.written());
    await hears(page, 'Ben', 'shell: hello from a shell');

    await writeFile(join(home, 'api.key'), KEY);
    const port = await until('admin listener', () => /admin listener is on \S+:(\d+)/.exec(server.log)?.[1]);
    const curl = start('bash', ['-ec', snippets.curl.replace(':3031/v1', `:${port}/v1`)]);
    assert.equal(await curl.ended, 0, curl.written());
    await hears(page, 'Ben', 'backend: hello from a backend');
  });
});

// Pages of the documents, each with an address of this machine in it.
const documents = [join(repository, 'README.md'), ...readdirSync(join(repository, 'docs'), { recursive: true }).map((name) => join(repository, 'docs', name))];
for (const path of documents.filter((path) => path.endsWith('.md'))) {
  const pages = [...readFileSync(path, 'utf8').matchAll(/```html\n([^]*?)```/g)];
  for (const [, shown] of pages) {
    test(`the page of ${relative(repository, path)} hears its room`, options, async () => {
      const server = await Server.start();
      const files = createServer((_, response) =>
        response.setHeader('content-type', 'text/html').end(`<!doctype html>${shown.replaceAll(':3030', `:${server.port}`)}`),
      );
      await new Promise((resolve) => files.listen(0, '127.0.0.1', resolve));
      const page = await browser.newPage();
      const anna = new Client(server.url);
      try {
        const said = [];
        page.on('console', async (line) => said.push(...(await Promise.all(line.args().map((value) => value.jsonValue())))));
        page.on('pageerror', (error) => said.push(error.message));
        const [, room] = /join\("([^"]+)"\)/.exec(shown);
        await anna.join(room, { presence: true });
        const joined = new Promise((resolve) => anna.on('joined', resolve));
        await page.goto(`http://127.0.0.1:${files.address().port}/`);
        await within(`page in the room, but ${said}`, joined);
        await anna.publish(room, { state: 'heard' });
        await until(() => `word of the page, but ${JSON.stringify(said)}`, () => JSON.stringify(said).includes('heard'));
      } finally {
        await page.close();
        await anna.close();
        files.close();
        files.closeAllConnections();
        await server.stop();
      }
    });
  }
}

test('the page says when it waits for the server, and goes on', options, () =>
  onPage({}, async (page, server) => {
    await page.getByRole('button', { name: 'Connect both' }).click();
    await connected(page);
    // What the browser says of a lost server is no fault of the page.
    page.removeAllListeners('console');
    await server.stop();
    await until('waiting panes', async () => (await page.locator('.status[data-state=waiting]').count()) === 2);
    const again = await Server.start({ port: server.port });
    try {
      await connected(page);
      await page.getByLabel('Ben says').press('Enter');
      await hears(page, 'Anna', 'Ben: Hello Anna');
    } finally {
      await again.stop();
    }
  }),
);
