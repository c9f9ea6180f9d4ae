/**
 * A headless Chromium for tests.
 *
 * `CHROMIUM` names the browser, and `TOOLS` a directory with `playwright-core` in its `node_modules`.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const PLACES = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const inPath = (process.env.PATH ?? '').split(delimiter).flatMap((dir) => NAMES.map((name) => join(dir, name)));
  return [...inPath, ...PLACES].find((path) => existsSync(path));
}

function findPlaywright() {
  try {
    return createRequire(join(process.env.TOOLS ?? '.', 'package.json'))('playwright-core');
  } catch {
    return undefined;
  }
}

const executablePath = findChromium();
const playwright = findPlaywright();
export const missing = [executablePath ? '' : 'Chromium', playwright ? '' : 'playwright-core'].filter(Boolean).join(' and ');
if (missing) console.error(`!!! NOTHING IS TESTED IN A BROWSER, because ${missing} was not found !!!`);

/** Starts it with a fresh profile, which its `close` removes. */
export async function launch(flags = []) {
  const profile = mkdtempSync(join(tmpdir(), 'rusty-socks-'));
  // Without its sandbox where there is root only, as in containers; no page here is a stranger's.
  const args = [...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...flags];
  const browser = await playwright.chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args,
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
