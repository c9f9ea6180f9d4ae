/**
 * The dashboard. The figures come over a WebSocket of the admin listener, once a second; lists come
 * from the server API, when somebody looks at them.
 *
 * Names and contents of rooms are a stranger's: they become text nodes and nothing else, and the
 * policy of the page forbids the other ways.
 */

const STORED = 'rusty-socks-api-key';
/** Seconds of the charts. */
const SHOWN_S = 120;
/** How often the list that is looked at is asked for again. */
const REFRESH_MS = 5000;
/** A page that nobody looks at gives its place among the viewers back. */
const HIDDEN_MS_MAX = 60_000;
/** Figures come once a second: a connection on which none have come for so long leads nowhere. */
const SILENT_MS_MAX = 10_000;
const RETRY_MS_MAX = 15_000;
const PAGE = 50;
const CONTENT_CHARS_MAX = 4000;
/** Certificates that end sooner than this are worth a colour. */
const CERTIFICATE_DAYS_MIN = 14;

const here = new URL('.', location.href);
const $ = (id) => document.getElementById(id);

/** Makes an element with texts and elements in it. */
function make(tag, className = '', ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

function setText(element, text) {
  // What has not changed is not drawn, read out or selected anew.
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat('en');
const number = (value) => whole.format(Math.round(value));
function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
const rate = (value) => (value < 10 && value % 1 !== 0 ? value.toFixed(1) : number(value));
function duration(seconds) {
  const parts = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return '0 s';
  const [[size, unit], next] = parts.slice(first);
  const rest = next ? Math.floor((seconds % size) / next[0]) : 0;
  return `${Math.floor(seconds / size)} ${unit}${rest > 0 ? ` ${rest} ${next[1]}` : ''}`;
}
const milliseconds = (ms) => (ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 1 || ms === 0 ? `${Number(ms.toPrecision(2))} ms` : `${Math.round(ms * 1000)} µs`);
/** `late_turns` as people write it. */
const words = (name) => name.replaceAll('_', ' ');

// --- The key, and what it may be used for.

/** `{name, scopes, rooms}`, as the server says. */
let rights = null;
let key = sessionStorage.getItem(STORED);

const has = (scope) => rights.scopes.includes(scope);
const hasAllRooms = () => rights.rooms.includes('*');

/** What the server did not do, and why. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(method, path, body, signal) {
  let answer;
  try {
    answer = await fetch(new URL(path, here), {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { Authorization: `Bearer ${key}` },
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
      signal,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal(0, 'the server does not answer');
  }
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  const refusal = new Refusal(answer.status, told.message ?? `the server answered ${answer.status}`);
  if (answer.status === 401 && rights) leave(`The key is good no more: ${refusal.message}.`);
  throw refusal;
}

async function enter() {
  try {
    rights = await ask('GET', 'v1/key');
  } catch (refusal) {
    if (refusal.status !== 401) {
      // The server may be on its way back, and the key may be good.
      showDoor(`Not signed in: ${refusal.message}.`);
      return;
    }
    leave(`Not signed in: ${refusal.message}.`);
    return;
  }
  sessionStorage.setItem(STORED, key);
  $('key').value = '';
  $('door').hidden = true;
  $('house').hidden = false;
  const may = rights.scopes.join(', ') + (hasAllRooms() ? '' : ` in ${rights.rooms.join(', ')}`);
  setText($('who'), `${rights.name} (${may})`);
  live.start();
  route();
}

function showDoor(why = '') {
  $('house').hidden = true;
  $('door').hidden = false;
  setText($('refused'), why);
  $('key').focus();
}

function leave(why) {
  live.stop();
  views[shownView]?.hide?.();
  key = null;
  rights = null;
  sessionStorage.removeItem(STORED);
  // Nothing that was read with the key stays in the page.
  for (const view of Object.values(views)) view.forget?.();
  showDoor(why);
}

$('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  key = $('key').value.trim();
  // No other character can stand in a header.
  if (!/^[\x21-\x7e]+$/.test(key)) return showDoor('Not signed in: no key looks like this.');
  enter();
});
$('leave').addEventListener('click', () => leave(''));

// --- The figures.

class Live {
  #socket = null;
  /** For the next try, or for the end of patience with this one. */
  #timer = 0;
  #retries = 0;

  start() {
    if (!this.#socket) this.#connect();
  }

  stop() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #connect() {
    clearTimeout(this.#timer);
    if (!has('read') || !hasAllRooms()) {
      figures.refuse(lacks('read', true));
      this.#say('no figures', '');
      return;
    }
    const address = new URL('v1/live', here);
    address.protocol = here.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(address);
    this.#socket = socket;
    this.#wait(socket);
    socket.addEventListener('open', () => socket.send(JSON.stringify({ type: 'auth', key })));
    socket.addEventListener('message', ({ data }) => {
      if (this.#socket !== socket) return;
      this.#retries = 0;
      this.#wait(socket);
      this.#say('live', 'good');
      figures.take(JSON.parse(data));
    });
    socket.addEventListener('close', ({ code, reason }) => {
      if (this.#socket === socket) this.#end(code, reason);
    });
  }

  /** Gives the connection up if no figures come in time. */
  #wait(socket) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // Its own end may take minutes to come.
      socket.close();
      this.#end(1006, 'the server is silent');
    }, SILENT_MS_MAX);
  }

  /** The connection has ended: comes again, unless the key is in the way. */
  #end(code, reason) {
    clearTimeout(this.#timer);
    this.#socket = null;
    if (code === 4001) return leave(`The key is good no more: ${reason}.`);
    if (code === 4003) {
      figures.refuse(`This key may not read the figures: ${reason}.`);
      return this.#say('no figures', '');
    }
    // 1012 says that the settings have changed, and that the key is to be shown again.
    const most = Math.min(RETRY_MS_MAX, 500 * 2 ** this.#retries++);
    const wait = code === 1012 ? 50 : most * (0.5 + Math.random() / 2);
    const why = code === 1013 ? 'too many viewers' : 'not connected';
    if (code !== 1012) this.#say(why, 'bad');
    if (!figures.latest) figures.refuse(`No figures yet: ${reason || why}. The page tries again by itself.`);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #say(text, tone) {
    setText($('live'), text);
    $('live').className = `pill ${tone}`;
    $('house').classList.toggle('stale', tone === 'bad');
  }

  pause() {
    this.stop();
    this.#say('paused', '');
  }
}
const live = new Live();

let leaving = 0;
document.addEventListener('visibilitychange', () => {
  clearTimeout(leaving);
  if (!rights) return;
  if (document.visibilityState === 'hidden') leaving = setTimeout(() => live.pause(), HIDDEN_MS_MAX);
  else live.start();
});

const SVG = 'http://www.w3.org/2000/svg';

/** A number, what is to be said of it, and how it went. */
class Chart {
  #big = make('div', 'big');
  #under = make('div', 'under');
  #area = document.createElementNS(SVG, 'path');
  #line = document.createElementNS(SVG, 'path');
  #meter = make('div', 'meter', make('div'));

  constructor(name) {
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('class', 'spark');
    svg.setAttribute('viewBox', `0 0 ${SHOWN_S} 100`);
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('aria-hidden', 'true');
    this.#area.setAttribute('class', 'area');
    svg.append(this.#area, this.#line);
    this.#meter.hidden = true;
    document.querySelector(`[data-chart="${name}"]`).append(this.#big, this.#under, this.#meter, svg);
  }

  /** `points` are `[age in seconds, value]`, the oldest first; `of` is what the value may be at most. */
  show(value, unit, under, points, of = 0) {
    this.#big.replaceChildren(value, make('small', '', unit));
    setText(this.#under, under);
    const peak = Math.max(1e-9, ...points.map(([, value]) => value));
    const at = ([age, value]) => `${(SHOWN_S - age).toFixed(1)} ${(98 - (94 * value) / peak).toFixed(1)}`;
    const line = points.map(at).join('L');
    this.#line.setAttribute('d', points.length > 1 ? `M${line}` : '');
    const first = points.length > 1 ? SHOWN_S - points[0][0] : 0;
    this.#area.setAttribute('d', points.length > 1 ? `M${first} 100L${line}L${SHOWN_S} 100Z` : '');
    this.#meter.hidden = of <= 0;
    if (of > 0) {
      const used = Math.min(1, points.at(-1)[1] / of);
      this.#meter.className = `meter ${used >= 0.95 ? 'bad' : used >= 0.8 ? 'warn' : ''}`;
      this.#meter.firstChild.style.width = `${(100 * used).toFixed(1)}%`;
    }
  }
}

/** Shows pairs of a name and a value; `[name, value, tone, isPart]`. */
function showPairs(list, pairs, otherwise) {
  const shown = pairs.length > 0 ? pairs : [[otherwise, '']];
  while (list.children.length > shown.length * 2) list.lastChild.remove();
  shown.forEach(([name, value, tone = '', isPart = false], index) => {
    if (list.children.length < index * 2 + 2) list.append(make('dt'), make('dd'));
    const [dt, dd] = [list.children[index * 2], list.children[index * 2 + 1]];
    setText(dt, name);
    setText(dd, value);
    dt.className = isPart ? 'inner' : '';
    dd.className = tone;
  });
}

/**
 * Shows one row for each item, and keeps the rows of those that stay. The others go first: a row that
 * is moved loses the focus.
 */
function showRows(body, items, keyOf, makeRow, update) {
  const wanted = new Set(items.map((item) => String(keyOf(item))));
  const before = new Map();
  for (const row of [...body.children]) {
    const { key: rowKey } = row.dataset;
    if (wanted.has(rowKey) && !before.has(rowKey)) before.set(rowKey, row);
    else row.remove();
  }
  let place = body.firstElementChild;
  for (const item of items) {
    const itemKey = String(keyOf(item));
    let row = before.get(itemKey);
    before.delete(itemKey);
    if (!row) {
      row = makeRow(item);
      row.dataset.key = itemKey;
    }
    update(row, item);
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
}

/** A cell with a number, which says of what where its table has no head. */
function counted(what) {
  const cell = make('td', 'n');
  cell.dataset.label = what;
  return cell;
}

/** Shows the texts of rows; a column that is a number stands right. */
function showCells(body, rows) {
  const makeRow = (row) => make('tr', '', ...row.map((_, column) => make('td', column > 0 ? 'n' : '')));
  const update = (tr, row) => row.forEach((text, column) => setText(tr.children[column], text));
  showRows(body, rows, (row) => row[0], makeRow, update);
}

class Figures {
  /** `{at, stats}` of the last two minutes; `at` in seconds of the server's uptime. */
  #past = [];
  #charts = Object.fromEntries([...document.querySelectorAll('[data-chart]')].map((card) => [card.dataset.chart, new Chart(card.dataset.chart)]));
  latest = null;

  refuse(why) {
    for (const id of ['figures', 'counts']) $(id).hidden = true;
    notice($('overview'), why);
  }

  forget() {
    this.#past = [];
    this.latest = null;
    for (const id of ['figures', 'counts']) $(id).hidden = true;
    for (const id of ['latency', 'workers', 'account', 'reasons', 'closes', 'health', 'troubles']) $(id).replaceChildren();
    for (const id of ['state', 'live', 'uptime', 'who']) setText($(id), '');
  }

  take(message) {
    if (message.type !== 'figures') return;
    const { stats } = message;
    // A server that began anew counts from zero.
    if (this.latest && stats.uptime_s < this.latest.stats.uptime_s) this.#past = [];
    this.latest = message;
    this.#past.push({ at: stats.uptime_s, stats });
    while (this.#past[0].at < stats.uptime_s - SHOWN_S) this.#past.shift();
    this.#showHeader();
    if (shownView === 'overview' && document.visibilityState === 'visible') this.show();
    if (shownView === 'nodes') showEngine();
  }

  #showHeader() {
    const { stats, ready } = this.latest;
    const troubles = [...ready.reasons, ...ready.degraded].map(words).join(', ');
    setText($('state'), ready.ready ? troubles || 'ready' : `not ready: ${troubles}`);
    $('state').className = `pill ${ready.ready ? (troubles ? 'warn' : 'good') : 'bad'}`;
    setText($('version'), stats.version);
    setText($('uptime'), `up ${duration(stats.uptime_s)}`);
  }

  /** The values of a gauge, with their ages. */
  #gauge(of) {
    const now = this.#past.at(-1).at;
    return this.#past.map(({ at, stats }) => [now - at, of(stats)]);
  }

  /** What a counter grew by a second, from one showing to the next. */
  #rates(of) {
    const now = this.#past.at(-1).at;
    return this.#past.slice(1).map(({ at, stats }, index) => {
      const before = this.#past[index];
      return [now - at, Math.max(0, (of(stats) - of(before.stats)) / Math.max(0.1, at - before.at))];
    });
  }

  #showRate(name, of, text, unit, under) {
    const points = this.#rates(of);
    const last = points.at(-1)?.[1] ?? 0;
    this.#charts[name].show(text(last), unit, under, points);
  }

  show() {
    if (!this.latest) return;
    const { stats, certificates_end_s: end } = this.latest;
    notice($('overview'), '');
    for (const id of ['figures', 'counts']) $(id).hidden = false;
    const charts = this.#charts;
    charts.sessions.show(
      number(stats.active_connections),
      `of ${number(stats.max_connections)}`,
      `${number(stats.sessions_away)} away · ${number(stats.rooms)} rooms`,
      this.#gauge((stats) => stats.active_connections),
      stats.max_connections,
    );
    charts.line.show(
      number(stats.queued),
      `of ${number(stats.max_queued_tasks)}`,
      stats.queue_wait_ms.count > 0 ? `99 % waited ${milliseconds(stats.queue_wait_ms.p99)} or less` : 'nobody has waited',
      this.#gauge((stats) => stats.queued),
      stats.max_queued_tasks,
    );
    this.#showRate('in', (stats) => stats.messages_in, rate, '/s', `${number(stats.messages_in)} since the start`);
    this.#showRate('out', (stats) => stats.messages_out, rate, '/s', `${number(stats.messages_out)} since the start`);
    this.#showRate('bytes', (stats) => stats.bytes_out, bytes, '/s', `${bytes(stats.bytes_out)} out, ${bytes(stats.bytes_in)} in`);
    if (stats.cpu_seconds !== undefined) {
      const percent = (value) => (value < 0.1 ? (value * 100).toFixed(1) : number(value * 100));
      this.#showRate('cpu', (stats) => stats.cpu_seconds, percent, '% of a core', `${stats.cpu_seconds < 60 ? `${stats.cpu_seconds.toFixed(1)} s` : duration(stats.cpu_seconds)} since the start`);
    } else {
      charts.cpu.show('–', '', 'not told here', []);
    }
    charts.memory.show(
      bytes(stats.memory_bytes),
      stats.memory_bytes_max > 0 ? `of ${bytes(stats.memory_bytes_max)}` : '',
      stats.resident_bytes > 0 ? `${bytes(stats.resident_bytes)} by the system's count` : '',
      this.#gauge((stats) => stats.memory_bytes),
      stats.memory_bytes_max,
    );
    this.#showRate('refused', (stats) => stats.rejected_total, rate, '/s', `${number(stats.rejected_total)} since the start`);

    const times = ({ count, p50, p99, max }, divisor) => [...[p50, p99, max].map((value) => (count ? milliseconds(value / divisor) : '–')), number(count)];
    showCells($('latency'), [
      ['a turn of a worker', ...times(stats.turn_us, 1000)],
      ['a message to many', ...times(stats.fanout_lag_ms, 1)],
      ['the wait in line', ...times(stats.queue_wait_ms, 1)],
    ]);
    this.#showWorkers(stats);
    this.#showAccount(stats);
    const nonzero = (counts, tone) => Object.entries(counts).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]).map(([name, count]) => [words(name), number(count), tone]);
    showPairs($('reasons'), nonzero(stats.rejected), 'Nobody was refused.');
    showPairs($('closes'), nonzero(stats.closed), 'No connection has ended.');
    this.#showHealth(stats, end);
    const troubles = [
      'stalls', 'late_turns', 'slow_consumers', 'dropped', 'missed', 'handler_panics', 'accept_backoffs_total',
      'rate_limited', 'rate_limited_per_ip', 'rate_limited_per_user', 'memory_waits', 'memory_refused', 'memory_slow_closed',
      'sessions_evicted', 'rooms_evicted', 'engine_outages', 'engine_lost', 'engine_refused', 'config_reloads_failed', 'live_skipped_total',
    ];
    showPairs($('troubles'), troubles.filter((name) => stats[name] > 0).map((name) => [words(name.replace(/_total$/, '')), number(stats[name])]), 'Nothing since the start.');
  }

  #showWorkers(stats) {
    const before = this.#past.at(-2);
    const since = before ? Math.max(0.1, stats.uptime_s - before.at) : 0;
    const grew = (worker, index, name) => (before?.stats.workers[index] ? rate((worker[name] - before.stats.workers[index][name]) / since) : '–');
    const row = (worker, index) => [
      String(index),
      number(worker.sockets),
      number(worker.mailbox) + (worker.mailbox_refused ? ` (${number(worker.mailbox_refused)} refused)` : ''),
      ...['turns', 'messages_in', 'messages_out'].map((name) => grew(worker, index, name)),
    ];
    showCells($('workers'), stats.workers.map(row));
  }

  #showAccount(stats) {
    const part = (name, value, isPart) => [name, bytes(value), '', isPart];
    showPairs($('account'), [
      part('messages for several readers', stats.frame_bytes),
      part('in histories', stats.history_bytes, true),
      part('in inboxes', stats.inbox_bytes, true),
      part('waiting for one client', stats.outbox_bytes),
      part('come and not handled', stats.input_bytes),
      part('sessions', stats.session_bytes),
      part('patterns', stats.pattern_bytes),
      part('rooms', stats.room_bytes),
      part('at threads of handlers', stats.job_bytes),
      part('sockets', stats.socket_bytes),
    ]);
  }

  #showHealth(stats, end) {
    const pairs = [];
    const add = (name, count, tone) => count > 0 && pairs.push([name, number(count), tone]);
    if (end !== undefined) {
      const days = (end - Date.now() / 1000) / 86_400;
      const left = days > 0 ? `ends in ${duration(days * 86_400)}` : 'has ended';
      pairs.push(['first certificate', left, days <= 0 ? 'bad' : days < CERTIFICATE_DAYS_MIN ? 'warn' : 'good']);
      pairs.push(['ends on', new Date(end * 1000).toISOString().slice(0, 10)]);
    } else {
      pairs.push(['certificates', 'no TLS here']);
    }
    add('certificates read anew', stats.tls_reloads);
    add('could not be read', stats.tls_reloads_failed, 'bad');
    add('handshakes with TLS 1.3', stats.tls_handshakes_tls13);
    add('handshakes with TLS 1.2', stats.tls_handshakes_tls12);
    add('handshakes that failed', stats.tls_handshakes_failed, 'warn');
    pairs.push(['tokens found good', number(stats.tokens_verified)]);
    for (const [reason, count] of Object.entries(stats.tokens_refused)) add(`refused: ${words(reason)}`, count);
    for (const [permission, count] of Object.entries(stats.forbidden)) add(`may not: ${words(permission)}`, count);
    add('revocations kept', stats.revocations);
    add("the issuer's keys fetched", stats.jwks_fetches);
    add('fetches that failed', stats.jwks_failures, 'bad');
    showPairs($('health'), pairs);
  }
}
const figures = new Figures();

