/**
 * What the client must do against the real server, through a proxy that cuts, stalls and resets. The same
 * scenarios run in Node and in a page, so this imports nothing of Node.
 *
 * A scenario is given `world`: `Client`, the address `url` of the server and `proxied` of the way through the
 * proxy, `proxy(verb, ...arguments)` and `server(verb, ...arguments)`, and `seed`. One that `needsWebSocket`
 * is not played with event streams alone.
 */
import { equal, generator, ok, rejects, until, within } from './environment.mjs';

// Long enough that what is lost has to be fetched again, short enough that the tests are.
const FAST = { backoffBaseMs: 20, backoffCapMs: 200, openTimeoutMs: 3000 };

/** Clients that are closed when the scenario is over. */
function makeClients(world) {
  const clients = [];
  const connect = (options = {}, url = world.proxied) => {
    const client = new world.Client(url, { ...FAST, ...options });
    clients.push(client);
    client.seen = [];
    client.losses = [];
    client.sessions = [];
    client.states = [];
    client.on('message', ({ content }) => client.seen.push(content));
    client.on('lost', (range) => client.losses.push(range));
    client.on('session', (event) => client.sessions.push(event));
    client.on('state', (event) => client.states.push(event));
    return client;
  };
  const closeAll = () => Promise.all(clients.map((client) => client.close()));
  return { connect, closeAll };
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Breaks the connections of the proxy, and waits until this client has a session again. */
async function breakAndReturn(world, client, verb) {
  const before = client.sessions.length;
  await world.proxy(verb);
  await until('new session', () => client.sessions.length > before && client.state === 'open');
}

const SECRET = 'a secret for tests that has enough bytes';

const identity = { identity: 'required', token_hmac_secret: SECRET, token_grace: 1 };

/** A token of a user for so many seconds, for these rooms. */
async function sign(user, seconds, rooms = '*') {
  const bytes = (text) => new TextEncoder().encode(text);
  const base64 = (data) => btoa(String.fromCharCode(...data)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
  const allow = ['join', 'publish', 'history', 'presence', 'direct'];
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const parts = [{ alg: 'HS256' }, { sub: user, exp, rooms: [{ match: rooms, allow }] }];
  const message = parts.map((part) => base64(bytes(JSON.stringify(part)))).join('.');
  const key = await crypto.subtle.importKey('raw', bytes(SECRET), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const signature = await crypto.subtle.sign('HMAC', key, bytes(message));
  return `${message}.${base64(new Uint8Array(signature))}`;
}

export const scenarios = [
  {
    name: 'a token in the first frame, renewed before it ends, and after a lost connection',
    server: identity,
    async run({ connect }, world) {
      let asked = 0;
      const token = () => {
        asked += 1;
        return sign('anna', asked === 1 ? 2 : 600);
      };
      const anna = connect({ token });
      const ben = connect({ token: await sign('ben', 600) }, world.url);
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all([anna.join('tea'), ben.join('tea')]);
      await until('renewal', () => asked === 2);
      equal(anna.sessions.length, 1);
      const users = [];
      ben.on('message', ({ user }) => users.push(user));
      await anna.publish('tea', 'still here');
      await until('message', () => users.length === 1);
      equal(users, ['anna']);
      await breakAndReturn(world, anna, 'cut');
      equal([asked, anna.sessions.at(-1).resumed], [3, true]);
    },
  },
  {
    name: 'a token that is refused ends the client, which says why',
    server: identity,
    async run({ connect }) {
      const ends = [];
      for (const token of ['nonsense', await sign('anna', -60), async () => 'a.b.c']) {
        const { code, reason } = await connect({ token }).closed;
        ends.push(`${code} ${reason}`);
      }
      const malformed = '4001 the token is not a signed JWT';
      equal(ends, [malformed, '4001 the token has expired', malformed]);
      const nobody = await connect({ reconnect: false, token: () => Promise.reject(new Error('asleep')) }).closed;
      equal(nobody.reason, 'there is no token: asleep');
    },
  },
  {
    name: 'a token as a subprotocol',
    server: identity,
    needsWebSocket: true,
    async run({ connect }) {
      const protocols = ['rusty-socks.v1', `rusty-socks.token.${await sign('anna', 600)}`];
      const anna = connect({ protocols });
      await anna.ready;
      equal(anna.sessions[0].welcome.user, 'anna');
    },
  },
  {
    name: 'a session goes on from a WebSocket to an event stream, and back',
    needsWebSocket: true,
    async run({ connect }, world) {
      const anna = connect();
      const ben = connect({}, world.url);
      await Promise.all([anna.ready, ben.ready]);
      const { clientId } = anna;
      await ben.publish('lobby', 1);
      equal([anna.transport, ben.transport], ['websocket', 'websocket']);
      for (const [blocked, transport, number] of [['upgrade: websocket', 'event-stream', 2], ['text/event-stream', 'websocket', 3]]) {
        await world.proxy('block', blocked);
        await world.proxy('cut');
        await ben.publish('lobby', number);
        const published = anna.publish('lobby', `of anna, ${number}`, { echo: true });
        await until(transport, () => anna.transport === transport && anna.state === 'open');
        equal((await within('answer', published)).repeated, false);
        await ben.publish('lobby', `${number}, live`);
      }
      await until('messages', () => anna.seen.length === 7 && ben.seen.length === 2);
      const isOwn = (content) => /anna/.test(content);
      equal(anna.seen.filter((content) => !isOwn(content)), [1, 2, '2, live', 3, '3, live']);
      equal(anna.seen.filter(isOwn), ben.seen);
      equal([anna.losses, ben.losses, anna.clientId], [[], [], clientId]);
      equal(anna.sessions.map(({ resumed }) => resumed), [false, true, true]);
    },
  },
  {
    name: 'rooms that a new token does not allow are dropped',
    server: identity,
    async run({ connect }) {
      let asked = 0;
      const token = () => {
        asked += 1;
        return asked === 1 ? sign('anna', 2) : sign('anna', 600, 'lobby');
      };
      const anna = connect({ token });
      const dropped = [];
      anna.on('dropped', (event) => dropped.push(event));
      await anna.join('tea');
      await until('drop', () => dropped.length === 1);
      equal(dropped, [{ room: 'tea', code: 'forbidden' }]);
      await rejects(anna.join('tea'), 'forbidden');
    },
  },
  {
    name: 'publish, receive, history, leave',
    async run({ connect }, world) {
      const anna = connect();
      const ben = connect({}, world.url);
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all([anna.join('tea'), ben.join('tea')]);
      const first = await anna.publish('tea', { cups: 2 }, { sender: 'anna' });
      equal([first.room, first.seq, first.repeated], ['tea', 1, false]);
      await until('message', () => ben.seen.length === 1);
      equal(ben.seen, [{ cups: 2 }]);
      equal(anna.seen, []);
      await anna.publish('tea', 'and back', { echo: true });
      await until('echo', () => anna.seen.length === 1);
      const page = await ben.history('tea', { limit: 1 });
      equal(page.messages.map(({ content }) => content), ['and back']);
      equal(page.seq, 2);
      await ben.leave('tea');
      await rejects(ben.publish('tea', 'no'), 'not_member');
      await rejects(anna.join('tea'), 'already_member');
      await rejects(anna.join('p*q'), 'bad_request');
      equal(anna.rooms, ['lobby', 'tea']);
    },
  },
  {
    name: 'iteration yields what is said, in order',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      const read = (async () => {
        const seen = [];
        for await (const { content } of ben) {
          seen.push(content);
          if (content === 49) break;
        }
        return seen;
      })();
      await Promise.all(range(0, 49).map((i) => anna.publish('lobby', i)));
      equal(await within('last message', read), range(0, 49));
    },
  },
  ...['cut', 'reset'].map((verb) => ({
    name: `a connection that is ${verb} is resumed, and nothing is missed or repeated`,
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all([anna.join('tea'), ben.join('tea')]);
      const { clientId } = ben;
      let next = 1;
      for (let round = 0; round < 5; round += 1) {
        await anna.publish('tea', next);
        await world.proxy('refuse', true);
        await world.proxy(verb);
        await until('loss', () => ben.state !== 'open');
        for (const i of range(next + 1, next + 9)) await anna.publish('tea', i);
        next += 10;
        await world.proxy('refuse', false);
        await until('messages', () => ben.seen.length >= next - 1);
      }
      equal(ben.seen, range(1, 50));
      equal(ben.losses, []);
      equal(ben.clientId, clientId);
      ok(ben.sessions.slice(1).every(({ resumed }) => resumed), 'each session is the first one, resumed');
    },
  })),
  {
    name: 'publishes during a loss arrive once, and in order',
    async run({ connect }, world) {
      const [anna, ben] = [connect(), connect({}, world.url)];
      await Promise.all([anna.ready, ben.ready]);
      const results = [];
      for (const i of range(1, 60)) {
        results.push(anna.publish('lobby', i));
        // In the middle of things: some were taken and not answered, some were not even sent.
        if (i % 20 === 10) await world.proxy('reset');
      }
      const seqs = (await within('answers', Promise.all(results))).map(({ seq }) => seq);
      await until('messages', () => ben.seen.length >= 60);
      equal(ben.seen, range(1, 60));
      equal(seqs, range(1, 60));
      equal(anna.seen, []);
    },
  },
  {
    name: 'a publish whose answer is held back is not published twice',
    async run({ connect }, world) {
      const [anna, ben] = [connect(), connect({}, world.url)];
      await Promise.all([anna.ready, ben.ready]);
      await world.proxy('stall', 'down');
      const result = anna.publish('lobby', 'once');
      await until('message', () => ben.seen.length === 1);
      await world.proxy('reset');
      await world.proxy('release');
      const { seq } = await within('answer', result);
      equal(seq, 1);
      await ben.publish('lobby', 'after');
      await until('message', () => anna.seen.includes('after'));
      equal([anna.seen, ben.seen], [['after'], ['once']]);
    },
  },
  ...['up', 'down'].map((direction) => ({
    name: `a network that is silent ${direction} is given up, and the session goes on`,
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect({ pingMsMax: 100, silenceMs: 400 })];
      await Promise.all([anna.ready, ben.ready]);
      const { clientId } = ben;
      await world.proxy('stall', direction);
      await until('loss', () => ben.state !== 'open');
      equal(ben.states.find(({ state }) => state === 'waiting').end.reason, 'the server went silent');
      await anna.publish('lobby', 'meanwhile');
      await world.proxy('release');
      await until('message', () => ben.seen.length === 1);
      equal([ben.seen, ben.losses, ben.clientId], [['meanwhile'], [], clientId]);
      // What the old connection held back, a close frame perhaps, does not harm the new one.
      await anna.publish('lobby', 'and then');
      await until('message', () => ben.seen.length === 2);
      equal(ben.state, 'open');
    },
  })),
  {
    name: 'a slow network is no reason to give up',
    async run({ connect }, world) {
      await world.proxy('delay', 150);
      const client = connect({ pingMsMax: 200, silenceMs: 2000 });
      await client.ready;
      const results = await Promise.all(range(1, 100).map((i) => client.publish('lobby', i)));
      equal(results.map(({ seq }) => seq), range(1, 100));
      equal(client.sessions.length, 1);
    },
  },
  {
    name: 'more missed than is kept: the rest is told as lost',
    server: { history: 5, replay: 0 },
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await anna.publish('lobby', 1);
      await until('message', () => ben.seen.length === 1);
      await world.proxy('refuse', true);
      await world.proxy('cut');
      await until('loss', () => ben.state !== 'open');
      for (const i of range(2, 20)) await anna.publish('lobby', i);
      await world.proxy('refuse', false);
      await until('messages', () => ben.seen.includes(20));
      equal(ben.seen, [1, 16, 17, 18, 19, 20]);
      equal(ben.losses.map(({ room, from, to, reason }) => [room, from, to, reason]), [['lobby', 2, 15, 'not_kept']]);
    },
  },
  {
    name: 'a session that has expired is begun anew, and nothing is missed',
    server: { resume_window: 0.3 },
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all([anna.join('tea'), ben.join('tea', { presence: true, sender: 'ben' })]);
      const { clientId } = ben;
      await anna.presence('tea', { watch: true });
      const gone = new Promise((resolve) => anna.once('left', resolve));
      await world.proxy('refuse', true);
      await world.proxy('reset');
      equal((await within('notice', gone)).client_id, clientId);
      await anna.publish('tea', 'while away');
      await anna.publish('lobby', 'here too');
      const back = new Promise((resolve) => anna.once('joined', resolve));
      await world.proxy('refuse', false);
      await until('messages', () => ben.seen.length === 2);
      equal(ben.seen.sort(), ['here too', 'while away']);
      const { resumed, previous } = ben.sessions.at(-1);
      equal([resumed, previous, ben.clientId === clientId], [false, clientId, false]);
      const { client_id, sender } = await within('notice', back);
      equal([client_id, sender], [ben.clientId, 'ben']);
    },
  },
  {
    name: 'a resume within the window is seen by nobody',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all([anna.join('tea'), ben.join('tea')]);
      const notices = [];
      for (const name of ['joined', 'left']) anna.on(name, ({ room }) => room === 'tea' && notices.push(name));
      const { members, count } = await anna.presence('tea', { watch: true });
      equal([members.map(({ client_id }) => client_id).sort(), count], [[anna.clientId, ben.clientId].sort(), 2]);
      for (const verb of ['cut', 'reset']) await breakAndReturn(world, ben, verb);
      await ben.leave('tea');
      await until('notice', () => notices.length > 0);
      equal(notices, ['left']);
    },
  },
  {
    name: 'closing ends the session for all to see',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await ben.join('tea');
      await anna.join('tea', { presence: true });
      const left = new Promise((resolve) => anna.once('left', resolve));
      const { clientId, session } = ben;
      await ben.close();
      equal((await within('notice', left)).client_id, clientId);
      // Its token is worth nothing now, but its positions are.
      await anna.publish('tea', 'after');
      const again = connect({ session });
      await again.ready;
      ok(!again.sessions[0].resumed && again.clientId !== clientId, 'the session had ended');
      await until('message', () => again.seen.length === 1);
      equal(again.seen, ['after']);
    },
  },
  {
    name: 'direct messages come once, over a loss too',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      const seen = [];
      ben.on('direct', ({ seq, content, client_id }) => {
        equal(client_id, anna.clientId);
        seen.push([seq, content]);
      });
      await anna.direct(ben.clientId, 'a');
      await until('direct message', () => seen.length === 1);
      await world.proxy('refuse', true);
      await world.proxy('cut');
      await until('loss', () => ben.state !== 'open');
      await anna.direct(ben.clientId, 'b');
      await world.proxy('refuse', false);
      await until('direct message', () => seen.length === 2);
      await anna.direct(ben.clientId, 'c');
      await until('direct message', () => seen.length === 3);
      equal(seen, [[1, 'a'], [2, 'b'], [3, 'c']]);
      await rejects(anna.direct('00000000-0000-4000-8000-000000000000', 'x'), 'not_found');
    },
  },
  {
    name: 'broadcasts, where they are allowed',
    server: { broadcast: true },
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      const told = new Promise((resolve) => ben.once('broadcast', resolve));
      const { id } = await anna.broadcast({ all: true }, { sender: 'anna' });
      const { content, sender, client_id, id: toldId } = await within('broadcast', told);
      equal([content, sender, client_id, toldId], [{ all: true }, 'anna', anna.clientId, id]);
    },
  },
  {
    name: 'broadcasts, where they are not',
    async run({ connect }) {
      const anna = connect();
      await anna.ready;
      await rejects(anna.broadcast('x'), 'forbidden');
    },
  },
  {
    name: 'patterns, with rooms made before, after, and while away',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await anna.join('prices.eur');
      await anna.publish('prices.eur', 'before');
      const { rooms } = await ben.join('prices.*');
      equal(rooms.map(({ room, seq }) => [room, seq]), [['prices.eur', 1]]);
      const matched = [];
      ben.on('matched', ({ room }) => matched.push(room));
      await anna.join('prices.usd');
      await anna.publish('prices.usd', 'usd');
      await anna.publish('prices.eur', 'eur');
      await until('messages', () => ben.seen.length === 2);
      await world.proxy('refuse', true);
      await world.proxy('reset');
      await until('loss', () => ben.state !== 'open');
      await anna.join('prices.gbp');
      await anna.publish('prices.gbp', 'gbp');
      await anna.publish('prices.usd', 'usd again');
      await world.proxy('refuse', false);
      await until('messages', () => ben.seen.length === 4);
      equal(ben.seen.slice().sort(), ['eur', 'gbp', 'usd', 'usd again']);
      equal(matched, ['prices.usd', 'prices.gbp']);
      await ben.leave('prices.*');
      equal(ben.rooms, ['lobby']);
      await anna.publish('prices.eur', 'unheard');
      await anna.publish('lobby', 'end');
      await until('message', () => ben.seen.includes('end'));
      equal(ben.seen.length, 5);
    },
  },
  {
    name: 'a message to several rooms comes once, live and after a loss',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      for (const client of [anna, ben]) for (const room of ['a', 'b']) await client.join(room);
      const { rooms } = await anna.publish(['a', 'b', 'lobby'], 'live');
      equal(rooms.map(({ room, seq }) => [room, seq]), [['a', 1], ['b', 1], ['lobby', 1]]);
      await until('message', () => ben.seen.length === 1);
      await world.proxy('refuse', true);
      await world.proxy('cut');
      await until('loss', () => ben.state !== 'open');
      await anna.publish('b', 'b2');
      await anna.publish(['a', 'b'], 'both');
      await anna.publish('a', 'a3');
      await world.proxy('refuse', false);
      await until('messages', () => ben.seen.length === 4);
      equal(ben.seen, ['live', 'b2', 'both', 'a3']);
      await anna.publish(['b', 'a'], 'end');
      await until('message', () => ben.seen.length === 5);
      equal(ben.seen[4], 'end');
    },
  },
  {
    name: 'a saved session goes on where it was',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await ben.join('tea');
      await anna.join('tea');
      await anna.publish('tea', 1);
      await until('message', () => ben.seen.length === 1);
      const session = JSON.parse(JSON.stringify(ben.session));
      await anna.publish('tea', 2);
      await until('message', () => ben.seen.length === 2);
      const again = connect({ session }, world.url);
      await again.ready;
      equal([again.clientId, again.seen], [ben.clientId, [2]]);
      // The one it was taken from is told, and does not fight for it.
      const { code } = await within('end', ben.closed);
      equal(code, 4010);
      await anna.publish('tea', 3);
      await until('message', () => again.seen.length === 2);
    },
  },
  {
    name: 'a server that restarts is found again, and its rooms are others',
    async run({ connect }, world) {
      const ben = connect();
      await ben.ready;
      await ben.publish('lobby', 1);
      const { clientId } = ben;
      await world.server('restart');
      await until('session', () => ben.sessions.length === 2 && ben.state === 'open');
      ok(ben.clientId !== clientId, 'a new identity');
      const closing = ben.states.find(({ state }) => state === 'waiting');
      equal(closing.end.code, 1001);
      equal(ben.losses.map(({ room, from, to, reason }) => [room, from, to, reason]), [['lobby', null, null, 'epoch']]);
      equal((await ben.publish('lobby', 2)).seq, 1);
    },
  },
  {
    name: 'rate limits slow publishing down, and lose nothing',
    server: { rate_messages: 100 },
    async run({ connect }, world) {
      const [anna, ben] = [connect(), connect({}, world.url)];
      await Promise.all([anna.ready, ben.ready]);
      const results = await within('answers', Promise.all(range(1, 250).map((i) => anna.publish('lobby', i))));
      equal(results.length, 250);
      await until('messages', () => ben.seen.length >= 250);
      // What was in flight together may change places when some of it is refused for the moment.
      equal(ben.seen.sort((a, b) => a - b), range(1, 250));
    },
  },
  {
    name: 'a burst far over the rate costs no connection',
    server: { rate_messages: 20, history: 100 },
    async run({ connect }, world) {
      const [anna, ben] = [connect(), connect({}, world.url)];
      await Promise.all([anna.ready, ben.ready]);
      const results = await within('answers', Promise.all(range(1, 70).map((i) => anna.publish('lobby', i))));
      equal(results.map(({ seq }) => seq), range(1, 70));
      await until('messages', () => ben.seen.length >= 70);
      equal(ben.seen, range(1, 70));
      equal([anna.sessions.length, ben.sessions.length], [1, 1]);
    },
  },
  {
    name: 'mistakes without number cost no connection',
    async run({ connect }) {
      const client = connect();
      await client.ready;
      await Promise.all(range(1, 100).map((i) => rejects(client.publish('nowhere', i), 'not_member')));
      await rejects(client.publish('lobby', 10n), 'bad_request');
      equal([(await client.publish('lobby', 'fine')).seq, client.sessions.length], [1, 1]);
    },
  },
  {
    name: 'a room that is joined and left in one turn stays left, and one that is joined again is in',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      await Promise.all(['tea', 'p.a'].map((room) => anna.join(room)));
      await Promise.all([ben.join('tea'), ben.leave('tea'), ben.join('p.*'), ben.leave('p.*')]);
      for (const verb of ['cut', 'reset']) {
        equal(ben.rooms, ['lobby']);
        equal([(await anna.presence('tea')).count, (await anna.presence('p.a')).count], [1, 1]);
        await breakAndReturn(world, ben, verb);
      }
      await Promise.all([ben.join('tea'), ben.leave('tea'), ben.join('tea')]);
      await anna.publish('p.a', 'unheard');
      await anna.publish('tea', 'heard');
      await until('message', () => ben.seen.length > 0);
      equal([ben.seen, ben.rooms], [['heard'], ['lobby', 'tea']]);
    },
  },
  {
    name: 'what came before the first loop is yielded by it',
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      for (const i of range(1, 3)) await anna.publish('lobby', i);
      await until('messages', () => ben.seen.length === 3);
      const yielded = [];
      for await (const { content } of ben) if (yielded.push(content) === 3) break;
      equal(yielded, range(1, 3));
    },
  },
  ...['gap', 'latest'].map((overflow) => ({
    name: `too slow in a room that says "${overflow}": every number is yielded or told as lost`,
    server: { overflow, buffer: 16, history: 1000, history_bytes: '64MiB' },
    async run({ connect }, world) {
      const [anna, ben] = [connect({}, world.url), connect()];
      await Promise.all([anna.ready, ben.ready]);
      const { overflow: told } = await ben.join('big');
      equal(told, overflow);
      await anna.join('big');
      const order = [];
      ben.on('message', ({ room, seq }) => room === 'big' && order.push([seq, seq]));
      ben.on('lost', ({ from, to }) => order.push([from, to]));
      await world.proxy('stall', 'down');
      // More than all buffers between the server and the proxy hold.
      const pad = 'x'.repeat(60_000);
      await Promise.all(range(1, 300).map((i) => anna.publish('big', { i, pad })));
      await world.proxy('release');
      await until('last message', () => order.at(-1)?.[1] === 300);
      order.forEach(([from], i) => equal(from, i === 0 ? 1 : order[i - 1][1] + 1, 'what follows'));
      if (overflow === 'gap') equal(ben.losses, []);
      else ok(ben.losses.length > 0 && ben.losses.every(({ reason }) => reason === 'latest'), 'it was too slow');
      equal(ben.sessions.length, 1);
      return `${ben.seen.length} messages, ${ben.losses.length} losses`;
    },
  })),
  {
    name: 'soak: publishers and readers while the proxy cuts, resets and stalls',
    server: { history: 10_000, history_bytes: '16MiB', buffer_bytes: '8MiB', buffer: 100_000 },
    run: soak,
  },
  {
    name: 'rooms of several users: one subscription, with members, over a cut, a leave and a restart',
    async run({ connect }, world) {
      const anna = connect({ connect: false });
      const [one, two] = [anna.room('tea'), anna.room('tea')];
      const seen = { one: [], two: [] };
      one.on('message', ({ content }) => seen.one.push(content));
      two.on('message', ({ content }) => seen.two.push(content));
      equal(anna.state, 'idle');
      const joins = [one.join({ presence: true, sender: 'anna' }), two.join()];
      await anna.connect();
      await Promise.all(joins);
      const names = () => one.members.map(({ sender }) => sender ?? '').sort();
      equal([names(), two.members], [['anna'], null]);
      const ben = connect({}, world.url);
      await ben.ready;
      const bens = ben.room('tea');
      await bens.join({ sender: 'ben' });
      await until('ben', () => names().length === 2);
      await bens.publish('first');
      await until('first', () => seen.one.length === 1);
      await two.leave();
      await breakAndReturn(world, anna, 'cut');
      await bens.publish('second');
      await until('second', () => seen.one.length === 2);
      equal([seen, names(), one.memberCount], [{ one: ['first', 'second'], two: ['first'] }, ['anna', 'ben'], 2]);
      await bens.leave();
      await until('end of ben', () => names().length === 1);
      // The last user goes, and the server knows.
      await bens.join();
      await one.leave();
      const { members } = await ben.presence('tea');
      equal(members.map(({ client_id }) => client_id), [ben.clientId]);
      await one.join({ presence: true });
      const before = anna.clientId;
      await world.server('restart');
      await until('new session', () => anna.state === 'open' && anna.clientId !== before);
      await until('members of the new session', () => one.members.some(({ client_id }) => client_id === anna.clientId));
      equal([one.state, anna.rooms.includes('tea')], ['joined', true]);
    },
  },
];

