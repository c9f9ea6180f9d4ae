/** The dashboard of the admin listener, in Chromium: what it shows, does, and never does. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Client } from '../index.js';
import { launch, missing } from './chromium.mjs';
import { until } from './environment.mjs';
import { Server } from './server.mjs';

const options = { skip: missing ? `${missing} was not found` : false, timeout: 60_000 };
const KEY = 'a-key-for-tests-of-the-dashboard';
const READER = 'a-key-that-may-only-read-things';
const SHOP = 'a-key-of-a-shop-for-its-own-rooms';
/** What a script would run from, where a name or a content became HTML. */
const HOSTILE = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>';

let browser;
const clients = [];
let home;
let config;

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  config = join(home, 'server.toml');
  const keys = [
    ['reader', READER, ['read'], ['*']],
    ['shop', SHOP, ['publish', 'read'], ['shop.*']],
  ];
  const table = ([name, key, scopes, rooms]) => `[[api_keys]]\nname = "${name}"\nkey = "${key}"\nscopes = ${JSON.stringify(scopes)}\nrooms = ${JSON.stringify(rooms)}\n`;
  writeFileSync(config, keys.map(table).join('\n'));
  if (!missing) browser = await launch();
});

after(async () => {
  await browser?.close();
  rmSync(home, { recursive: true, force: true });
});

/**
 * Opens the dashboard of a server of its own, calls `use`, and fails if the page or its policy
 * complained, if it asked anybody else for anything, or if a key was in an address.
 */
async function onDashboard(settings, use) {
  const given = Object.entries({ config, admin_port: 0, api_key: KEY, ...settings });
  const server = await Server.start(Object.fromEntries(given.filter(([, value]) => value !== undefined)));
  const port = await until('admin listener', () => /admin listener is on \S+:(\d+)/.exec(server.log)?.[1]);
  const origin = `http://127.0.0.1:${port}`;
  const page = await browser.newPage();
  const faults = [];
  const asked = [];
  page.on('pageerror', (error) => faults.push(error.message));
  // The browser says of each refusal of the server that it was one, which is no fault of the page.
  page.on('console', (line) => line.type() === 'error' && !/status of 4\d\d/.test(line.text()) && faults.push(line.text()));
  page.on('request', (request) => asked.push(request.url()));
  page.on('websocket', (socket) => asked.push(socket.url()));
  try {
    await page.goto(`${origin}/dashboard`);
    await use(page, server, { port, origin });
    assert.deepEqual(faults, []);
    const isOwn = (url) => new URL(url).host === `127.0.0.1:${port}` || url === 'data:,';
    assert.deepEqual(asked.filter((url) => !isOwn(url)), [], 'nothing from elsewhere');
    const keys = [KEY, READER, SHOP];
    assert.deepEqual(asked.filter((url) => keys.some((key) => url.includes(key))), [], 'no key in an address');
    assert.equal(await page.evaluate(() => window.broken), undefined, 'a name or a content became a script');
  } finally {
    for (const client of clients.splice(0)) client.close();
    await page.close();
    await server.stop();
  }
}

/** A client that is closed when its test is over, whatever became of it. */
function connect(server) {
  const client = new Client(server.url);
  clients.push(client);
  return client;
}

async function signIn(page, key) {
  await page.getByLabel('API key').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('navigation', { name: 'Views' }).waitFor();
}
async function view(page, name) {
  await page.getByRole('link', { name, exact: true }).click();
  await page.locator(`#${name.toLowerCase()}`).waitFor();
}
const big = async (page, chart) => page.locator(`[data-chart=${chart}] .big`).innerText();
const rowsOf = async (page, id) => page.locator(`#${id} tr`).allInnerTexts();
const noticeOf = async (page, name) => page.locator(`#${name} > [data-notice]`).innerText();
async function sees(page, selector, text) {
  let shown;
  const look = async () => (shown = await page.locator(selector).innerText()).includes(text);
  await until(() => `"${text}" in ${selector}, but: ${shown}`, look);
}
/** Waits until the figures have come another time. */
async function another(page, look) {
  await until('figures that say so', look);
}

