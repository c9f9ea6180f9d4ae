/** Writes `cjs/`: the hooks for `require`, and the types. npm runs it before it packs. */
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

import { toCommonJs } from '../../js/scripts/common-js.mjs';

const root = new URL('..', import.meta.url);
const target = new URL('cjs/', root);

rmSync(target, { recursive: true, force: true });
mkdirSync(target);
writeFileSync(new URL('index.js', target), toCommonJs('index.js', readFileSync(new URL('index.js', root), 'utf8')));
copyFileSync(new URL('index.d.ts', root), new URL('index.d.ts', target));
writeFileSync(new URL('package.json', target), '{ "type": "commonjs" }\n');
