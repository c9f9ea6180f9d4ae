/** Reads an event stream, by the rules of the HTML standard, section 9.2.6. */

/** The stream has an event that is too large. */
export class EventTooLarge extends Error {}

export class EventParser {
  #decoder = new TextDecoder();
  #event;
  #lengthMax;
  // The line that has begun, in pieces.
  #line = [];
  // Whether the last text ended with a CR, so that an LF belongs to it.
  #isAfterCr = false;
  #name = '';
  // The `data` lines of the event that has begun.
  #data = [];
  // How much there is of it.
  #length = 0;

  /** Calls `event(name, data)` for each event that has data. `lengthMax` is the most text of one. */
  constructor({ event, lengthMax }) {
    this.#event = event;
    this.#lengthMax = lengthMax;
  }

  /** Takes the next bytes, which may begin and end anywhere. */
  push(bytes) {
    // A byte order mark is left out, and half a character waits.
    const text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    let start = this.#isAfterCr && text[0] === '\n' ? 1 : 0;
    const breaks = /\r\n|\r|\n/g;
    breaks.lastIndex = start;
    for (let found = breaks.exec(text); found; found = breaks.exec(text)) {
      this.#append(text.slice(start, found.index));
      start = breaks.lastIndex;
      const line = this.#line.join('');
      this.#line = [];
      this.#endLine(line);
    }
    this.#append(text.slice(start));
    this.#isAfterCr = text.endsWith('\r');
  }

  #append(piece) {
    this.#length += piece.length;
    if (this.#length > this.#lengthMax) throw new EventTooLarge(`an event of more than ${this.#lengthMax} characters`);
    if (piece !== '') this.#line.push(piece);
  }

  #endLine(line) {
    if (line === '') {
      const [name, data] = [this.#name, this.#data];
      this.#name = '';
      this.#data = [];
      this.#length = 0;
      if (data.length > 0) this.#event(name || 'message', data.join('\n'));
      return;
    }
    const [, field, value] = /^([^:]*)(?:: ?)?([^]*)$/.exec(line);
    if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
    // A comment or another field is none of the event.
    else this.#length -= line.length;
  }
}