test('a wrong key is refused, a good one shows figures that change, and none is kept after the end', options, () =>
  onDashboard({}, async (page, server) => {
    await page.getByLabel('API key').fill('no-such-key-anywhere');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await sees(page, '#refused', 'no such key');
    assert.equal(await page.evaluate(() => sessionStorage.length), 0, 'a wrong key is not kept');
    await signIn(page, KEY);
    await sees(page, '#live', 'live');
    await sees(page, '#state', 'ready');
    assert.match(await big(page, 'sessions'), /^0/);
    const anna = connect(server);
    await anna.join('tea');
    await another(page, async () => (await big(page, 'sessions')).startsWith('1'));
    await anna.publish('tea', 'hello');
    await another(page, async () => !(await page.locator('[data-chart=in] .under').innerText()).startsWith('0'));
    const [first] = await rowsOf(page, 'workers');
    assert.match(first, /^0\t/);
    await page.reload();
    await sees(page, '#live', 'live');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('API key').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    assert.ok(!(await page.content()).includes(KEY), 'no key in the page');
    await until('no viewer', async () => (await server.stats()).live_viewers === 0);
  }),
);

test('rooms are searched with the keyboard, and names and contents are text', options, () =>
  onDashboard({}, async (page, server) => {
    const anna = connect(server);
    const rooms = ['orders.1', 'orders.2', 'tea', HOSTILE];
    for (const room of rooms) await anna.join(room);
    await anna.publish('tea', { html: HOSTILE, n: 1 }, { sender: HOSTILE });
    await anna.publish(HOSTILE, HOSTILE, { sender: 'anna' });
    await anna.publish('tea', 'a second');
    await signIn(page, KEY);
    await page.locator('body').press('2');
    await until('all rooms', async () => (await rowsOf(page, 'room-rows')).length === 5);
    assert.ok((await page.locator('#room-rows').innerText()).includes(HOSTILE));
    await page.locator('body').press('/');
    await page.keyboard.type('ord');
    await until('found rooms', async () => (await rowsOf(page, 'room-rows')).length === 2);
    assert.match((await rowsOf(page, 'room-rows'))[0], /^orders.1\t1\t0/);
    await page.keyboard.press('Control+a');
    await page.keyboard.type('nowhere');
    await page.getByText('No such room.').waitFor();
    await page.keyboard.press('Control+a');
    await page.keyboard.press('Delete');
    await until('all rooms', async () => (await rowsOf(page, 'room-rows')).length === 5);

    await page.getByRole('button', { name: 'tea', exact: true }).press('Enter');
    await sees(page, '#history', 'a second');
    const texts = await page.locator('#history .content').allInnerTexts();
    assert.deepEqual(texts, ['a second', JSON.stringify({ html: HOSTILE, n: 1 })]);
    assert.ok((await page.locator('#history').innerText()).includes(HOSTILE), 'the sender');
    await sees(page, '#members', anna.clientId);
    await page.getByRole('button', { name: HOSTILE }).click();
    await sees(page, '#room-name', HOSTILE);
    await sees(page, '#history', 'onerror');
    assert.equal(await page.locator('#content img, #content script').count(), 0);
  }),
);

test('pages of many rooms and of a long history', options, () =>
  onDashboard({ history: 200, rate_rooms: 0, max_rooms_per_conn: 200 }, async (page, server) => {
    const anna = connect(server);
    const names = Array.from({ length: 120 }, (_, n) => `r${String(n).padStart(3, '0')}`);
    for (const name of names) await anna.join(name);
    for (let n = 1; n <= 120; n++) await anna.publish('r000', `m${n}`);
    await signIn(page, KEY);
    await view(page, 'Rooms');
    await page.locator('#prefix').fill('r');
    const first = async () => (await rowsOf(page, 'room-rows'))[0]?.split('\t')[0];
    const counts = async () => (await rowsOf(page, 'room-rows')).length;
    await until('first page', async () => (await counts()) === 50 && (await first()) === 'r000');
    await page.locator('#rooms [data-next]').click();
    await until('second page', async () => (await first()) === 'r050');
    await page.locator('#rooms [data-next]').click();
    await until('last page', async () => (await first()) === 'r100' && (await counts()) === 20);
    assert.ok(await page.locator('#rooms [data-next]').isDisabled());
    await page.locator('#rooms [data-first]').click();
    await until('first page', async () => (await first()) === 'r000');
    await page.getByRole('button', { name: 'r000' }).click();
    await sees(page, '#history', 'm120');
    await page.getByRole('button', { name: 'Older' }).click();
    await until('older messages', async () => (await page.locator('#history .content').first().innerText()) === 'm70');
    await page.getByRole('button', { name: 'Newest' }).click();
    await until('newest messages', async () => (await page.locator('#history .content').first().innerText()) === 'm120');
  }),
);

