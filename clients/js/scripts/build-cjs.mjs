/**
 * Writes `cjs/`: the client for `require`, each module a file of the same name, and the types.
 *
 * It knows the forms of `import` and `export` that the client uses and refuses every other one, so
 * nothing is left out in silence. npm runs it before it packs.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';

const root = new URL('..', import.meta.url);
const target = new URL('cjs/', root);

/** The text of a module as CommonJS. */
function toCommonJs(path, source) {
  const names = [];
  const text = source
    .replace(/^(import|export) \{([^}]*)\} from ('[^']+');$/gm, (_, kind, list, from) => {
      if (kind === 'export') names.push(...list.split(',').map((name) => name.trim()));
      return `const {${list.replaceAll(' as ', ': ')}} = require(${from});`;
    })
    .replace(/^import \* as (\w+) from ('[^']+');$/gm, 'const $1 = require($2);')
    .replace(/\bawait import\(('[^']+')\)/g, 'require($1)')
    .replace(/^export ((?:async )?function|class|const) (\w+)/gm, (_, kind, name) => {
      names.push(name);
      return `${kind} ${name}`;
    });
  const unknown = /^\s*(import|export)\b.*|.*\bimport(\(|\.meta).*/m.exec(text);
  if (unknown) throw new Error(`${path}: this form is not known here: ${unknown[0].trim()}`);
  return `'use strict';\n${text}\nObject.assign(exports, { ${names.join(', ')} });\n`;
}

rmSync(target, { recursive: true, force: true });
mkdirSync(new URL('src/', target), { recursive: true });
const modules = readdirSync(new URL('src/', root)).filter((name) => name.endsWith('.js'));
for (const path of ['index.js', ...modules.map((name) => `src/${name}`)]) {
  writeFileSync(new URL(path, target), toCommonJs(path, readFileSync(new URL(path, root), 'utf8')));
}
writeFileSync(new URL('index.d.ts', target), readFileSync(new URL('index.d.ts', root)));
writeFileSync(new URL('package.json', target), '{ "type": "commonjs" }\n');
