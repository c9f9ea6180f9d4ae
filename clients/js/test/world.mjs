/** The server and the proxy of one scenario, and the verbs that a scenario has for them. */
import { Proxy } from './proxy.mjs';
import { Server } from './server.mjs';

export const SOAK_MS = Number(process.env.SOAK_MS ?? 4000);
export const SEED = Number(process.env.SEED ?? Date.now() % 1e6);

/** Starts both, calls `use(world)`, and ends them whatever happens. */
export async function inWorld(settings, use) {
  let server = await Server.start(settings);
  const proxy = await Proxy.start(server.port);
  const verbs = {
    proxy: (verb, ...rest) => proxy[verb](...rest),
    server: async (verb) => {
      if (verb !== 'restart') throw new Error(`the server knows no ${verb}`);
      await server.stop('SIGTERM');
      server = await Server.start(settings);
      proxy.target = server.port;
    },
  };
  const world = {
    url: server.url,
    proxied: server.urlAt(proxy.port),
    proxy: async (...call) => verbs.proxy(...call),
    server: async (...call) => verbs.server(...call),
    seed: SEED,
    soakMs: SOAK_MS,
  };
  try {
    return await use(world);
  } finally {
    await proxy.stop();
    await server.stop();
  }
}
