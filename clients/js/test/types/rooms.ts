// Compiled and never run: rooms have the types that their client gives them.
import { Client } from 'rusty-socks';
import type { Member, Room, RustySocksError } from 'rusty-socks';

interface Tea {
  cups: number;
}

interface Price {
  euro: number;
}

interface Contents {
  tea: Tea;
  [prices: `prices.${string}`]: Price;
}

async function rooms(any: Client, signal: AbortSignal): Promise<void> {
  const client = new Client<Contents>('ws://localhost:3030/ws', { connect: false, roomLingerMs: 500, membersMax: 10 });
  const plain: Client = client;
  const ready: Promise<void> = client.connect();
  const tea = client.room('tea');
  const price: Room<Price> = client.room('prices.eur');
  const off: () => void = tea.on('message', ({ content, seq }) => console.log(content.cups.toFixed(seq)));
  price.once('message', ({ content: { euro } }) => console.log(euro satisfies number), { signal });
  tea.on('members', ({ members, count }) => console.log(members[0]?.client_id, count));
  tea.on('lost', ({ room, reason }) => console.log(room.length, reason));
  tea.on('state', (event) => {
    if (event.state === 'out') console.log((event.error satisfies RustySocksError | undefined)?.code);
    else console.log(event.error satisfies undefined);
  });
  const { epoch, seq, recovered, count } = await tea.join({ presence: true, sender: 'anna', signal, timeoutMs: 5 });
  const listed: readonly Member[] | null = tea.members;
  const { seq: published } = await tea.publish({ cups: 1 }, { echo: true });
  const { messages } = await tea.history({ limit: 5 });
  for await (const { content } of tea) console.log(content.cups + (messages[0]?.content.cups ?? 0));
  await tea.leave();
  // Without a table of contents, or with a type of its own.
  any.room('tea').on('message', ({ content }) => console.log(content.anything.at.all));
  const own = plain.room<Tea>('milk');
  await own.publish({ cups: 2 });
  off();
  await ready;
  console.log(epoch, seq, recovered, count, listed, published, tea.error?.code, tea.memberCount, client.state === 'idle');
  // @ts-expect-error: it is tea
  await tea.publish({ euro: 1 });
  // @ts-expect-error: a string is no price
  await price.publish({ euro: '1' });
  // @ts-expect-error: there is no such event
  tea.on('mesage', () => {});
  // @ts-expect-error: this event has no content
  tea.on('members', ({ content }) => console.log(content));
  // @ts-expect-error: the list never changes
  tea.members?.push({ client_id: 'x' });
  // @ts-expect-error: rooms come from a client
  new Room('tea');
}

export { rooms };