test('a message is published, and a session closed after a second thought', options, () =>
  onDashboard({}, async (page, server) => {
    const anna = connect(server);
    const heard = [];
    anna.on('message', (message) => heard.push(message));
    await anna.join('tea');
    await signIn(page, KEY);
    await view(page, 'Publish');
    await page.getByLabel('Room, or a client').fill('tea');
    await page.getByLabel('Content').fill('{"cups": 2}');
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await sees(page, '#published', 'Published as number 1 of tea.');
    await page.getByLabel('Content').fill('two cups');
    await page.getByLabel('Sender').fill('desk');
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await until('both messages', () => heard.length === 2);
    assert.deepEqual(heard.map(({ content, sender }) => [content, sender]), [[{ cups: 2 }, 'api'], ['two cups', 'desk']]);
    await page.getByLabel('Room, or a client').fill('a*b');
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await sees(page, '#published', 'Not published');

    await view(page, 'Sessions');
    await sees(page, '#session-rows', anna.clientId);
    const close = page.locator('#session-rows button');
    await close.click();
    await sees(page, '#session-rows', 'Sure?');
    assert.equal((await server.stats()).active_connections, 1);
    await close.click();
    await sees(page, '#closed', `Closed ${anna.clientId}`);
    await until('no connection', async () => (await server.stats()).closed['4009'] === 1);
    await page.getByText('No such session.').waitFor();
  }),
);

test('settings say where they came from, and no secret', options, () =>
  onDashboard({ max_conn: 77 }, async (page) => {
    await signIn(page, KEY);
    await view(page, 'Settings');
    await sees(page, '#setting-rows', 'RUSTY_SOCKS_MAX_CONN');
    await page.locator('body').press('/');
    await page.keyboard.type('max_conn');
    await until('fewer settings', async () => (await rowsOf(page, 'setting-rows')).length < 10);
    assert.match((await rowsOf(page, 'setting-rows'))[0], /^max_conn\t77 sessions\tRUSTY_SOCKS_MAX_CONN$/);
    await page.locator('#setting').fill('api_key');
    await sees(page, '#setting-rows', '(set)');
    assert.ok(!(await page.content()).includes(KEY));
    await page.locator('#setting').fill('');
    await page.getByLabel('only what is no default').check();
    await until('own settings alone', async () => (await rowsOf(page, 'setting-rows')).every((row) => !row.endsWith('\tdefault')));
    await view(page, 'Nodes');
    await sees(page, '#node-rows', 'serving');
  }),
);

test('a key that may only read sees what it may, and is told what it may not', options, () =>
  onDashboard({}, async (page, server) => {
    const anna = connect(server);
    await anna.join('tea');
    await signIn(page, READER);
    await sees(page, '#live', 'live');
    await view(page, 'Rooms');
    await page.getByRole('button', { name: 'tea', exact: true }).click();
    await sees(page, '#members', anna.clientId);
    assert.ok(await page.locator('#room-publish').isHidden());
    await view(page, 'Sessions');
    await sees(page, '#session-rows', anna.clientId);
    assert.equal(await page.locator('#session-rows button').count(), 0);
    await view(page, 'Publish');
    assert.equal(await noticeOf(page, 'publish'), 'Not allowed: the key "reader" has not the scope publish.');
    assert.ok(await page.locator('#message').isHidden());
    await view(page, 'Settings');
    assert.match(await noticeOf(page, 'settings'), /has not the scope admin/);
  }),
);