// --- The views.

function lacks(scope, needsAll) {
  if (!has(scope)) return `Not allowed: the key ${JSON.stringify(rights.name)} has not the scope ${scope}.`;
  return needsAll && !hasAllRooms() ? `Not allowed: the key ${JSON.stringify(rights.name)} may be used for some rooms only.` : '';
}

/** Shows a sentence in the place of what a view has, or what it has. */
function notice(section, text) {
  const place = section.querySelector('[data-notice]');
  setText(place, text);
  place.hidden = text === '';
  for (const body of section.querySelectorAll('[data-body]')) body.hidden = text !== '';
}

const told = (refusal) => (refusal.status === 403 ? `Not allowed: ${refusal.message}.` : `Not now: ${refusal.message}.`);

/** A list of the server API, page by page, asked for again while somebody looks at it. */
class Paged {
  #section;
  #query;
  #show;
  #after = null;
  #next = null;
  #timer = 0;
  #asked = null;
  #first;
  #more;

  constructor(section, query, show) {
    this.#section = section;
    this.#query = query;
    this.#show = show;
    this.#first = section.querySelector('[data-first]');
    this.#more = section.querySelector('[data-next]');
    this.#first.addEventListener('click', () => this.begin());
    this.#more.addEventListener('click', () => {
      this.#after = this.#next;
      this.load();
    });
    section.querySelector('form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.begin();
    });
    section.querySelector('form').addEventListener('input', () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.begin(), 200);
    });
  }

  begin() {
    this.#after = null;
    return this.load();
  }

  async load() {
    clearTimeout(this.#timer);
    this.#asked?.abort();
    const asked = (this.#asked = new AbortController());
    const path = this.#query();
    if (path === null) return;
    const address = new URL(path, here);
    address.searchParams.set('limit', PAGE);
    if (this.#after !== null) address.searchParams.set('after', this.#after);
    try {
      const page = await ask('GET', address, undefined, asked.signal);
      notice(this.#section, '');
      this.#next = page.next ?? null;
      this.#show(page);
      this.#first.disabled = this.#after === null;
      this.#more.disabled = this.#next === null;
    } catch (refusal) {
      if (refusal.name === 'AbortError' || !rights) return;
      // The form stays, because what it asks for may be what is refused.
      const place = this.#section.querySelector('[data-notice]');
      setText(place, told(refusal));
      place.hidden = false;
      if (refusal.status !== 0) this.#show(null);
    }
    this.again();
  }

  again() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (document.visibilityState === 'visible' ? this.load() : this.again()), REFRESH_MS);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#asked?.abort();
  }
}

/** A button that must be pressed twice. */
function twice(button, act) {
  let timer = 0;
  const calm = () => {
    button.classList.remove('sure');
    setText(button, button.dataset.text);
  };
  button.dataset.text = button.textContent;
  button.addEventListener('blur', calm);
  button.addEventListener('click', () => {
    clearTimeout(timer);
    if (button.classList.contains('sure')) {
      calm();
      return act();
    }
    button.classList.add('sure');
    setText(button, 'Sure?');
    timer = setTimeout(calm, 5000);
  });
}

// Rooms.

const rooms = new Paged(
  $('rooms'),
  () => `v1/rooms?prefix=${encodeURIComponent($('prefix').value)}`,
  (page) => {
    const makeRow = (item) => {
      const name = make('button', 'link', make('bdi', '', item.room));
      name.type = 'button';
      name.addEventListener('click', () => room.open(item.room));
      return make('tr', '', make('td', '', name), ...'1234'.split('').map(() => make('td', 'n')));
    };
    const update = (row, item) => {
      row.classList.toggle('chosen', item.room === room.name);
      [number(item.members), number(item.messages), bytes(item.bytes), number(item.seq)].forEach((text, column) => setText(row.children[column + 1], text));
    };
    showRows($('room-rows'), page?.rooms ?? [], (item) => item.room, makeRow, update);
    $('no-rooms').hidden = !page || page.rooms.length > 0;
  },
);

/** The room that is looked at. */
const room = {
  name: null,
  timer: 0,
  asked: null,
  /** The number before which the history is shown; `null` for the newest. */
  before: null,
  after: null,

  open(name) {
    this.name = name;
    this.before = null;
    this.after = null;
    setText($('room-name'), name);
    for (const id of ['room-figures', 'member-count']) setText($(id), '');
    for (const id of ['members', 'history']) $(id).replaceChildren();
    $('room').hidden = false;
    $('room-publish').hidden = !has('publish');
    for (const row of $('room-rows').children) row.classList.toggle('chosen', row.dataset.key === name);
    this.load();
    // In one column, the room is above the list.
    $('room').scrollIntoView({ block: 'nearest' });
  },

  shut() {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.name = null;
    $('room').hidden = true;
    for (const id of ['members', 'history']) $(id).replaceChildren();
    for (const id of ['room-name', 'room-figures', 'member-count']) setText($(id), '');
    for (const row of $('room-rows').children) row.classList.remove('chosen');
  },

  async load() {
    clearTimeout(this.timer);
    this.asked?.abort();
    const asked = (this.asked = new AbortController());
    const path = `v1/rooms/${encodeURIComponent(this.name)}`;
    const older = this.before === null ? '' : `&before=${this.before}`;
    const behind = this.after === null ? '' : `&after=${this.after}`;
    const one = async (kind, query, show) => {
      const place = $(`${kind}-notice`);
      try {
        show(await ask('GET', `${path}/${kind === 'members' ? 'presence' : 'history'}?limit=${PAGE}${query}`, undefined, asked.signal));
        place.hidden = true;
      } catch (refusal) {
        if (refusal.name === 'AbortError' || !rights) return;
        setText(place, told(refusal));
        place.hidden = false;
      }
    };
    await Promise.all([one('history', older, (page) => this.showHistory(page)), one('members', behind, (page) => this.showMembers(page))]);
    if (this.asked === asked && !asked.signal.aborted) this.again();
  },

  again() {
    clearTimeout(this.timer);
    // What is being read does not move.
    const isAtRest = () => document.visibilityState === 'visible' && this.before === null && this.after === null && getSelection().isCollapsed;
    this.timer = setTimeout(() => (isAtRest() ? this.load() : this.again()), REFRESH_MS);
  },

  showHistory(page) {
    setText($('room-figures'), `at ${number(page.seq)} · epoch ${page.epoch}`);
    const makeRow = (message) => {
      const text = typeof message.content === 'string' ? message.content : JSON.stringify(message.content);
      const rest = text.length - CONTENT_CHARS_MAX;
      const shown = rest > 0 ? `${text.slice(0, CONTENT_CHARS_MAX)} … and ${number(rest)} characters more` : text;
      const time = new Date(message.timestamp);
      const when = Number.isNaN(time.getTime()) ? '' : time.toISOString().slice(0, 19).replace('T', ' ');
      const meta = make('div', 'meta', `#${message.seq} · ${when} · `, make('bdi', '', message.sender ?? message.user ?? message.client_id ?? ''));
      return make('li', '', meta, make('pre', 'content', shown));
    };
    // The newest comes first.
    showRows($('history'), page.messages.toReversed(), (message) => `${page.epoch} ${message.seq}`, makeRow, () => {});
    if (page.messages.length === 0) $('history').replaceChildren(make('li', 'muted', 'Nothing is kept.'));
    this.oldest = page.messages[0]?.seq ?? null;
    $('older').hidden = this.oldest === null || this.oldest <= 1 || page.messages.length < PAGE;
    $('newest').hidden = this.before === null;
  },

  showMembers(page) {
    setText($('member-count'), number(page.count));
    const makeRow = (member) => {
      const who = [member.user, member.sender].filter((name) => name !== undefined && name !== null);
      return make('li', '', make('span', 'code', member.client_id), ...who.flatMap((name) => [' ', make('bdi', '', name)]), member.away ? make('span', 'muted', ' away') : '');
    };
    showRows($('members'), page.members, (member) => `${member.client_id} ${member.away} ${member.user} ${member.sender}`, makeRow, () => {});
    if (page.members.length === 0) $('members').replaceChildren(make('li', 'muted', 'Nobody.'));
    this.last = page.next ?? null;
    $('members-next').hidden = this.last === null;
  },
};
$('older').addEventListener('click', () => {
  room.before = room.oldest;
  room.load();
});
$('newest').addEventListener('click', () => {
  room.before = null;
  room.load();
});
$('members-next').addEventListener('click', () => {
  room.after = room.last;
  room.load();
});
$('room-shut').addEventListener('click', () => room.shut());
$('room-publish').addEventListener('click', () => {
  $('to').value = room.name;
  location.hash = '#publish';
  $('text').focus();
});
$('room-sessions').addEventListener('click', () => {
  $('of').value = 'room';
  $('of-name').value = room.name;
  location.hash = '#sessions';
});

// Sessions.

const sessions = new Paged(
  $('sessions'),
  () => {
    const of = $('of').value;
    const name = $('of-name').value;
    $('of-name').disabled = of === '';
    if (of === '' && !hasAllRooms()) {
      notice($('sessions'), '');
      const place = $('sessions').querySelector('[data-notice]');
      setText(place, 'This key may be used for some rooms only: name one of them.');
      place.hidden = false;
      $('session-rows').replaceChildren();
      return null;
    }
    if (of !== '' && name === '') return null;
    return `v1/sessions?${of === '' ? '' : `${of}=${encodeURIComponent(name)}`}`;
  },
  (page) => {
    const mayClose = has('admin') && hasAllRooms();
    const makeRow = ({ client_id: client }) => {
      const last = make('td', 'n');
      if (mayClose) {
        const button = make('button', '', 'Close');
        button.type = 'button';
        button.setAttribute('aria-label', `Close ${client}`);
        twice(button, () => closeSession(client));
        last.append(button);
      }
      return make('tr', '', make('td', 'code', client), make('td', '', make('bdi')), make('td', '', make('bdi')), make('td', 'short'), counted('rooms'), last);
    };
    const update = (row, item) => {
      setText(row.children[1].firstChild, item.user ?? '');
      setText(row.children[2].firstChild, item.sender ?? '');
      setText(row.children[3], item.away ? 'away' : 'here');
      setText(row.children[4], number(item.rooms));
    };
    showRows($('session-rows'), page?.sessions ?? [], (item) => item.client_id, makeRow, update);
    $('no-sessions').hidden = !page || page.sessions.length > 0;
  },
);

async function closeSession(client) {
  try {
    await ask('POST', `v1/sessions/${client}/close`, { code: 4009, reason: 'closed by the operator' });
    setText($('closed'), `Closed ${client}.`);
  } catch (refusal) {
    setText($('closed'), told(refusal));
  }
  if (rights) sessions.load();
}

// Publishing.

const CLIENT = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

$('message').addEventListener('submit', async (event) => {
  event.preventDefault();
  const [to, sender, text] = ['to', 'sender', 'text'].map((id) => $(id).value);
  let content = text;
  try {
    content = JSON.parse(text);
  } catch {
    // A text as it is.
  }
  const body = { [CLIENT.test(to) ? 'to' : 'room']: to, content };
  if (sender !== '') body.sender = sender;
  const button = event.submitter ?? $('message').querySelector('button');
  button.disabled = true;
  try {
    const done = await ask('POST', 'v1/publish', body);
    setText($('published'), done.room === undefined ? 'Sent.' : `Published as number ${done.seq} of ${done.room}.`);
    $('published').className = 'good';
  } catch (refusal) {
    setText($('published'), refusal.status === 403 ? told(refusal) : `Not published: ${refusal.message}.`);
    $('published').className = 'bad';
  } finally {
    button.disabled = false;
  }
});

// Nodes.

let nodesTimer = 0;
function showEngine() {
  const { stats, ready } = figures.latest;
  const counts = ['engine_waiting', 'engine_outages', 'engine_repairs', 'engine_lost', 'engine_retries', 'engine_refused'];
  const shown = counts.filter((name) => stats[name] > 0).map((name) => `${words(name.slice('engine_'.length))} ${number(stats[name])}`);
  const away = ready.engine === undefined ? '' : `The engine cannot be reached: ${ready.engine}. `;
  const isAlone = $('node-rows').children.length === 1 && !away && shown.length === 0;
  const figuresOfIt = shown.length > 0 ? `Engine: ${shown.join(', ')}.` : '';
  setText($('engine'), isAlone ? 'This server knows of no other.' : `${away}${figuresOfIt}`);
  $('engine').className = away ? 'bad' : 'muted';
}

function nodesAgain() {
  if (shownView !== 'nodes') return;
  nodesTimer = setTimeout(() => (document.visibilityState === 'visible' ? loadNodes() : nodesAgain()), REFRESH_MS);
}

async function loadNodes() {
  clearTimeout(nodesTimer);
  try {
    const { nodes } = await ask('GET', 'v1/nodes');
    notice($('nodes'), '');
    const row = (node) => [
      node.node,
      node.version,
      duration(node.uptime_s),
      node.draining ? 'draining' : 'serving',
      number(node.active_connections),
      number(node.sessions),
      number(node.rooms),
    ];
    const makeRow = () => make('tr', '', make('td', 'code'), ...[1, 2, 3].map(() => make('td', 'short')), ...['connections', 'sessions', 'rooms'].map(counted));
    const update = (tr, node) => row(node).forEach((text, column) => setText(tr.children[column], text));
    showRows($('node-rows'), nodes, (node) => node.node, makeRow, update);
    if (figures.latest) showEngine();
  } catch (refusal) {
    if (!rights) return;
    notice($('nodes'), told(refusal));
  }
  nodesAgain();
}

// Settings.

let settings = [];
function showSettings() {
  const wanted = $('setting').value.toLowerCase();
  const isWanted = ({ key, value, from = '' }) => `${key} ${value} ${from}`.toLowerCase().includes(wanted);
  const found = settings.filter((setting) => isWanted(setting) && !($('changed').checked && setting.from === 'default'));
  const makeRow = () => make('tr', '', make('td', 'code'), make('td', 'code'), make('td'));
  const update = (row, { key, value, unit, from, needs_restart: waits }) => {
    setText(row.children[0], key);
    setText(row.children[1], unit && !/[a-z]$/i.test(value) ? `${value} ${unit}` : value);
    setText(row.children[2], `${from ?? 'the program'}${waits ? '; another value waits for a restart' : ''}`);
    row.children[2].className = waits ? 'warn' : from === 'default' ? 'muted' : '';
  };
  showRows($('setting-rows'), found, (setting) => setting.key, makeRow, update);
  $('no-settings').hidden = found.length > 0;
}

async function loadSettings() {
  try {
    ({ settings } = await ask('GET', 'v1/settings'));
    notice($('settings'), '');
    showSettings();
  } catch (refusal) {
    if (rights) notice($('settings'), told(refusal));
  }
}
$('setting').addEventListener('input', showSettings);
$('changed').addEventListener('input', showSettings);
$('settings').querySelector('form').addEventListener('submit', (event) => event.preventDefault());

/** What each view needs, and what it does when it is shown, left and signed out of. */
const views = {
  overview: { scope: 'read', needsAll: true, show: () => figures.show(), forget: () => figures.forget() },
  rooms: {
    scope: 'read',
    show() {
      rooms.load();
      if (room.name !== null) room.load();
    },
    hide() {
      rooms.stop();
      clearTimeout(room.timer);
      room.asked?.abort();
    },
    forget() {
      room.shut();
      $('room-rows').replaceChildren();
      $('prefix').value = '';
    },
  },
  sessions: {
    scope: 'read',
    show: () => sessions.begin(),
    hide: () => sessions.stop(),
    forget() {
      $('session-rows').replaceChildren();
      for (const id of ['of', 'of-name']) $(id).value = '';
      setText($('closed'), '');
    },
  },
  publish: {
    scope: 'publish',
    show() {},
    forget() {
      $('message').reset();
      setText($('published'), '');
    },
  },
  nodes: { scope: 'read', needsAll: true, show: loadNodes, hide: () => clearTimeout(nodesTimer), forget: () => $('node-rows').replaceChildren() },
  settings: {
    scope: 'admin',
    needsAll: true,
    show: loadSettings,
    forget() {
      settings = [];
      $('setting-rows').replaceChildren();
    },
  },
};
let shownView = null;

/** Shows the view that the address names. */
function route() {
  if (!rights) return;
  const named = location.hash.slice(1);
  const name = Object.hasOwn(views, named) ? named : 'overview';
  if (shownView !== null) views[shownView].hide?.();
  shownView = name;
  for (const section of document.querySelectorAll('#content > section')) section.hidden = section.id !== name;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${name}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${name === 'overview' ? '' : `${name[0].toUpperCase()}${name.slice(1)} · `}Rusty Socks dashboard`;
  const { scope, needsAll, show } = views[name];
  const why = lacks(scope, needsAll);
  if (why) notice($(name), why);
  else {
    notice($(name), '');
    show();
  }
  scrollTo(0, 0);
}
addEventListener('hashchange', route);
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  $('content').focus();
});

addEventListener('keydown', (event) => {
  if (!rights || event.ctrlKey || event.metaKey || event.altKey) return;
  const isInField = event.target.matches?.('input, textarea, select');
  if (event.key === 'Escape' && isInField) return event.target.blur();
  if (isInField) return;
  if (event.key === '/') {
    const field = document.querySelector(`#${shownView} [data-search]:not(:disabled)`);
    if (!field) return;
    event.preventDefault();
    field.focus();
    field.select();
  }
  const view = Object.keys(views)[Number(event.key) - 1];
  if (view) location.hash = `#${view}`;
});

if (key) enter();
else showDoor();
