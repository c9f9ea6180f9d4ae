// Compiled and never run: what a user writes must have the types it seems to have.
import { Client, DEFAULTS, RustySocksError } from 'rusty-socks';
import type { ClientOptions, Json, Lost, Message, SavedSession } from 'rusty-socks';

interface Cups {
  cups: number;
}

interface Chat {
  text: string;
  readonly tags: readonly string[];
  at: Date;
  cups?: Cups;
  replies: Chat[];
  mood: 'good' | 'bad' | null;
}

enum Mood {
  Good,
  Bad = 'bad',
}

class Point {
  constructor(
    readonly x: number,
    readonly y: number,
  ) {}
}

class Shape {
  area(): number {
    return 1;
  }
}

/** How to connect, and how it is connected. */
function fallback(client: Client): 'websocket' | 'event-stream' | null {
  new Client('wss://localhost/ws', { fallback: 'only' });
  // @ts-expect-error
  new Client('wss://localhost/ws', { fallback: 'never' });
  // @ts-expect-error
  client.transport = null;
  return client.transport;
}

/** What can be sent, and what cannot. */
function send(client: Client, chat: Chat, json: Json, any: any, unknown: unknown, signal: AbortSignal): void {
  client.publish('tea', chat);
  client.publish<Chat>('tea', { text: 'hi', tags: [], at: new Date(), replies: [], mood: null }, { signal, timeoutMs: 5 });
  client.publish('tea', [chat, { chat, point: new Point(1, 2) }]);
  client.direct('somebody', chat, { signal: null });
  client.broadcast({ chat, pair: [1, 'two'] as const, maybe: undefined as string | undefined });
  for (const content of [null, true, 1, 'text', Mood.Bad]) client.publish('tea', content);
  client.publish('tea', json);
  client.publish('tea', any);
  client.publish('tea', JSON.parse('{}'));
  client.reconnect();
  // @ts-expect-error: not known to be JSON
  client.publish('tea', unknown);
  // @ts-expect-error: JSON has no bigint
  client.publish('tea', 10n);
  // @ts-expect-error: deep down neither
  client.publish('tea', { deep: [{ down: 10n }] });
  // @ts-expect-error: no symbol
  client.direct('somebody', Symbol('x'));
  // @ts-expect-error: nothing at all
  client.publish('tea', undefined);
  // @ts-expect-error: a map would be empty
  client.publish('tea', new Map([['a', 1]]));
  // @ts-expect-error: methods do not travel
  client.broadcast(new Shape());
  // @ts-expect-error: there is no such option
  client.publish('tea', 'x', { timeout: 5 });
}

async function chat(saved: SavedSession | undefined, signal: AbortSignal): Promise<number> {
  const options: ClientOptions = { session: saved, signal, headers: { authorization: 'Bearer x' }, queueMax: 10, backlogMax: 0, outboxBytesMax: 1e6 };
  const client = new Client(new URL('ws://localhost:3030/ws'), options);
  const off: () => void = client.on('message', (message: Message<Cups>) => console.log(message.content.cups));
  client.on('lost', (lost: Lost) => {
    if (lost.direct) console.log(lost.from);
    else if (lost.reason === 'not_read') console.log(lost.room, lost.epoch, lost.from);
    else if (lost.reason === 'epoch') console.log(lost.room, lost.from satisfies null);
    else console.log(lost.room, lost.to - lost.from);
  });
  client.on('state', (event) => {
    if (event.state === 'waiting') console.log(event.delayMs, event.end.status);
    if (event.state === 'closed') console.log(event.end.error?.code);
  });
  client.once('session', ({ clientId, resumed, previous }) => console.log(clientId, resumed, previous), { signal });
  await client.ready;
  const { epoch, seq, members } = await client.join('tea', { presence: true, sender: 'anna' });
  await client.join('milk', { since: { epoch, seq } });
  const { rooms } = await client.join('prices.*');
  const published = await client.publish(['tea', 'milk'], { cups: 2, list: [1, null] }, { echo: true });
  const places: { room: string; seq: number }[] | undefined = published.rooms;
  try {
    await client.direct('somebody', 'hi', { timestamp: new Date() });
  } catch (error) {
    if (error instanceof RustySocksError && error.code === 'not_found') console.log(error.retryAfterMs);
  }
  const page = await client.history('tea', { after: seq, limit: 10 });
  const { count } = await client.presence('tea', { watch: true });
  off();
  for await (const message of client) {
    const at: number = message.seq;
    if (at > page.messages.length) break;
  }
  const session: SavedSession = client.session;
  const end = await client.close();
  // @ts-expect-error: there is no such event
  client.on('mesage', () => {});
  // @ts-expect-error: a function is no JSON
  client.publish('tea', () => {});
  // @ts-expect-error: a pattern has no position
  client.join('prices.*', { since: { epoch, seq } }).then(({ rooms: none }) => none);
  return end.code + count + rooms.length + (places?.length ?? 0) + session.rooms.length + (members?.length ?? 0) + (DEFAULTS.queueMax ?? 0);
}

export { chat, send };
