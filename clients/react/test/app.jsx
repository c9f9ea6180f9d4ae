/** The pages of the tests: `start(name, given)` shows one, and gives what a test may do with it. */
import { refresh } from './refresh.js';
import { StrictMode, Suspense, startTransition, useEffect, useLayoutEffect, useState, version } from 'react';
import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import { RustySocksProvider, useConnection, usePresence, useRoom } from 'rusty-socks-react';

// How rooms stood at any time.
const shown = new Set();
let effects = 0;

const FAST = { backoffBaseMs: 20, backoffCapMs: 200 };

/** Takes time, so that a rendering in the background is interrupted. */
function work(ms) {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

function Connection() {
  const { client, state, clientId } = useConnection();
  useEffect(() => {
    effects += 1;
    client.ready.catch(({ code }) => shown.add(`not ready: ${code}`));
  }, [client]);
  return <p id="connection">{state === 'open' && clientId ? 'open' : state}</p>;
}

function Log({ name, id }) {
  const [log, setLog] = useState([]);
  const { state, error } = useRoom(name, { onMessage: ({ content }) => setLog((before) => [...before, content]) });
  const stands = `${state}${error ? ` ${error.code}` : ''}`;
  useLayoutEffect(() => void shown.add(stands));
  return <p id={id}>{`${stands}: ${log.join(' ')}`}</p>;
}

function Members({ name, id = 'members' }) {
  const { members, count, state } = usePresence(name, { sender: 'page' });
  const names = members.map(({ sender }) => sender ?? 'somebody').sort();
  return <p id={id}>{`${state} ${count}: ${names.join(' ')}`}</p>;
}

function Form({ name }) {
  const { publish } = useRoom(name);
  return <button id="say" onClick={() => publish('mine', { echo: true })} />;
}

const pages = {
  /** Parts that come and go. */
  parts({ url, room }) {
    const control = {};
    function Parts() {
      const [shown, setShown] = useState(['one', 'two', 'members', 'form']);
      control.show = (...names) => flushSync(() => setShown(names));
      const is = (name) => shown.includes(name);
      return (
        <>
          {is('members') && <Members name={room} />}
          {is('one') && <Log name={room} id="one" />}
          {is('two') && <Log name={room} id="two" />}
          {is('none') && <Log name={null} id="none" />}
          {is('form') && <Form name={room} />}
        </>
      );
    }
    const Tree = () => (
      <RustySocksProvider url={url} options={FAST}>
        <Connection />
        <Parts />
      </RustySocksProvider>
    );
    return { Tree, control };
  },

  /** A room that is changed in the background, by a rendering that waits, and many that read one list. */
  concurrent({ url, readers }) {
    const control = { torn: [], commits: 0, renders: 0 };
    const waits = new Map();
    control.arrive = (name) => waits.get(name).resolve();
    function Slow({ name }) {
      // Thrown, as all versions of React take it.
      if (name.startsWith('slow')) {
        if (!waits.has(name)) {
          const wait = {};
          wait.promise = new Promise((resolve) => {
            wait.resolve = () => {
              wait.isThere = true;
              resolve();
            };
          });
          waits.set(name, wait);
        }
        if (!waits.get(name).isThere) throw waits.get(name).promise;
      }
      return null;
    }
    const read = new Map();
    function Reader({ index }) {
      control.renders += 1;
      const { count, members } = usePresence('crowd');
      work(1);
      useLayoutEffect(() => {
        read.set(index, `${count} ${members.length}`);
      });
      return null;
    }
    function Readers() {
      useLayoutEffect(() => {
        control.commits += 1;
        const values = new Set(read.values());
        if (values.size > 1) control.torn.push([...values]);
      });
      // Rendered with its children, as the list is their own.
      const { count } = usePresence('crowd');
      return (
        <>
          <p id="count">{count}</p>
          {Array.from({ length: readers }, (_, index) => (
            <Reader key={index} index={index} />
          ))}
        </>
      );
    }
    function Rooms() {
      const [name, setName] = useState('tea');
      const [tick, setTick] = useState(0);
      control.go = (next) => startTransition(() => setName(next));
      control.tick = () => flushSync(() => setTick((before) => before + 1));
      return (
        <>
          <p id="tick">{tick}</p>
          <Suspense fallback={<p id="fallback" />}>
            <Log name={name} id="log" />
            <p id="name">{name}</p>
            <Slow name={name} />
          </Suspense>
        </>
      );
    }
    control.background = () => {
      let isOver = false;
      const again = () => {
        if (isOver) return;
        startTransition(() => control.bump());
        setTimeout(again, 0);
      };
      again();
      return () => {
        isOver = true;
      };
    };
    function Crowd() {
      const [, setBump] = useState(0);
      control.bump = () => setBump((before) => before + 1);
      return <Readers />;
    }
    const Tree = () => (
      <RustySocksProvider url={url} options={FAST}>
        <Connection />
        <Rooms />
        {readers > 0 && <Crowd />}
      </RustySocksProvider>
    );
    return { Tree, control };
  },

  /** A component of which there are later versions, as a hot reload brings them. */
  reload({ url }) {
    const versionOf = (number, signature) => {
      function Chat() {
        const [clicks, setClicks] = useState(0);
        const [log, setLog] = useState([]);
        const { state } = useRoom('tea', { onMessage: ({ content }) => setLog((before) => [...before, `${content} by ${number}`]) });
        const { count } = usePresence('tea');
        return (
          <button id="chat" onClick={() => setClicks(clicks + 1)}>
            {`version ${number}, ${clicks} clicks, ${state}, ${count} here: ${log.join(', ')}`}
          </button>
        );
      }
      refresh.register(Chat, 'Chat');
      // Where the hooks have changed, the component is made anew, and otherwise its state is kept.
      refresh.setSignature(Chat, signature, false, () => []);
      return Chat;
    };
    const Chat = versionOf(1, 'first');
    const control = {
      reload(number, signature) {
        versionOf(number, signature);
        return refresh.performReactRefresh() !== null;
      },
    };
    const Tree = () => (
      <RustySocksProvider url={url} options={FAST}>
        <Connection />
        <Chat />
      </RustySocksProvider>
    );
    return { Tree, control };
  },
};

globalThis.start = (name, given) => {
  const { Tree, control } = pages[name](given);
  const root = createRoot(document.getElementById('root'));
  // At the top: below a component that is shown at once with it, it does not begin effects twice.
  root.render(
    <StrictMode>
      <Tree />
    </StrictMode>,
  );
  control.unmount = () => root.unmount();
  control.version = version;
  control.shown = shown;
  control.effects = () => effects;
  globalThis.control = control;
};
