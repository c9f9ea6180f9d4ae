/** What `npm pack` makes of the hooks: it can be imported and required, runs on a server, and its types hold. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { tool } from '../../js/test/chromium.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('..', import.meta.url));
const tools = resolve(process.env.TOOLS ?? '.');
const missing = tool('react-dom/server') && tool('typescript') ? false : 'React or TypeScript was not found';
if (missing) console.error(`!!! THE PACKAGE OF THE HOOKS IS NOT TESTED, because ${missing} !!!`);
let home;

before(async () => {
  if (missing) return;
  // Below the tools, where React is found.
  home = mkdtempSync(join(tools, 'react-package-'));
  const npm = (...args) => run('npm', args, { cwd: home, shell: process.platform === 'win32', timeout: 60_000 });
  const packed = [];
  for (const directory of [join(here, '../js'), here]) {
    const { stdout } = await npm('pack', directory, '--json', '--loglevel=error');
    packed.push(`./${JSON.parse(stdout)[0].filename}`);
  }
  await writeFile(join(home, 'package.json'), '{"private": true, "type": "module"}');
  await npm('install', ...packed, '--offline', '--legacy-peer-deps', '--no-audit', '--no-fund', '--loglevel=error');
});

after(() => home && rmSync(home, { recursive: true, force: true }));

const BODY = `
  function Room() {
    const { state } = useConnection();
    const { members, count } = usePresence('tea');
    return createElement('p', null, [state, useRoom('tea').state, count, members.length].join(' '));
  }
  const tree = createElement(RustySocksProvider, { url: 'ws://127.0.0.1:9/ws' }, createElement(Room));
  console.log(renderToString(tree));
  const nobody = () => renderToString(createElement(Room));
  try { nobody(); } catch ({ message }) { console.log(message); }`;
const PAGE = '<p>idle out 0 0</p>\nthere is no RustySocksProvider around this component\n';

const LOADED = {
  'server.mjs': `import { createElement } from 'react'; import { renderToString } from 'react-dom/server';
    import { RustySocksProvider, useConnection, usePresence, useRoom } from 'rusty-socks-react';`,
  'server.cjs': `const { createElement } = require('react'); const { renderToString } = require('react-dom/server');
    const { RustySocksProvider, useConnection, usePresence, useRoom } = require('rusty-socks-react');`,
};

for (const [name, head] of Object.entries(LOADED)) {
  test(`a server renders it, and connects to nothing: ${name}`, { skip: missing, timeout: 60_000 }, async () => {
    await writeFile(join(home, name), head + BODY);
    // It would not end while it is connected.
    const { stdout } = await run(process.execPath, [name], { cwd: home, timeout: 30_000 });
    assert.equal(stdout, PAGE);
  });
}

const RESOLUTIONS = {
  nodenext: ['--module', 'nodenext'],
  bundler: ['--module', 'esnext', '--moduleResolution', 'bundler'],
};

for (const [name, resolution] of Object.entries(RESOLUTIONS)) {
  test(`the types hold: ${name}`, { skip: missing, timeout: 60_000 }, async () => {
    await copyFile(new URL('types/sample.tsx', import.meta.url), join(home, 'sample.tsx'));
    const options = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--jsx', 'react-jsx', '--target', 'es2022', '--lib', 'es2023,dom'];
    const tsc = join(tools, 'node_modules/typescript/bin/tsc');
    const { stdout } = await run(process.execPath, [tsc, ...options, ...resolution, 'sample.tsx'], { cwd: home }).catch((error) => error);
    assert.equal(stdout, '');
  });
}
