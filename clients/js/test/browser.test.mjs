/**
 * The scenarios in a headless Chromium, with the browser's own WebSocket.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { Client } from '../index.js';
import { Certificate, hasOpenssl } from './certificate.mjs';
import { launch, missing } from './chromium.mjs';
import { equal, until } from './environment.mjs';
import { scenarios } from './scenarios.mjs';
import { inWorld } from './world.mjs';

const TYPES = { html: 'text/html', js: 'text/javascript', mjs: 'text/javascript' };
// Scenarios with tokens are played over TLS too, where tokens belong.
const certificate = !missing && hasOpenssl ? new Certificate() : undefined;
if (!missing && !certificate) console.error('!!! TLS IS NOT TESTED IN A BROWSER, because openssl was not found !!!');

let files;
let browser;
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
  browser = await launch(certificate ? [`--ignore-certificate-errors-spki-list=${certificate.keyHash}`] : []);
});

after(async () => {
  await browser?.close();
  await new Promise((resolve) => (files ? files.close(resolve) : resolve()));
  certificate?.remove();
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

const cases = scenarios.map(({ name, server }) => ({ title: name, name, server }));
if (certificate) {
  for (const { name, server } of scenarios) {
    if (server?.identity) cases.push({ title: `${name}, over TLS`, name, server: { ...server, ...certificate.settings } });
  }
}

for (const { title, name, server } of cases) {
  test(title, options, (t) =>
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

// Some of all kinds: the others are above the transport.
const STREAMED = scenarios.filter(({ name }) => /^(a token in the first|soak|a burst far|rooms of several)/.test(name));

for (const { name, server } of STREAMED) {
  test(`in a page without WebSockets: ${name}`, options, (t) =>
    inWorld(server, async (world) => {
      const { page, faults } = await openPage(world);
      const words = await page.evaluate(
        async ({ scenario, plain }) => {
          const [{ Client }, { runScenario }] = await Promise.all([import('/index.js'), import('/test/scenarios.mjs')]);
          globalThis.WebSocket = class {
            constructor() {
              queueMicrotask(() => this.onclose({ code: 1006, reason: '' }));
            }
          };
          const verbs = (who) => (...call) => globalThis.control(who, call);
          const transports = new Set();
          class Watched extends Client {
            constructor(...rest) {
              super(...rest);
              this.on('session', () => transports.add(this.transport));
            }
          }
          const told = await runScenario(scenario, { ...plain, Client: Watched, proxy: verbs('proxy'), server: verbs('server') });
          return [told, [...transports].join()];
        },
        { scenario: name, plain: { url: world.url, proxied: world.proxied, seed: world.seed, soakMs: world.soakMs } },
      );
      if (words[0]) t.diagnostic(words[0]);
      equal(words[1], 'event-stream');
      await page.close();
      if (faults.length > 0) throw faults[0];
    }),
  );
}

// As the README says it, in a page whose client backs off for ever unless the world tells it
// something.
const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
const [, RECIPE] = /```js\n(const saved = [^]*?)```/.exec(readme);
const NEVER_MS = 600_000;

/** Waits until this holds in the page. */
const inPage = (what, page, look) => until(what, () => page.evaluate(look));

/**
 * Does in a page what the README says, and gives the client's id. `client` and `seen` are the
 * page's then.
 */
async function load(page, url, options = {}) {
  const given = { backoffBaseMs: NEVER_MS, backoffCapMs: NEVER_MS, checkTimeoutMs: 300, ...options };
  await page.addScriptTag({
    type: 'module',
    content: `
      import { Client as Plain } from '/index.js';
      const given = ${JSON.stringify(given)};
      // The first wait has no end, and the others are none.
      const jitter = [1];
      class Client extends Plain {
        constructor(url, options) {
          super(url, { ...options, ...given, random: () => jitter.shift() ?? 0 });
        }
      }
      const url = ${JSON.stringify(url)};
      ${RECIPE}
      globalThis.seen = [];
      globalThis.states = [];
      client.on('message', ({ content }) => seen.push(content));
      client.on('state', (event) => states.push(event));
      globalThis.client = client;
    `,
  });
  await inPage('client', page, () => globalThis.client !== undefined);
  return page.evaluate(async () => {
    await client.ready;
    return client.clientId;
  });
}

