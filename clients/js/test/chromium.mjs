/**
/**
 * A headless Chromium for tests, and files for its pages.
 *
 * `CHROMIUM` names the browser, and `TOOLS` a directory with `playwright-core` in its `node_modules`.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const PLACES = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];
const TYPES = { html: 'text/html', js: 'text/javascript', mjs: 'text/javascript' };

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const inPath = (process.env.PATH ?? '').split(delimiter).flatMap((dir) => NAMES.map((name) => join(dir, name)));
  return [...inPath, ...PLACES].find((path) => existsSync(path));
}

/** A package of `TOOLS`, or `undefined`. */
export function tool(name) {
  try {
    return createRequire(join(process.env.TOOLS ?? '.', 'package.json'))(name);
  } catch {
    return undefined;
  }
}

export const executablePath = findChromium();
export const playwright = tool('playwright-core');
export const missing = [executablePath ? '' : 'Chromium', playwright ? '' : 'playwright-core'].filter(Boolean).join(' and ');
if (missing) console.error(`!!! NOTHING IS TESTED IN A BROWSER, because ${missing} was not found !!!`);

// Without its sandbox where there is root only, as in containers; no page here is a stranger's.
export const launchOptions = { executablePath, headless: true, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] };

/** Starts it with a fresh profile, which its `close` removes. */
export async function launch(flags = []) {
  const profile = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  const browser = await playwright.chromium.launchPersistentContext(profile, {
    ...launchOptions,
    args: [...launchOptions.args, ...flags],
    // Pages are to be kept for coming back to, as in a browser that is used.
    ignoreDefaultArgs: ['--disable-back-forward-cache'],
  });
  const close = browser.close.bind(browser);
  browser.close = async () => {
    await close();
    rmSync(profile, { recursive: true, force: true });
  };
  return browser;
}

/**
 * Serves the files of a directory, and `pages`, texts by their paths, until `stop()`. Gives
 * `{origin, stop}`.
 */
export async function serve(directory, pages) {
  const server = createServer(async (request, response) => {
    // The path of a URL has no `..` in it.
    const { pathname } = new URL(request.url, 'http://localhost');
    const type = TYPES[pathname.split('.').at(-1)] ?? TYPES.html;
    try {
      const text = pages[pathname] ?? (await readFile(join(directory, pathname)));
      response.setHeader('content-type', type).end(text);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { origin: `http://127.0.0.1:${server.address().port}`, stop };
}