/** Fewer would be no soak. */
const SOAK_MESSAGES_MIN = 50;

async function soak({ connect }, world) {
  const random = generator(world.seed);
  const control = connect({}, world.url);
  const publishers = range(0, 3).map(() => connect({ pingMsMax: 200, silenceMs: 800 }));
  const readers = range(0, 1).map(() => connect({ pingMsMax: 200, silenceMs: 800 }));
  const all = [control, ...publishers, ...readers];
  await Promise.all(all.map((client) => client.ready));
  const rooms = ['x', 'y'];
  for (const client of all) {
    client.log = { x: [], y: [] };
    client.on('message', (message) => {
      for (const { room, seq } of message.rooms ?? [message]) client.log[room]?.push(`${seq} ${message.content}`);
    });
    await Promise.all(rooms.map((room) => client.join(room)));
  }
  const published = [];
  const begun = performance.now();
  // Where each break costs much, as without WebSockets, it goes on until there were enough messages.
  const goesOn = () => {
    const passed = performance.now() - begun;
    return passed < world.soakMs || (published.length < SOAK_MESSAGES_MIN && passed < 4 * world.soakMs);
  };
  const publish = async (publisher, name) => {
    for (let i = 0; goesOn(); i += 1) {
      const to = [['x'], ['y'], ['x', 'y']][i % 3];
      published.push(publisher.publish(to.length === 1 ? to[0] : to, `${name}.${i}`, { echo: true }));
      // A few at a time, as a caller would that waits for some of its answers.
      if (i % 4 === 3) await within('answers', Promise.all(published.slice(-4)));
    }
  };
  let breaks = 0;
  const harm = async () => {
    while (goesOn()) {
      const verb = ['cut', 'reset', 'stall', 'delay'][Math.floor(random() * 4)];
      if (verb === 'stall') await world.proxy('stall', random() < 0.5 ? 'up' : 'down');
      else if (verb === 'delay') await world.proxy('delay', Math.floor(random() * 30));
      else await world.proxy(verb);
      breaks += 1;
      // The network is as it is for a moment: this is the weather, not a wait for something.
      await new Promise((resolve) => setTimeout(resolve, 50 + random() * 250));
      await world.proxy('release');
    }
    await world.proxy('delay', 0);
  };
  await Promise.all([harm(), ...publishers.map((publisher, i) => publish(publisher, i))]);
  const results = await within('answers', Promise.all(published));
  const hint = `seed ${world.seed}`;
  const counts = Object.fromEntries(rooms.map((room) => [room, 0]));
  for (const { room, seq, rooms: places } of results) {
    for (const place of places ?? [{ room, seq }]) counts[place.room] = Math.max(counts[place.room], place.seq);
  }
  const want = counts.x + counts.y;
  const total = ({ log }) => log.x.length + log.y.length;
  for (const client of all) {
    const missing = (room) => control.log[room].filter((line) => !client.log[room].includes(line)).slice(0, 3);
    const story = () => `${client.state}, ${client.sessions.length} sessions, ${all.map(total)} of ${want}, without ${rooms.flatMap(missing)}, losses ${JSON.stringify(client.losses)}`;
    await until(() => `messages (${hint}; ${story()})`, () => total(client) >= want);
  }
  for (const client of all) {
    equal(client.losses, [], `losses, ${hint},`);
    for (const room of rooms) equal(client.log[room], control.log[room], `room ${room}, ${hint},`);
  }
  for (const room of rooms) {
    equal(control.log[room].map((line) => parseInt(line, 10)), range(1, counts[room]), `numbers of ${room}, ${hint},`);
    equal(new Set(control.log[room].map((line) => line.split(' ')[1])).size, counts[room], `contents of ${room}, ${hint},`);
  }
  ok(results.length >= SOAK_MESSAGES_MIN && breaks > 5, `it was a soak: ${results.length} messages, ${breaks} breaks`);
  const sessions = [...publishers, ...readers].reduce((sum, client) => sum + client.sessions.length, 0);
  return `${results.length} messages, ${breaks} breaks, ${sessions} sessions, ${hint}`;
}

/** Runs one scenario. `world` is as above; what is returned is worth a line in the log. */
export async function runScenario(name, world) {
  const scenario = scenarios.find((candidate) => candidate.name === name);
  const { connect, closeAll } = makeClients(world);
  try {
    return (await scenario.run({ connect }, world)) ?? '';
  } finally {
    await closeAll();
  }
}
