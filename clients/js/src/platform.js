/**
 * What the platform tells of the network and of the page. Another one can be given with the option
 * `platform`.
 *
 * In Node there is none of this: the events never come, and there is always a network.
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
