/**
 * Writes `dist/`: the client for pages in one file each, without what is for Node alone.
 *
 * - `rusty-socks.js` for `<script>`, which sets the global `RustySocks`, and `rusty-socks.mjs` for
 *   `import` by address. They need no tool; npm has them made before it packs.
 * - `rusty-socks.min.js` and `rusty-socks.min.mjs`, smaller, where esbuild is found: in the
 *   directory `TOOLS`, or beside the package. With `--min` it is an error if it is not. They load
 *   `rusty-socks.event-stream.min.mjs` from beside them where no WebSocket can be had.
 *
 * `--out DIRECTORY` writes them elsewhere.
 */
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';

import { toCommonJs } from './common-js.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values } = parseArgs({ options: { min: { type: 'boolean' }, out: { type: 'string' } } });
const target = resolve(values.out ?? join(root, 'dist'));
const read = (path) => readFileSync(join(root, path), 'utf8');

const { version } = JSON.parse(read('package.json'));
const BANNER = `/*! rusty-socks ${version}, MIT license */\n`;
const EXPORTS = ['Client', 'DEFAULTS', 'RustySocksError'];

/** An expression with what the client exports: each module is a function, run once. */
function bundle() {
  const names = readdirSync(join(root, 'src')).filter((name) => name.endsWith('.js') && name !== 'node-socket.js');
  const modules = names.map((name) => `  './${name}'(exports, require) {\n${toCommonJs(name, read(`src/${name}`))}  },\n`);
  const index = toCommonJs('index.js', read('index.js')).replaceAll("'./src/", "'./");
  return `(() => {
const modules = {
${modules.join('')}};
const loaded = new Map();
function require(name) {
  if (!modules[name]) throw new Error(name + ' is not in this build: it is for pages');
  if (!loaded.has(name)) {
    loaded.set(name, {});
    modules[name](loaded.get(name), require);
  }
  return loaded.get(name);
}
const exports = {};
${index}return exports;
})()`;
}

function findEsbuild() {
  for (const home of [process.env.TOOLS, root]) {
    try {
      if (home) return createRequire(join(resolve(home), 'package.json'))('esbuild');
    } catch {
      // Not there.
    }
  }
  return undefined;
}

const EVENT_STREAM = 'rusty-socks.event-stream.min.mjs';

/** What few pages need is a file of its own. */
const apart = {
  name: 'apart',
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/event-stream\.js$/ }, ({ kind }) =>
      kind === 'dynamic-import' ? { path: `./${EVENT_STREAM}`, external: true } : undefined,
    ),
};

async function minify(esbuild) {
  const common = {
    absWorkingDir: root,
    plugins: [apart],
    bundle: true,
    minify: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2022',
    // A page has none. So the choice of a socket has no branch for Node, and no trace of its module is left.
    define: { 'globalThis.process': 'undefined' },
    banner: { js: BANNER.trim() },
    write: false,
  };
  const build = async (...entryPoints) => (await esbuild.build({ ...common, entryPoints })).outputFiles[0].text;
  const text = await build('index.js');
  write('rusty-socks.min.js', asGlobal(text));
  write('rusty-socks.min.mjs', text);
  write(EVENT_STREAM, await build('src/event-stream.js'));
}

/** The same for a page without modules. That of esbuild has helpers for `require`, which nobody calls. */
function asGlobal(text) {
  const [, head, body, list] = /^(\/\*![^]*?\*\/\n)([^]*)export\{([^}]*)\};\s*$/.exec(text);
  const fields = list.split(',').map((item) => item.split(' as ')).map(([local, name = local]) => `${name}:${local}`);
  return `${head}var RustySocks=(()=>{${body}return{${fields}}})();\n`;
}

function write(name, text) {
  writeFileSync(join(target, name), text);
  const zipped = gzipSync(text, { level: 9 }).length;
  console.error(`${name}: ${text.length} bytes, ${zipped} with gzip`);
}

rmSync(target, { recursive: true, force: true });
mkdirSync(target, { recursive: true });
const text = bundle();
write('rusty-socks.js', `${BANNER}var RustySocks = ${text};\n`);
write('rusty-socks.mjs', `${BANNER}const { ${EXPORTS.join(', ')} } = ${text};\nexport { ${EXPORTS.join(', ')} };\n`);
const esbuild = findEsbuild();
if (esbuild) await minify(esbuild);
else if (values.min) throw new Error('esbuild was not found in TOOLS or beside the package');
