// Compiled and never run: what a user writes has the types it seems to have.
import { Client } from 'rusty-socks';
import { RustySocksProvider, useClient, useConnection, usePresence, useRoom } from 'rusty-socks-react';

interface Tea {
  cups: number;
}

function Chat({ name }: { name: string | null }) {
  const client: Client = useClient();
  const { state, clientId, reconnect } = useConnection();
  const { room, error, publish, history } = useRoom<Tea>(name, {
    sender: 'anna',
    presence: true,
    onMessage: ({ content }) => console.log(content.cups satisfies number),
    onLost: ({ from, reason }) => console.log(from, reason),
  });
  const { members, count } = usePresence(name);
  const say = () => publish({ cups: count }, { echo: true });
  // @ts-expect-error: it is tea
  const wrong = () => publish({ milk: 1 });
  // @ts-expect-error: there is no such option
  useRoom(name, { onMesage: () => {} });
  history({ limit: 5 }).then(({ messages }) => console.log(messages[0]?.content.cups));
  console.log(client.state, room?.name, error?.code, say, wrong);
  return (
    <button onClick={reconnect}>
      {state} {clientId} {members.map(({ sender }) => sender)}
    </button>
  );
}

export const Given = ({ client }: { client: Client<{ tea: Tea }> }) => (
  <RustySocksProvider client={client}>
    <Chat name="tea" />
  </RustySocksProvider>
);

export const Own = () => (
  <RustySocksProvider url="ws://localhost:3030/ws" options={{ token: () => 'x', roomLingerMs: 500 }}>
    <Chat name={null} />
  </RustySocksProvider>
);

// @ts-expect-error: one of them
export const Both = ({ client }: { client: Client }) => <RustySocksProvider client={client} url="ws://localhost:3030/ws" />;
