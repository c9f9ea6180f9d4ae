/** What `npm pack` makes is what a user installs: it imports, it runs, and its types hold. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { within } from './environment.mjs';
import { inWorld } from './world.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('..', import.meta.url));
const tsc = join(process.env.TOOLS ?? '.', 'node_modules', 'typescript', 'bin', 'tsc');
const missing = existsSync(tsc) ? false : 'typescript was not found';
if (missing) console.error(`!!! THE TYPES ARE NOT TESTED, because ${missing} !!!`);
let home;
let packed;

const npm = (...args) => run('npm', args, { cwd: home, shell: process.platform === 'win32', timeout: 60_000 });

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  const { stdout } = await npm('pack', here, '--json', '--loglevel=error');
  [packed] = JSON.parse(stdout);
  await writeFile(join(home, 'package.json'), '{"private": true, "type": "module"}');
  await npm('install', `./${packed.filename}`, '--offline', '--no-audit', '--no-fund', '--loglevel=error');
});

after(() => rmSync(home, { recursive: true, force: true }));

test('the package has what it needs and nothing else', async () => {
  const paths = packed.files.map(({ path }) => path);
  for (const path of ['LICENSE', 'README.md', 'package.json', 'index.js', 'index.d.ts', 'src/client.js', 'cjs/index.js', 'cjs/index.d.ts', 'cjs/src/client.js']) {
    assert.ok(paths.includes(path), path);
  }
  assert.deepEqual(paths.filter((path) => /test|node_modules/.test(path)), []);
  const manifest = JSON.parse(await readFile(join(home, 'node_modules/rusty-socks/package.json'), 'utf8'));
  assert.deepEqual([manifest.dependencies, manifest.devDependencies], [undefined, undefined]);
});

test('the example of the README runs with the installed package', { timeout: 60_000 }, () =>
  inWorld({}, async ({ url }) => {
    const readme = await readFile(join(here, 'README.md'), 'utf8');
    const example = /```js\n(import [^]*?)```/.exec(readme)[1].replaceAll('ws://localhost:3030/ws', url);
    await writeFile(join(home, 'example.mjs'), example);
    const { stdout } = await run(process.execPath, ['example.mjs'], { cwd: home, timeout: 30_000 });
    assert.equal(stdout, 'ben: hello\n');
  }),
);

test('the example of docs/clients.md runs with the installed package', { timeout: 60_000 }, () =>
  inWorld({}, async ({ url }) => {
    const page = await readFile(join(here, '../../docs/clients.md'), 'utf8');
    const example = /```js\n(import [^]*?)```/.exec(page)[1].replaceAll('ws://localhost:3030/ws', url);
    await writeFile(join(home, 'front.mjs'), example);
    // It reads for ever.
    const child = spawn(process.execPath, ['front.mjs'], { cwd: home, stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const [line] = await within('line', once(child.stdout, 'data'));
      assert.equal(String(line), 'me hello\n');
    } finally {
      child.kill();
    }
  }),
);

test('it can be required, without any help of newer versions of Node', { timeout: 60_000 }, () =>
  inWorld({}, async ({ url }) => {
    const script = `
      const assert = require('node:assert');
      const { Client, DEFAULTS, RustySocksError } = require('rusty-socks');
      (async () => {
        const [anna, ben] = [new Client('${url}'), new Client('${url}')];
        await Promise.all([anna.ready, ben.ready]);
        const seen = new Promise((resolve) => ben.once('message', resolve));
        await anna.publish('lobby', { from: 'require' });
        assert.deepStrictEqual((await seen).content, { from: 'require' });
        assert.equal(DEFAULTS.outboxMax, 1000);
        // Both ways of loading in one program: two copies, whose errors are each other's.
        const module = await import('rusty-socks');
        assert.notEqual(module.Client, Client);
        const error = await anna.publish('nowhere', 1).catch((error) => error);
        const other = await new module.Client('${url}', { signal: AbortSignal.abort() }).ready.catch((error) => error);
        for (const kind of [RustySocksError, module.RustySocksError]) {
          for (const value of [error, other]) assert.ok(value instanceof kind);
          for (const value of [new Error(), null, {}]) assert.ok(!(value instanceof kind));
        }
        class Mine extends RustySocksError {}
        assert.ok(!(error instanceof Mine) && new Mine('mine', 'text') instanceof Mine);
        await Promise.all([anna.close(), ben.close()]);
        console.log('well');
      })();`;
    await writeFile(join(home, 'required.cjs'), script);
    const flags = process.allowedNodeEnvironmentFlags.has('--experimental-require-module')
      ? ['--no-experimental-require-module']
      : [];
    const { stdout } = await run(process.execPath, [...flags, 'required.cjs'], { cwd: home, timeout: 30_000 });
    assert.equal(stdout, 'well\n');
  }),
);

test('both entries export the same', async () => {
  const script = `import { createRequire } from 'node:module';
    import * as module from 'rusty-socks';
    const required = createRequire(import.meta.url)('rusty-socks');
    console.log(JSON.stringify([Object.keys(module).sort(), Object.keys(required).sort()]));`;
  await writeFile(join(home, 'both.mjs'), script);
  const { stdout } = await run(process.execPath, ['both.mjs'], { cwd: home, timeout: 30_000 });
  const [imported, required] = JSON.parse(stdout);
  assert.deepEqual(imported, required);
});

const RESOLUTIONS = {
  'node16, as a module and as CommonJS': ['--module', 'node16', 'sample.mts', 'sample.cts'],
  'nodenext, as a module and as CommonJS': ['--module', 'nodenext', 'sample.mts', 'sample.cts'],
  bundler: ['--module', 'esnext', '--moduleResolution', 'bundler', 'sample.mts'],
  'node10, as CommonJS': ['--module', 'commonjs', '--moduleResolution', 'node10', 'sample.cts'],
};

for (const [name, resolution] of Object.entries(RESOLUTIONS)) {
  test(`the types hold: ${name}`, { skip: missing, timeout: 60_000 }, async () => {
    for (const file of ['sample.mts', 'sample.cts']) {
      await copyFile(new URL('types/sample.ts', import.meta.url), join(home, file));
    }
    const options = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', '--lib', 'es2023,dom'];
    const { stdout } = await run(process.execPath, [tsc, ...options, ...resolution], { cwd: home }).catch((error) => error);
    assert.equal(stdout, '');
  });
}
