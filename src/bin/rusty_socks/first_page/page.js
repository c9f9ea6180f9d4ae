/** The first page: fills its own address into the snippets, and connects two clients when asked. */
import { Client } from './client.js';

// Someone who left the page open is not worth a place.
const HIDDEN_MS_MAX = 5 * 60_000;

const here = new URL('.', location.href);
const address = new URL('ws', here);
address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';

const room = /^#(try-[a-z0-9]{1,20})$/.exec(location.hash)?.[1] ?? `try-${Math.random().toString(36).slice(2, 8).padEnd(1, '0')}`;
history.replaceState(null, '', `#${room}`);
// Another room, as the link says.
addEventListener('hashchange', () => location.reload());

/** What the page says where this server and room are not known, and what they are. */
const FILLED = [
  ['ws://localhost:3030/ws', address.href],
  ['http://localhost:3030/', here.href],
  ['"try"', `"${room}"`],
  ['--room try ', `--room ${room} `],
];

for (const code of document.querySelectorAll('[data-address]')) code.textContent = address.href;
for (const code of document.querySelectorAll('[data-room]')) code.textContent = room;
for (const pre of document.querySelectorAll('[data-snippet]')) {
  pre.textContent = FILLED.reduce((text, [from, to]) => text.replaceAll(from, to), pre.textContent);
  // Only a page that came through TLS, or from this machine, has a clipboard.
  if (!navigator.clipboard) continue;
  const copy = document.createElement('button');
  copy.textContent = 'Copy';
  copy.addEventListener('click', async () => {
    await navigator.clipboard.writeText(pre.textContent);
    copy.textContent = 'Copied';
  });
  pre.before(copy);
}

const form = document.querySelector('#connect');
const button = form.querySelector('button');
const told = document.querySelector('#told');
const token = document.querySelector('#token');

/** One of the two, with its client while it is connected. */
class Pane {
  #name;
  #status;
  #log;
  #fields;
  #input;
  #client = null;
  #isIn = false;

  constructor(section) {
    this.#name = section.dataset.name;
    this.#status = section.querySelector('.status');
    this.#log = section.querySelector('.log');
    this.#fields = section.querySelectorAll('form > *');
    this.#input = section.querySelector('input');
    section.querySelector('form').addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.#input.value || this.#input.placeholder;
      this.#input.value = '';
      this.#say(text);
    });
  }

  get isOver() {
    return this.#client === null;
  }

  connect() {
    const client = new Client(address.href, { token: token.value || undefined, backlogMax: 0 });
    this.#client = client;
    client.on('state', (event) => this.#show(event));
    client.on('message', (message) => {
      if (message.room === room) this.#add(message.seq, message.sender, message.content);
    });
    client.on('lost', () => this.#add('', '', 'some messages are not kept any more'));
    client.on('dropped', ({ code }) => this.#add('', '', `no longer in the room: ${code}`));
    this.#isIn = false;
    const joined = () => {
      this.#isIn = true;
      this.#show({ state: client.state });
    };
    client.join(room).then(joined, (error) => {
      if (this.#client === client) this.#add('', '', `could not join: ${error.message}`);
    });
  }

  close() {
    this.#client?.close();
  }

  async #say(text) {
    try {
      const { seq } = await this.#client.publish(room, text, { sender: this.#name });
      this.#add(seq, this.#name, text);
    } catch (error) {
      this.#add('', '', `not sent: ${error.message}`);
    }
  }

  #show(event) {
    // Who writes before all are in the room is not heard by all.
    const state = event.state === 'open' && !this.#isIn ? 'joining' : event.state;
    const words = {
      connecting: 'connecting …',
      joining: 'joining the room …',
      open: 'connected',
      waiting: `again in ${Math.ceil((event.delayMs ?? 0) / 1000)} s`,
      closing: 'closing …',
      closed: 'closed',
    };
    this.#status.textContent = words[state];
    this.#status.dataset.state = state;
    for (const field of this.#fields) field.disabled = state !== 'open';
    if (event.end && state === 'waiting') tell(`${event.end.reason}. A full server, or one that does not allow pages of this host, looks like this too.`);
    if (state === 'open') tell('Write something, or open this address in another window.');
    if (state !== 'closed' || !event.end) return;
    this.#client = null;
    if (event.end.code === 4001) {
      tell(`This server wants to know who you are: ${event.end.reason}`);
    } else {
      tell(event.end.reason);
    }
    button.disabled = !panes.every((pane) => pane.isOver);
  }

  #add(seq, sender, content) {
    const line = document.createElement('li');
    const number = document.createElement('span');
    number.className = 'seq';
    number.textContent = seq === '' ? '' : `#${seq}`;
    const text = typeof content === 'string' ? content : JSON.stringify(content);
    line.append(number, sender ? `${sender}: ${text}` : text);
    if (seq === '') line.className = 'note';
    this.#log.append(line);
    // A room may be busy.
    while (this.#log.children.length > 200) this.#log.firstChild.remove();
    this.#log.scrollTop = this.#log.scrollHeight;
  }
}

const panes = [...document.querySelectorAll('.pane')].map((section) => new Pane(section));

function tell(text) {
  told.textContent = text;
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  button.disabled = true;
  for (const pane of panes) pane.connect();
});

let leaving;
document.addEventListener('visibilitychange', () => {
  clearTimeout(leaving);
  if (document.visibilityState === 'hidden') leaving = setTimeout(() => panes.forEach((pane) => pane.close()), HIDDEN_MS_MAX);
});
