/** Rooms, presence and the connection of Rusty Socks for React. `index.d.ts` says what is promised. */
import {
  createContext,
  createElement,
  useCallback,
  useContext,
  useEffect,
  useInsertionEffect,
  useMemo,
  useRef,
  useState,
  useSyncExternalStore,
} from 'react';
import { Client, RustySocksError } from 'rusty-socks';

const ClientContext = createContext(null);

// Which prop of `useRoom` hears which event.
const LISTENERS = { message: 'onMessage', joined: 'onJoined', left: 'onLeft', lost: 'onLost' };

const NOBODY = Object.freeze([]);

export function RustySocksProvider({ client, url, options, children }) {
  if (client) return createElement(ClientContext.Provider, { value: client }, children);
  // Another address is another client.
  return createElement(OwnClient, { key: String(url), url, options }, children);
}

export function useClient() {
  const client = useContext(ClientContext);
  if (!client) throw new Error('there is no RustySocksProvider around this component');
  return client;
}

export function useConnection() {
  const client = useClient();
  const state = useEvents(client, 'state session', () => client.state, () => 'idle');
  const clientId = useEvents(client, 'state session', () => client.clientId, () => null);
  return useMemo(() => ({ client, state, clientId, reconnect: () => client.reconnect() }), [client, state, clientId]);
}

export function useRoom(name, options = {}) {
  const { room, state, error } = useJoined(name, options);
  const publish = useCallback((...given) => (room ? room.publish(...given) : noRoom()), [room]);
  const history = useCallback((...given) => (room ? room.history(...given) : noRoom()), [room]);
  return useMemo(() => ({ room, state, error, publish, history }), [room, state, error, publish, history]);
}

export function usePresence(name, options = {}) {
  const { room, state, error } = useJoined(name, { ...options, presence: true });
  const members = useEvents(room, 'members state', () => room?.members ?? NOBODY, () => NOBODY);
  const count = useEvents(room, 'members state', () => room?.memberCount ?? 0, () => 0);
  return useMemo(() => ({ members, count, state, error }), [members, count, state, error]);
}

/** A client that lives as long as the provider, and connects when that is on the page. */
function OwnClient({ url, options, children }) {
  // Made while rendering, which may be done twice or for nothing: such a client costs nothing.
  const make = () => new Client(url, { ...options, connect: false });
  const [client, setClient] = useState(make);
  const closing = useRef(null);
  useEffect(() => {
    clearTimeout(closing.current);
    if (client.state === 'closing' || client.state === 'closed') {
      // The page was hidden for a while, and is shown again.
      setClient(make());
      return undefined;
    }
    client.connect().catch(() => {});
    return () => {
      // Strict mode and hot reloads end effects and begin them again in the same turn.
      closing.current = setTimeout(() => client.close(), 0);
    };
    // The options are those of the first rendering, as with any other initial value.
  }, [client]);
  return createElement(ClientContext.Provider, { value: client }, children);
}

/** A room that is joined while the component is on the page. */
function useJoined(name, options) {
  const client = useClient();
  const { presence, sender } = options;
  // Costs nothing until it is joined, so a rendering that comes to nothing leaves nothing behind.
  const room = useMemo(() => (name === null || name === undefined ? null : client.room(name)), [client, name]);
  const latest = useRef(options);
  useInsertionEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    if (!room) return undefined;
    const ends = Object.entries(LISTENERS).map(([event, prop]) => room.on(event, (told) => latest.current[prop]?.(told)));
    // Why it fails is told by the state.
    room.join({ since: latest.current.since, presence, sender }).catch(() => {});
    return () => {
      for (const end of ends) end();
      room.leave();
    };
  }, [room, presence, sender]);
  const state = useEvents(room, 'state', () => room?.state ?? 'out', () => 'out');
  const error = useEvents(room, 'state', () => room?.error ?? null, () => null);
  return { room, state, error };
}

/** What `look()` gives, and again after each event of these names. */
function useEvents(source, names, look, lookOnServer) {
  const subscribe = useCallback(
    (changed) => {
      const ends = source ? names.split(' ').map((name) => source.on(name, changed)) : [];
      return () => {
        for (const end of ends) end();
      };
    },
    [source, names],
  );
  return useSyncExternalStore(subscribe, look, lookOnServer);
}

function noRoom() {
  return Promise.reject(new RustySocksError('left', 'there is no room: its name is null'));
}
