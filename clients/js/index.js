/** The session client of Rusty Socks. The types and what they promise are in `index.d.ts`. */
export { Client, DEFAULTS } from './src/client.js';
export { RustySocksError } from './src/errors.js';
