// Imported before React, so that React knows of the reloads to come.
import { injectIntoGlobalHook, performReactRefresh, register, setSignature } from 'react-refresh/runtime';

injectIntoGlobalHook(globalThis);

export const refresh = { performReactRefresh, register, setSignature };
