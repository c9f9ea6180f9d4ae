// Compiled and never run: what a user writes must have the types it seems to have.
import { Client, DEFAULTS, RustySocksError } from 'rusty-socks';
import type { ClientOptions, Lost, Message, SavedSession } from 'rusty-socks';

interface Cups {
  cups: number;
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

export { chat };
