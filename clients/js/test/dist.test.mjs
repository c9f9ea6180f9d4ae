/** What is built of the client for pages: files that load, work and are small, and their types. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

import { launchOptions, missing, playwright, serve, tool } from './chromium.mjs';
import { StreamServer } from './stream-server.mjs';
import { inWorld } from './world.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('..', import.meta.url));
const tsc = join(process.env.TOOLS ?? '.', 'node_modules', 'typescript', 'bin', 'tsc');

// What a page loads, with gzip. It may grow, but not unnoticed.
const MIN_BYTES_MAX = 20_300;

let home;
let dist;
let files;
let browser;

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  const npm = (...args) => run('npm', args, { cwd: home, shell: process.platform === 'win32', timeout: 60_000 });
  const { stdout } = await npm('pack', here, '--json', '--loglevel=error');
  await writeFile(join(home, 'package.json'), '{"private": true, "type": "module"}');
  await npm('install', `./${JSON.parse(stdout)[0].filename}`, '--offline', '--no-audit', '--no-fund', '--loglevel=error');
  dist = join(home, 'node_modules/rusty-socks/dist');
  if (missing) return;
  const names = ['rusty-socks.js', 'rusty-socks.mjs', 'rusty-socks.min.js', 'rusty-socks.min.mjs'];
  const load = (name) =>
    name.endsWith('.mjs')
      ? `<script type="module">import * as all from '/${name}'; globalThis.RustySocks = all;</script>`
      : `<script src="/${name}"></script>`;
  files = await serve(dist, Object.fromEntries(names.map((name) => [`/of/${name.replaceAll('.', '-')}`, `<!doctype html>${load(name)}`])));
  browser = await playwright.chromium.launch(launchOptions);
});

after(async () => {
  await browser?.close();
  await files?.stop();
  rmSync(home, { recursive: true, force: true });
});

for (const name of ['rusty-socks.js', 'rusty-socks.mjs', 'rusty-socks.min.js', 'rusty-socks.min.mjs']) {
  const noTool = name.includes('.min.') && !tool('esbuild') ? 'esbuild was not found' : false;
  if (noTool) console.error(`!!! ${name} IS NOT TESTED, because ${noTool} !!!`);
  test(`a page loads ${name} and talks`, { skip: missing || noTool, timeout: 60_000 }, () =>
    inWorld({}, async ({ url }) => {
      const page = await browser.newPage();
      const faults = [];
      page.on('pageerror', (error) => faults.push(error.message));
      await page.goto(`${files.origin}/of/${name.replaceAll('.', '-')}`);
      await page.waitForFunction(() => globalThis.RustySocks);
      const seen = await page.evaluate(async (address) => {
        const { Client, DEFAULTS, RustySocksError } = globalThis.RustySocks;
        const [anna, ben] = [new Client(address), new Client(address)];
        const tea = anna.room('tea');
        const said = new Promise((resolve) => tea.on('message', ({ content }) => resolve(content)));
        await Promise.all([tea.join(), ben.join('tea')]);
        await ben.publish('tea', 'hello');
        const error = await anna.publish('nowhere', 1).catch((reason) => reason);
        return [await said, DEFAULTS.queueMax, error instanceof RustySocksError, error.code];
      }, url);
      assert.deepEqual([seen, faults], [['hello', 1000, true, 'not_member'], []]);
      await page.close();
    }),
  );
}

for (const name of ['rusty-socks.js', 'rusty-socks.mjs', 'rusty-socks.min.js', 'rusty-socks.min.mjs']) {
  const noTool = name.includes('.min.') && !tool('esbuild') ? 'esbuild was not found' : false;
  test(`a page without WebSockets loads ${name} and has an event stream`, { skip: missing || noTool, timeout: 60_000 }, async () => {
    const server = await StreamServer.start();
    const page = await browser.newPage();
    const faults = [];
    page.on('pageerror', (error) => faults.push(error.message));
    await page.addInitScript(() => {
      globalThis.WebSocket = class {
        constructor() {
          queueMicrotask(() => this.onclose({ code: 1006, reason: '' }));
        }
      };
    });
    await page.goto(`${files.origin}/of/${name.replaceAll('.', '-')}`);
    await page.waitForFunction(() => globalThis.RustySocks);
    const ready = page.evaluate(async (address) => {
      globalThis.client = new globalThis.RustySocks.Client(address, { backoffBaseMs: 1 });
      await globalThis.client.ready;
      return globalThis.client.transport;
    }, server.url);
    const stream = await server.accept();
    stream.send({ type: 'welcome', client_id: 'me', session: 's', room: 'lobby', epoch: 'e', seq: 0, ping_s: 30 });
    assert.equal(await ready, 'event-stream');
    const published = page.evaluate(() => globalThis.client.publish('lobby', 'hello'));
    assert.equal((await stream.answer({ type: 'publish' }, { room: 'lobby', seq: 1 })).content, 'hello');
    assert.equal((await published).seq, 1);
    await page.evaluate(() => globalThis.client.close());
    assert.deepEqual([stream.close.code, faults], [1000, []]);
    await page.close();
    await server.stop();
  });
}

test('what a page loads is small', { skip: !tool('esbuild') && 'esbuild was not found' }, async (t) => {
  for (const name of ['rusty-socks.min.js', 'rusty-socks.min.mjs']) {
    const bytes = gzipSync(await readFile(join(dist, name)), { level: 9 }).length;
    t.diagnostic(`${name}: ${bytes} bytes with gzip`);
    assert.ok(bytes <= MIN_BYTES_MAX, `${name} has ${bytes} bytes with gzip`);
  }
});

const RESOLUTIONS = {
  nodenext: ['--module', 'nodenext', 'rooms.mts', 'rooms.cts'],
  bundler: ['--module', 'esnext', '--moduleResolution', 'bundler', 'rooms.mts', 'script.ts'],
  node10: ['--module', 'commonjs', '--moduleResolution', 'node10', 'rooms.cts', 'script.ts'],
};

for (const [name, resolution] of Object.entries(RESOLUTIONS)) {
  test(`the types of rooms and of the global hold: ${name}`, { skip: !existsSync(tsc) && 'typescript was not found', timeout: 60_000 }, async () => {
    for (const [from, to] of [['rooms', 'rooms.mts'], ['rooms', 'rooms.cts'], ['script', 'script.ts']]) {
      await copyFile(new URL(`types/${from}.ts`, import.meta.url), join(home, to));
    }
    // Every script here is one, as it has no import of its own.
    const options = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2023,dom', '--moduleDetection', 'auto'];
    const { stdout } = await run(process.execPath, [tsc, ...options, ...resolution], { cwd: home }).catch((error) => error);
    assert.equal(stdout, '');
  });
}
