/**
 * The hooks in a headless Chromium, against the real server: under strict mode, with renderings in
 * the background, and with hot reloads, in both versions of React.
 */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';

import { Client } from '../../js/index.js';
import { launchOptions, missing as missingBrowser, playwright, serve, tool } from '../../js/test/chromium.mjs';
import { until } from '../../js/test/environment.mjs';
import { inWorld } from '../../js/test/world.mjs';

const here = fileURLToPath(new URL('..', import.meta.url));
const home = resolve(process.env.TOOLS ?? '.');
const esbuild = tool('esbuild');
const missing = missingBrowser || (esbuild && tool('react-refresh/runtime') ? '' : 'esbuild or React');
if (missing) console.error(`!!! THE HOOKS OF REACT ARE NOT TESTED, because ${missing} was not found !!!`);

const VERSIONS = { 18: { react: 'react18', 'react-dom': 'react-dom18' }, 19: { react: 'react', 'react-dom': 'react-dom' } };
let files;
let browser;

async function bundle(aliases) {
  const given = Object.entries(aliases).filter(([from, to]) => from !== to);
  const result = await esbuild.build({
    absWorkingDir: home,
    entryPoints: [join(here, 'test/app.jsx')],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    jsx: 'automatic',
    nodePaths: [join(home, 'node_modules')],
    alias: { ...Object.fromEntries(given), 'rusty-socks': join(here, '../js/index.js'), 'rusty-socks-react': join(here, 'index.js') },
    define: { 'process.env.NODE_ENV': '"development"' },
    logLevel: 'error',
  });
  return result.outputFiles[0].text;
}

before(async () => {
  if (missing) return;
  const pages = { '/favicon.ico': '' };
  for (const [version, aliases] of Object.entries(VERSIONS)) {
    pages[`/${version}`] = `<!doctype html><div id="root"></div><script src="/${version}.js"></script>`;
    pages[`/${version}.js`] = await bundle(aliases);
  }
  files = await serve(here, pages);
  browser = await playwright.chromium.launch(launchOptions);
});

after(async () => {
  await browser?.close();
  await files?.stop();
});

/** A page, the commands that it has sent, and a second client. */
async function open(t, version, world, name, given = {}) {
  const page = await browser.newPage();
  t.after(() => page.close());
  const faults = [];
  const commands = [];
  const sockets = [];
  page.on('pageerror', (error) => faults.push(error.message));
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  page.on('websocket', (socket) => {
    sockets.push(socket);
    socket.on('framesent', ({ payload }) => {
      const { type, room, watch } = JSON.parse(payload);
      if (room) commands.push([type, room, watch].filter((part) => part !== undefined).join(' '));
    });
  });
  await page.goto(`${files.origin}/${version}`);
  await page.evaluate(([which, rest]) => start(which, rest), [name, { url: world.url, ...given }]);
  const text = (id) => page.evaluate((of) => document.getElementById(of)?.textContent, id);
  /** Waits until an element has this text. */
  const reads = async (id, expected) => {
    let last;
    const isSo = async () => {
      last = await text(id);
      return expected instanceof RegExp ? expected.test(last) : last === expected;
    };
    await until(() => `${expected} in ${id}, which has ${last}; ${faults}`, isSo);
  };
  const ben = new Client(world.url);
  // Whatever happens, it must not keep the process.
  t.after(() => ben.close());
  await ben.ready;
  const close = async () => {
    await ben.close();
    assert.deepEqual(faults, []);
  };
  return { page, commands, sockets, text, reads, ben, close };
}