test('a page that is loaded again goes on where it was', options, () =>
  inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const anna = new Client(world.url);
    await anna.ready;
    const first = await load(page, world.url);
    await anna.publish('lobby', 'before');
    await inPage('message', page, () => seen.length === 1);
    await page.goto('about:blank');
    await anna.publish('lobby', 'while away');
    await page.goto(origin);
    equal(await load(page, world.url), first);
    await anna.publish('lobby', 'after');
    await inPage('messages', page, () => seen.length >= 2);
    equal(await page.evaluate(() => seen), ['while away', 'after']);
    await page.close();
    await anna.close();
  }),
);

test('a duplicated tab is another client, and harms the first in nothing', options, () =>
  inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const first = await load(page, world.url);
    await page.reload();
    equal(await load(page, world.url), first);
    // A window that is opened has a copy of the storage, as a duplicated tab has.
    const [copy] = await Promise.all([page.waitForEvent('popup'), page.evaluate(() => void open('/'))]);
    await copy.waitForLoadState();
    const second = await load(copy, world.url);
    equal(second === first, false);
    await page.evaluate(() => client.publish('lobby', 'from the first'));
    await inPage('message', copy, () => seen.length === 1);
    equal(await page.evaluate(() => [client.state, client.clientId]), ['open', first]);
    await copy.close();
    await page.close();
  }),
);

// Some browsers keep no page whose socket is open, and others not always. Then the connection is lost before the
// page is left.
const KEPT_TRIES_MAX = 5;

test('a page that comes out of the back/forward cache has its session again, and nobody else', options, async () => {
  for (let tries = 1; !(await comesBack(tries > 1)); tries += 1) {
    if (tries === KEPT_TRIES_MAX) throw new Error(`the browser kept none of ${tries} pages`);
  }
});

/** Whether the browser kept the page. With `isLost` its connection is lost before it is left. */
function comesBack(isLost) {
  return inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const first = await load(page, isLost ? world.proxied : world.url);
    await page.evaluate(() => addEventListener('pageshow', ({ persisted }) => (globalThis.cameBack = persisted)));
    if (isLost) {
      await world.proxy('cut');
      await inPage('loss', page, () => client.state === 'waiting');
    }
    await page.goto(`${origin}?other`);
    // The other page takes the session over, as one of the same application does.
    equal(await load(page, world.url), first);
    await page.evaluate(() => client.publish('lobby', 'from the other page'));
    await page.goBack({ waitUntil: 'commit' });
    // One that was not kept is loaded anew, and has no client.
    const isKept = () => globalThis.cameBack || (document.readyState === 'complete' && !globalThis.client && 'anew');
    // Asked between two pages, there is none to answer.
    if ((await until('page', () => page.evaluate(isKept).catch(() => null))) === 'anew') {
      await page.close();
      return false;
    }
    await inPage('session', page, () => client.state === 'open' && client.clientId);
    equal(await page.evaluate(() => client.clientId), first);
    await inPage('empty storage', page, () => sessionStorage.getItem('chat') === null);
    await page.close();
    return true;
  });
}

test('the network goes and comes: found out at once, and nothing is tried meanwhile', options, () =>
  inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const first = await load(page, world.proxied);
    await world.proxy('stall', 'up', 'down');
    await browser.setOffline(true);
    await inPage('loss', page, () => client.state === 'waiting');
    equal(await page.evaluate(() => [navigator.onLine, states.at(-1).delayMs]), [false, NEVER_MS]);
    await world.proxy('release');
    await browser.setOffline(false);
    await inPage('session', page, () => client.state === 'open');
    equal(await page.evaluate(() => client.clientId), first);
    await page.close();
  }),
);

test('a page that is seen again finds out that the server is silent', options, () =>
  inWorld({}, async (world) => {
    const { page } = await openPage(world);
    const first = await load(page, world.proxied);
    await world.proxy('stall', 'up', 'down');
    // What a headless browser shows is always visible, so that the event is all there is to send.
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await inPage('loss', page, () => states.some(({ state }) => state === 'waiting'));
    await world.proxy('release');
    await inPage('session', page, () => client.state === 'open');
    equal(await page.evaluate(() => client.clientId), first);
    await page.close();
  }),
);