test('a key for some rooms sees these alone', options, () =>
  onDashboard({}, async (page, server) => {
    const anna = connect(server);
    for (const room of ['shop.1', 'tea']) await anna.join(room);
    await signIn(page, SHOP);
    assert.match(await noticeOf(page, 'overview'), /some rooms only/);
    await view(page, 'Rooms');
    await until('its room', async () => (await rowsOf(page, 'room-rows')).length === 1);
    await view(page, 'Sessions');
    assert.match(await noticeOf(page, 'sessions'), /name one of them/);
    await page.locator('#of').selectOption('room');
    await page.locator('#of-name').fill('tea');
    await sees(page, '#sessions > [data-notice]', 'Not allowed');
    await page.locator('#of-name').fill('shop.1');
    await sees(page, '#session-rows', anna.clientId);
  }),
);

test('a server that goes away and comes back is seen again', options, () =>
  onDashboard({}, async (page, server, { port }) => {
    await signIn(page, KEY);
    await sees(page, '#live', 'live');
    // What the browser says of a lost server is no fault of the page.
    page.removeAllListeners('console');
    await server.stop();
    await sees(page, '#live', 'not connected');
    const again = await Server.start({ config, port: server.port, admin_port: port, api_key: KEY });
    try {
      await sees(page, '#live', 'live');
    } finally {
      await again.stop();
    }
  }),
);

test('new settings of a reload are seen, by those whose key is still good', options, () => {
  const file = join(home, 'reloaded.toml');
  writeFileSync(file, `max_conn = 50\napi_key = "${KEY}"\n`);
  return onDashboard({ config: file, api_key: undefined }, async (page, server, { origin }) => {
    const reload = (text) => {
      writeFileSync(file, text);
      return fetch(`${origin}/v1/reload`, { method: 'POST', headers: { Authorization: `Bearer ${KEY}` } });
    };
    await signIn(page, KEY);
    await until('the bound', async () => (await big(page, 'sessions')).includes('of 50'));
    assert.equal((await reload(`max_conn = 60\napi_key = "${KEY}"\n`)).status, 200);
    await until('the new bound', async () => (await big(page, 'sessions')).includes('of 60'));
    assert.equal((await reload('max_conn = 60\napi_key = "another-key-that-nobody-has-shown"\n')).status, 200);
    await sees(page, '#refused', 'no more');
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  });
});

test('it fits a phone, and every view can be reached and seen with the keyboard', options, () =>
  onDashboard({}, async (page, server) => {
    const anna = connect(server);
    await anna.join(`a-room-with-a-name-that-has-no-place-to-break-${'x'.repeat(60)}`);
    await page.setViewportSize({ width: 380, height: 800 });
    await signIn(page, KEY);
    await sees(page, '#live', 'live');
    for (const [index, name] of ['overview', 'rooms', 'sessions', 'publish', 'nodes', 'settings'].entries()) {
      await page.locator('body').press(String(index + 1));
      await page.locator(`#${name}`).waitFor();
      if (name === 'rooms') await sees(page, '#room-rows', 'a-room');
      const { scrollWidth, clientWidth } = await page.evaluate(() => ({ scrollWidth: document.documentElement.scrollWidth, clientWidth: document.documentElement.clientWidth }));
      assert.ok(scrollWidth <= clientWidth, `${name} is ${scrollWidth} wide`);
    }
    const left = async (chart) => (await page.locator(`[data-chart=${chart}]`).boundingBox()).x;
    await page.locator('body').press('1');
    assert.equal(await left('sessions'), await left('memory'), 'one column');
    await page.locator('nav a').first().focus();
    for (let index = 0; index < 2; index++) await page.keyboard.press('Tab');
    const outline = await page.evaluate(() => [document.activeElement.textContent, getComputedStyle(document.activeElement).outlineStyle]);
    assert.deepEqual(outline, ['Sessions', 'solid']);
    await page.keyboard.press('Enter');
    await sees(page, '#session-rows', anna.clientId);
  }),
);
