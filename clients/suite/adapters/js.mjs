/** The JavaScript client for the conformance suite: orders from stdin, what it yields to stdout, a line each. */
import { createInterface } from 'node:readline';

import { Client } from '../../js/index.js';

const BY_DESIGN = {};

let client = null;

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const OPTIONS = {
  backoff_base_ms: 'backoffBaseMs',
  backoff_cap_ms: 'backoffCapMs',
  open_timeout_ms: 'openTimeoutMs',
  outbox_max: 'outboxMax',
};

const known = (options = {}) => Object.fromEntries(Object.entries(options).map(([name, value]) => [OPTIONS[name], value]).filter(([name]) => name));

const EVENTS = {
  message: ({ room, seq, rooms, id, content, client_id }) => ({ yield: 'message', room, seq, rooms, id, content, client_id }),
  direct: ({ seq, id, content }) => ({ yield: 'direct', seq, id, content }),
  broadcast: ({ id, content }) => ({ yield: 'broadcast', id, content }),
  joined: ({ room, client_id }) => ({ yield: 'joined', room, client_id }),
  left: ({ room, client_id }) => ({ yield: 'left', room, client_id }),
  presence: ({ room, members }) => ({ yield: 'members', room, clients: members.map(({ client_id }) => client_id) }),
  lost: ({ room = null, from, to }) => ({ yield: 'lost', room, from: from ?? null, to: to ?? null }),
  matched: ({ pattern, room }) => ({ yield: 'matched', pattern, room }),
  unmatched: ({ pattern, room }) => ({ yield: 'unmatched', pattern, room }),
  dropped: ({ room, code }) => ({ yield: 'excluded', room, code }),
  session: ({ clientId, resumed }) => ({ yield: 'open', client_id: clientId, resumed }),
};

function make(url, options, more = {}) {
  // The suite plays a server of WebSockets alone.
  const made = new Client(url, { fallback: 'off', ...known(options), ...more });
  client = made;
  // Not what is left of a case before.
  const tell = (what) => made === client && say(what);
  for (const [name, told] of Object.entries(EVENTS)) made.on(name, (event) => tell(told(event)));
  made.on('state', (event) => {
    if (event.state === 'waiting') tell({ yield: 'waiting', delay_ms: event.delayMs, code: event.end.code, status: event.end.status });
  });
  made.closed.then(({ error, code, status }) => {
    if (error) tell({ yield: 'end', code, status });
  });
}

const circle = {};
circle.circle = circle;
const deep = (depth) => {
  let value = [];
  for (let at = 1; at < depth; at += 1) value = [value];
  return value;
};

/** Values that no line of JSON could bring here. */
const VALUES = {
  nan: () => NaN,
  infinity: () => Infinity,
  circle: () => circle,
  function: () => () => {},
  nothing: () => undefined,
  big: () => 10n ** 400n,
  bytes: () => new Uint8Array([0, 255]),
  set: () => new Set([1]),
  half: () => '\ud83d',
  deep: () => deep(100_000),
  throws: () => ({ toJSON: () => { throw new Error('no'); } }),
  key: () => new Map([[{}, 1]]),
};

const content = ({ value, content: given }) => (value === undefined ? given : VALUES[value]());

/** How long the call waits: not at all, or until it is aborted soon. */
function wait({ signal, timeout_ms: timeoutMs }) {
  if (signal === 'aborted') return { signal: AbortSignal.abort() };
  if (signal === 'soon') return { signal: AbortSignal.timeout(50) };
  return timeoutMs === undefined ? {} : { timeoutMs };
}

const options = (order, ...names) => {
  const given = Object.fromEntries(names.filter((name) => name in order).map((name) => [name, order[name]]));
  return { ...given, ...wait(order) };
};

const ORDERS = {
  about: () => ({ name: 'js', by_design: BY_DESIGN }),
  new: (order) => void make(order.url, order.options, { connect: false }),
  connect: (order) => {
    if (client) void client.connect().catch(() => {});
    else make(order.url, order.options);
  },
  join: (order) => client.join(order.room, options(order, 'since', 'presence', 'sender')),
  leave: (order) => client.leave(order.room, options(order)),
  publish: (order) => client.publish(order.rooms ?? order.room, content(order), options(order, 'id', 'sender', 'echo')),
  direct: (order) => client.direct(order.to, content(order), options(order, 'id')),
  broadcast: (order) => client.broadcast(content(order), options(order)),
  history: async (order) => {
    const { messages } = await client.history(order.room, options(order, 'before', 'after', 'limit'));
    return { seqs: messages.map(({ seq }) => seq) };
  },
  presence: async (order) => {
    const { members, count } = await client.presence(order.room, options(order, 'watch', 'after', 'limit'));
    return { clients: members.map(({ client_id }) => client_id), count };
  },
  close: async () => void (await client?.close()),
  reset: async () => {
    const old = client;
    client = null;
    await old?.close();
  },
};

/** An error in the suite's words: the server's code, or what the client says of itself. */
function codeOf(error) {
  if (error instanceof TypeError || error instanceof SyntaxError) return 'caller';
  if (error.code === 'bad_request' && !/the case says/.test(error.message)) return 'caller';
  return error.code === 'outbox_full' ? 'full' : error.code ?? error.constructor.name;
}

async function carryOut(order) {
  try {
    if (!(order.do in ORDERS)) throw Object.assign(new Error(), { skip: `no ${order.do}` });
    say({ result: order.n, ok: (await ORDERS[order.do](order)) ?? null });
  } catch (error) {
    if (error.skip) say({ result: order.n, skip: error.skip });
    else say({ result: order.n, error: codeOf(error), message: error.message });
  }
}

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => carryOut(JSON.parse(line)));
lines.on('close', () => client?.close());
