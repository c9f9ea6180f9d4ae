/** Rooms, presence and the connection of Rusty Socks for React 18 and 19. */
import type { ReactNode, FunctionComponent } from 'react';
import type {
  Client,
  ClientEvents,
  ClientOptions,
  HistoryOptions,
  HistoryPage,
  Member,
  Message,
  Position,
  Published,
  PublishOptions,
  Room,
  RoomEvents,
  RoomStateEvent,
  RustySocksError,
  Sendable,
  StateEvent,
} from 'rusty-socks';

export type RustySocksProviderProps = { children?: ReactNode } & (
  | {
      /** A client that the program has made, and closes itself. */
      client: Client;
      url?: undefined;
      options?: undefined;
    }
  | {
      /** Where to connect to, when the provider is on the page. Closed when it is not any more. */
      url: string | URL;
      /** Of the client; those of the first rendering, and of the first with another `url`. */
      options?: Omit<ClientOptions, 'connect'>;
      client?: undefined;
    }
);

/** Gives a client to all components below. */
export const RustySocksProvider: FunctionComponent<RustySocksProviderProps>;

/** The client of the provider. */
export function useClient(): Client;

export interface Connection {
  client: Client;
  state: StateEvent['state'];
  clientId: string | null;
  /** Reconnects at once: see the client. */
  reconnect: () => void;
}

/** The connection, and whether it is there. */
export function useConnection(): Connection;

export interface UseRoomOptions<Content = any> {
  /** Called with each message, `onJoined` and `onLeft` with `presence` only. Always the latest is called. */
  onMessage?: ((message: Message<Content>) => void) | undefined;
  onJoined?: ((event: ClientEvents['joined']) => void) | undefined;
  onLeft?: ((event: ClientEvents['left']) => void) | undefined;
  onLost?: ((event: RoomEvents['lost']) => void) | undefined;
  /** Watches the members: `room.members`. */
  presence?: boolean | undefined;
  /** Where to begin, if the client is not in the room yet. */
  since?: Position | undefined;
  /** The name in presence, if the client is not in the room yet. */
  sender?: string | undefined;
}

export interface UsedRoom<Content = any> {
  /** `null` without a name. */
  room: Room<Content> | null;
  state: RoomStateEvent['state'];
  /** Why the room is `out`, if it was refused or has ended. */
  error: RustySocksError | null;
  /** As of the room; always the same function for one room. Own messages come back with `echo`. */
  publish: (content: Content & Sendable<Content>, options?: PublishOptions) => Promise<Published>;
  history: (options?: HistoryOptions) => Promise<HistoryPage<Content>>;
}

/**
 * Is in the room while the component is on the page. All components share one subscription, and one
 * that goes while another comes causes no command. Without a name, `null`, there is no room.
 */
export function useRoom<Content = any>(name: string | null | undefined, options?: UseRoomOptions<Content>): UsedRoom<Content>;

export interface UsedPresence {
  /** Empty until it is known. Another list after each change. */
  members: readonly Member[];
  /** The number of members, those that are not listed included. */
  count: number;
  state: RoomStateEvent['state'];
  error: RustySocksError | null;
}

/** The members of a room, kept up to date. Is in the room as with `useRoom`. */
export function usePresence(name: string | null | undefined, options?: { sender?: string }): UsedPresence;
