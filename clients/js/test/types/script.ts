// Compiled and never run: a script that the global of `dist/rusty-socks.js` is for.
/// <reference types="rusty-socks/global" />

const client: RustySocks.Client = new RustySocks.Client('ws://localhost:3030/ws');
client.room<{ cups: number }>('tea').on('message', ({ content }) => console.log(content.cups satisfies number));
client.closed.then(({ error }) => console.log(error instanceof RustySocks.RustySocksError));
// @ts-expect-error: there is no such event
client.on('mesage', () => {});
