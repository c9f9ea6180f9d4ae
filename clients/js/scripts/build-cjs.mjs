/**
 * Writes `cjs/`: the client for `require`, each module a file of the same name, and the types. npm
 * runs it before it packs.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';

import { toCommonJs } from './common-js.mjs';

const root = new URL('..', import.meta.url);
const target = new URL('cjs/', root);

rmSync(target, { recursive: true, force: true });
mkdirSync(new URL('src/', target), { recursive: true });
const modules = readdirSync(new URL('src/', root)).filter((name) => name.endsWith('.js'));
for (const path of ['index.js', ...modules.map((name) => `src/${name}`)]) {
  writeFileSync(new URL(path, target), toCommonJs(path, readFileSync(new URL(path, root), 'utf8')));
}
writeFileSync(new URL('index.d.ts', target), readFileSync(new URL('index.d.ts', root)));
writeFileSync(new URL('package.json', target), '{ "type": "commonjs" }\n');
