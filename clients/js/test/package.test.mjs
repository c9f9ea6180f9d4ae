/** What `npm pack` makes is what a user installs: it imports, it runs, and its types hold. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

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
  for (const path of ['LICENSE', 'README.md', 'package.json', 'index.js', 'index.d.ts', 'src/client.js']) {
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

test('the types hold', { skip: missing, timeout: 60_000 }, async () => {
  await copyFile(new URL('types/sample.ts', import.meta.url), join(home, 'sample.ts'));
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2023,dom'];
  const { stdout } = await run(process.execPath, [tsc, ...options, 'sample.ts'], { cwd: home }).catch((error) => error);
  assert.equal(stdout, '');
});