for (const version of Object.keys(VERSIONS)) {
  const options = { skip: missing ? `${missing} was not found` : false, timeout: 90_000 };

  test(`React ${version}: under strict mode, parts share one connection and one subscription`, options, (t) =>
    inWorld({}, async (world) => {
      const { page, commands, sockets, reads, ben, close } = await open(t, version, world, 'parts', { room: 'tea' });
      const show = (...names) => page.evaluate((all) => control.show(...all), names);
      await reads('connection', 'open');
      for (const id of ['one', 'two']) await reads(id, 'joined: ');
      await ben.join('tea', { sender: 'ben' });
      await reads('members', 'joined 2: ben page');
      await ben.publish('tea', 'first');
      await page.click('#say');
      for (const id of ['one', 'two']) await reads(id, 'joined: first mine');
      // One part after the other goes, and another comes in their place.
      await show('one', 'members');
      await show('two', 'none');
      await ben.publish('tea', 'second');
      await reads('two', 'joined: second');
      await reads('none', 'out: ');
      const [running, shown, effects] = await page.evaluate(() => [control.version, [...control.shown], control.effects()]);
      assert.equal(effects, 2, 'strict mode ends effects and begins them again');
      assert.equal(running.split('.')[0], version);
      assert.deepEqual(shown, ['out', 'joining', 'joined'], 'nothing else was shown meanwhile');
      assert.deepEqual([sockets.length, commands], [1, ['join tea', 'publish tea', 'presence tea false']]);
      await show();
      await until('leave', () => commands.includes('leave tea'));
      await show('one');
      await reads('one', 'joined: ');
      assert.equal(commands.filter((command) => command === 'join tea').length, 2);
      await page.evaluate(() => control.unmount());
      await until('close', () => sockets[0].isClosed());
      assert.equal((await ben.presence('tea')).count, 1);
      await close();
    }),
  );

  test(`React ${version}: a room that is refused says so`, options, (t) =>
    inWorld({ max_rooms_per_conn: 1 }, async (world) => {
      const { page, reads, close } = await open(t, version, world, 'parts', { room: 'tea' });
      for (const id of ['one', 'two']) await reads(id, 'out limit_exceeded: ');
      await page.evaluate(() => control.unmount());
      await close();
    }),
  );

  test(`React ${version}: a lost session and a lost connection change nothing for the parts`, options, (t) =>
    inWorld({}, async (world) => {
      const { page, reads, ben, close } = await open(t, version, { url: world.proxied }, 'parts', { room: 'tea' });
      await ben.join('tea', { sender: 'ben' });
      await reads('members', 'joined 2: ben page');
      await world.proxy('cut');
      await reads('connection', 'open');
      await ben.publish('tea', 'first');
      for (const id of ['one', 'two']) await reads(id, 'joined: first');
      await world.server('restart');
      await until('both', async () => (await ben.presence('tea').catch(() => ({}))).count === 2);
      await reads('members', 'joined 2: ben page');
      await ben.publish('tea', 'second');
      for (const id of ['one', 'two']) await reads(id, 'joined: first second');
      await page.evaluate(() => control.unmount());
      await close();
    }),
  );

  test(`React ${version}: a rendering in the background joins nothing before it is shown`, options, (t) =>
    inWorld({}, async (world) => {
      const { page, commands, text, reads, ben, close } = await open(t, version, world, 'concurrent', { readers: 0 });
      await reads('log', 'joined: ');
      await ben.join('tea');
      // One that is given up, one that waits.
      await page.evaluate(() => control.go('slow.milk'));
      await page.evaluate(() => control.tick());
      await page.evaluate(() => control.go('slow.rum'));
      await page.evaluate(() => control.tick());
      await ben.publish('tea', 'meanwhile');
      await reads('log', 'joined: meanwhile');
      assert.deepEqual([await text('name'), await text('tick'), commands], ['tea', '2', ['join tea']]);
      await page.evaluate(() => control.arrive('slow.rum'));
      await reads('name', 'slow.rum');
      await reads('log', 'joined: meanwhile');
      await until('leave', () => commands.includes('leave tea'));
      assert.deepEqual(commands.toSorted(), ['join slow.rum', 'join tea', 'leave tea']);
      await page.evaluate(() => control.unmount());
      await close();
    }),
  );

  test(`React ${version}: parts that are rendered in pieces show one list of members`, options, (t) =>
    inWorld({}, async (world) => {
      const { page, reads, ben, close } = await open(t, version, world, 'concurrent', { readers: 30 });
      await reads('count', '1');
      await page.evaluate(() => {
        globalThis.end = control.background();
      });
      for (let i = 0; i < 10; i += 1) {
        await ben.join('crowd');
        await ben.leave('crowd');
      }
      await ben.join('crowd');
      await reads('count', '2');
      const { torn, commits, renders } = await page.evaluate(() => {
        end();
        return { torn: control.torn, commits: control.commits, renders: control.renders };
      });
      assert.deepEqual(torn, []);
      assert.ok(commits > 5 && renders > 100, `${commits} commits, ${renders} renders`);
      await page.evaluate(() => control.unmount());
      await close();
    }),
  );

  test(`React ${version}: a hot reload keeps the room, with its state kept or made anew`, options, (t) =>
    inWorld({}, async (world) => {
      const { page, commands, sockets, reads, ben, close } = await open(t, version, world, 'reload');
      await ben.join('tea');
      await reads('chat', 'version 1, 0 clicks, joined, 2 here: ');
      await page.click('#chat');
      await ben.publish('tea', 'a');
      await reads('chat', 'version 1, 1 clicks, joined, 2 here: a by 1');
      const before = commands.length;
      assert.ok(await page.evaluate(() => control.reload(2, 'first')));
      await ben.publish('tea', 'b');
      await reads('chat', 'version 2, 1 clicks, joined, 2 here: a by 1, b by 2');
      assert.ok(await page.evaluate(() => control.reload(3, 'other hooks')));
      await reads('chat', 'version 3, 0 clicks, joined, 2 here: ');
      await ben.publish('tea', 'c');
      await reads('chat', 'version 3, 0 clicks, joined, 2 here: c by 3');
      assert.deepEqual([commands.slice(before), sockets.length], [[], 1]);
      await page.evaluate(() => control.unmount());
      await close();
    }),
  );
}
