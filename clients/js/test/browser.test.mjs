/**
 * The scenarios in a headless Chromium, with the browser's own WebSocket.
 *
 * `CHROMIUM` names the browser, and `TOOLS` a directory with `playwright-core` in its `node_modules`.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, test } from 'node:test';

import { Client } from '../index.js';
import { equal, until } from './environment.mjs';
import { scenarios } from './scenarios.mjs';
import { inWorld } from './world.mjs';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const PLACES = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const inPath = (process.env.PATH ?? '').split(delimiter).flatMap((dir) => NAMES.map((name) => join(dir, name)));
  return [...inPath, ...PLACES].find((path) => existsSync(path));
}

function findPlaywright() {
  try {
    return createRequire(join(process.env.TOOLS ?? '.', 'package.json'))('playwright-core');
  } catch {
    return undefined;
  }
}

const executablePath = findChromium();
const playwright = findPlaywright();
const missing = [executablePath ? '' : 'Chromium', playwright ? '' : 'playwright-core'].filter(Boolean).join(' and ');
if (missing) console.error(`!!! NOTHING IS TESTED IN A BROWSER, because ${missing} was not found !!!`);

const TYPES = { html: 'text/html', js: 'text/javascript', mjs: 'text/javascript' };
let files;
let browser;
let profile;
let origin;

before(async () => {
  if (missing) return;
  files = createServer(async (request, response) => {
    const path = new URL(request.url, 'http://localhost').pathname;
    const type = TYPES[path.split('.').at(-1)];
    if (path === '/') return response.setHeader('content-type', TYPES.html).end('<!doctype html><title>test</title>');
    try {
      // The path of a URL has no `..` in it.
      const text = await readFile(new URL(`..${path}`, import.meta.url));
      return response.setHeader('content-type', type).end(text);
    } catch {
      return response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => files.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${files.address().port}/`;
  profile = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  // Without its sandbox where there is root only, as in containers; no page here is a stranger's.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  browser = await playwright.chromium.launchPersistentContext(profile, { executablePath, headless: true, args });
});

after(async () => {
  await browser?.close();
  await new Promise((resolve) => (files ? files.close(resolve) : resolve()));
  if (profile) rmSync(profile, { recursive: true, force: true });
});

/** A page that can call the world's verbs. */
async function openPage(world) {
  const page = await browser.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(error));
  await page.exposeFunction('control', (who, call) => world[who](...call));
  await page.goto(origin);
  return { page, faults };
}

const options = { skip: missing ? `${missing} was not found` : false, timeout: 60_000 };

for (const { name, server } of scenarios) {
  test(name, options, (t) =>
    inWorld(server, async (world) => {
      const { page, faults } = await openPage(world);
      const words = await page.evaluate(
        async ({ scenario, plain }) => {
          const [{ Client }, { runScenario }] = await Promise.all([import('/index.js'), import('/test/scenarios.mjs')]);
          const verbs = (who) => (...call) => globalThis.control(who, call);
          return runScenario(scenario, { ...plain, Client, proxy: verbs('proxy'), server: verbs('server') });
        },
        { scenario: name, plain: { url: world.url, proxied: world.proxied, seed: world.seed, soakMs: world.soakMs } },
      );
      if (words) t.diagnostic(words);
      await page.close();
      if (faults.length > 0) throw faults[0];
    }),
  );
}

test('a page that is loaded again goes on where it was', options, () =>
  inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const anna = new Client(world.url);
    await anna.ready;
    // As the README says it.
    const load = (url) =>
      page.evaluate(async (address) => {
        const { Client: PageClient } = await import('/index.js');
        const saved = sessionStorage.getItem('chat');
        const client = new PageClient(address, { session: saved ? JSON.parse(saved) : undefined });
        addEventListener('pagehide', () => sessionStorage.setItem('chat', JSON.stringify(client.session)));
        globalThis.seen = [];
        client.on('message', ({ content }) => globalThis.seen.push(content));
        await client.ready;
        return client.clientId;
      }, url);
    const first = await load(world.proxied);
    await anna.publish('lobby', 'before');
    await until('message', () => page.evaluate(() => globalThis.seen.length === 1));
    await page.goto('about:blank');
    await anna.publish('lobby', 'while away');
    await page.goto(origin);
    equal(await load(world.proxied), first);
    await anna.publish('lobby', 'after');
    await until('messages', () => page.evaluate(() => globalThis.seen.length >= 2));
    equal(await page.evaluate(() => globalThis.seen), ['while away', 'after']);
    await page.close();
    await anna.close();
  }),
);
