/**
 * Writes the client as one file that needs no build: what the server sends as `/client.js`. With
 * `--check` it writes nothing, and fails if the file is not what these sources make.
 *
 * Each module becomes a function that gives its exports, in an order in which each comes after what
 * it imports. What only Node needs is loaded there alone. Like `build-cjs.mjs` it knows the forms of
 * `import` and `export` that the client uses, and refuses every other one.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = new URL('..', import.meta.url);
const target = new URL('../../../src/bin/rusty_socks/first_page/client.js', import.meta.url);

const variable = (path) => basename(path, '.js').replaceAll('-', '_') + '_js';

/** Comments fill lines of their own in the sources, so that a line tells. */
function withoutComments(source) {
  return source.replace(/^[ \t]*\/\*\*[^]*?\*\/\n/gm, '').replace(/^[ \t]*\/\/.*\n/gm, '');
}

/** The text of a module inside a function, and the modules that it imports, at once or later. */
function toBody(name) {
  const imports = [];
  const later = [];
  const exports = [];
  const from = (path) => {
    if (path.startsWith('node:')) return `await import('${path}')`;
    imports.push(basename(path));
    return variable(path);
  };
  const text = withoutComments(readFileSync(new URL(`src/${name}`, root), 'utf8'))
    .replace(/^import \{([^}]*)\} from '([^']+)';$/gm, (_, list, path) => {
      return `const {${list.replaceAll(' as ', ': ')}} = ${from(path)};`;
    })
    .replace(/^import \* as (\w+) from '([^']+)';$/gm, (_, star, path) => `const ${star} = ${from(path)};`)
    .replace(/\bawait import\('(\.[^']+)'\)/g, (_, path) => {
      later.push(basename(path));
      return `await ${variable(path)}()`;
    })
    .replace(/^export ((?:async )?function|class|const) (\w+)/gm, (_, kind, exported) => {
      exports.push(exported);
      return `${kind} ${exported}`;
    });
  const unknown = /^\s*(import|export)\b.*|.*\bimport(\((?!'node:)|\.meta).*/m.exec(text);
  if (unknown) throw new Error(`${name}: this form is not known here: ${unknown[0].trim()}`);
  return { text: `${text.trim()}\nreturn { ${exports.join(', ')} };\n`, imports, later };
}

/**
 * The texts of these modules and of all that they import and `done` does not have, each after what
 * it imports; `done` and `later` learn of them.
 */
function inOrder(names, done, later, above = []) {
  return names.flatMap((name) => {
    if (above.includes(name)) throw new Error(`modules in a circle: ${[...above, name].join(', ')}`);
    if (done.has(name)) return [];
    const body = toBody(name);
    later.push(...body.later);
    const before = inOrder(body.imports, done, later, [...above, name]);
    done.add(name);
    return [...before, `const ${variable(name)} = (() => {\n${body.text}})();\n`];
  });
}

/** What is only imported where it is needed, with all that only it imports. */
function onDemand(name, done) {
  const { text, imports, later } = toBody(name);
  const before = inOrder(imports, done, later);
  if (later.length > 0) throw new Error(`${name}: imports ${later.join(', ')} later still`);
  return `const ${variable(name)} = async () => {\n${before.join('')}${text}};\n`;
}

export function bundle() {
  const done = new Set();
  const later = [];
  const index = readFileSync(new URL('index.js', root), 'utf8');
  const exported = [...index.matchAll(/^export \{([^}]*)\} from '([^']+)';$/gm)];
  const texts = inOrder(exported.map(([, , path]) => basename(path)), done, later);
  texts.push(...[...new Set(later)].map((name) => onDemand(name, done)));
  const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  const head = [
    `// The session client of Rusty Socks ${version}, MIT licence: import { Client } from this file, in a page`,
    '// or in Node 20 or newer. Made of clients/js/src by clients/js/scripts/bundle.mjs; do not edit.',
    '',
  ];
  const tail = exported.map(([, list, path]) => `export const {${list}} = ${variable(path)};\n`);
  return [head.join('\n'), ...texts, ...tail].join('');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = bundle();
  if (!process.argv.includes('--check')) writeFileSync(target, text);
  else if (readFileSync(target, 'utf8').replaceAll('\r\n', '\n') !== text) {
    throw new Error(`${fileURLToPath(target)} is not what clients/js/src makes: run clients/js/scripts/bundle.mjs`);
  }
}
