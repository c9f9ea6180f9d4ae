/**
 * The client as `dist/rusty-socks.js` gives it to a page: the global `RustySocks`.
 *
 * `/// <reference types="rusty-socks/global" />` makes it known.
 */
export * from './index.js';
export as namespace RustySocks;
