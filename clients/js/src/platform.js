/**
 * Network and page events of the platform. The option `platform` replaces it.
 *
 * Node has no such events: none is ever sent, and the client is always online.
 */
export const systemPlatform = {
  isOnline: () => globalThis.navigator?.onLine !== false,

  watch(tell) {
    const { document } = globalThis;
    const events = [
      [globalThis, 'online', () => tell('online')],
      [globalThis, 'offline', () => tell('offline')],
      // Out of the back/forward cache.
      [globalThis, 'pageshow', ({ persisted }) => persisted && tell('wake')],
      [document, 'visibilitychange', () => document.visibilityState === 'visible' && tell('wake')],
      [document, 'resume', () => tell('wake')],
    ].filter(([target]) => typeof target?.addEventListener === 'function');
    for (const [target, name, listener] of events) target.addEventListener(name, listener);
    return () => {
      for (const [target, name, listener] of events) target.removeEventListener(name, listener);
    };
  },
};
