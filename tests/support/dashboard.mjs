// What the script of the dashboard does where no browser is: the parts that need little of one, cut
// out of the file that is named on the command line.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mock } from 'node:test';

const source = readFileSync(process.argv[2], 'utf8');
const cut = (pattern) => pattern.exec(source)?.[0] ?? assert.fail(`there is no ${pattern}`);
const constants = source.match(/^const [A-Z_]+_MS_MAX = .*;$/gm).join('\n');

function aSilentServerIsGivenUp() {
  mock.timers.enable({ apis: ['setTimeout'] });
  const sockets = [];
  class Socket extends EventTarget {
    isClosed = false;
    constructor() {
      super();
      sockets.push(this);
    }
    // As on a line that is cut: the close event does not come.
    close() {
      this.isClosed = true;
    }
    show() {
      this.dispatchEvent(Object.assign(new Event('message'), { data: '{}' }));
    }
  }
  const pill = { classList: { toggle() {} } };
  const names = {
    here: new URL('http://localhost:3031/'),
    $: () => pill,
    setText: (element, text) => Object.assign(element, { text }),
    has: () => true,
    hasAllRooms: () => true,
    figures: { latest: {}, take() {} },
    WebSocket: Socket,
  };
  const live = new Function(...Object.keys(names), `${constants}\n${cut(/^class Live \{.*?^\}/ms)}\nreturn new Live();`)(...Object.values(names));
  live.start();
  for (let second = 0; second < 60; second += 1) {
    sockets[0].show();
    mock.timers.tick(1000);
  }
  assert.equal(sockets.length, 1);
  assert.equal(pill.text, 'live');
  mock.timers.tick(10_000);
  assert.equal(pill.text, 'not connected');
  assert.ok(sockets[0].isClosed);
  mock.timers.tick(1000);
  assert.equal(sockets.length, 2, 'it comes again');
  // What the first one says late is nothing to the page.
  sockets[0].dispatchEvent(Object.assign(new Event('close'), { code: 4001, reason: '' }));
  sockets[1].show();
  assert.equal(pill.text, 'live');
  live.stop();
  mock.timers.tick(60_000);
  assert.equal(sockets.length, 2);
}

function aRowThatStaysIsNotMoved() {
  const moved = [];
  const body = {
    children: [],
    get firstElementChild() {
      return this.children[0] ?? null;
    },
    insertBefore(row, place) {
      if (this.children.includes(row)) {
        moved.push(row.dataset.key);
        row.remove();
      }
      this.children.splice(place ? this.children.indexOf(place) : this.children.length, 0, row);
    },
  };
  const makeRow = () => ({
    dataset: {},
    get nextElementSibling() {
      return body.children[body.children.indexOf(this) + 1] ?? null;
    },
    remove() {
      body.children.splice(body.children.indexOf(this), 1);
    },
  });
  const showRows = new Function(`return ${cut(/^function showRows\(.*?^\}/ms)}`)();
  const show = (keys) => {
    showRows(body, [...keys], (item) => item, makeRow, () => {});
    assert.equal(body.children.map((row) => row.dataset.key).join(''), keys);
  };
  show('abcd');
  show('bcd');
  show('bxcyd');
  show('d');
  show('zd');
  assert.deepEqual(moved, []);
  show('dz');
  show('');
}

aSilentServerIsGivenUp();
aRowThatStaysIsNotMoved();
