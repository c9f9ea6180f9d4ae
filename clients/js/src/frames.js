/** The frames of RFC 6455 section 5, without extensions; bytes in, bytes out. */
import { ByteQueue } from './byte-queue.js';

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

const CONTROL_BYTES_MAX = 125;

/** What a peer did wrong, with its close code. */
export class FrameError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'FrameError';
    this.code = code;
  }
}

/** One frame as bytes. A client masks with four random bytes (section 5.3), a server does not mask. */
export function encodeFrame(opcode, payload, { mask = null, isFinal = true } = {}) {
  const { length } = payload;
  const extended = length < 126 ? 0 : length < 0x10000 ? 2 : 8;
  const head = Buffer.alloc(2 + extended + (mask ? 4 : 0));
  head[0] = (isFinal ? 0x80 : 0) | opcode;
  head[1] = (mask ? 0x80 : 0) | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) head.writeUInt16BE(length, 2);
  if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2);
  if (!mask) return Buffer.concat([head, payload]);
  mask.copy(head, 2 + extended);
  const bytes = Buffer.concat([head, payload]);
  applyMask(bytes.subarray(head.length), mask);
  return bytes;
}

/** The payload of a close frame (section 5.5.1). */
export function closePayload(code, reason = '') {
  if (code === undefined) return Buffer.alloc(0);
  const text = Buffer.from(reason);
  if (text.length > CONTROL_BYTES_MAX - 2) throw new RangeError('a close reason has at most 123 bytes');
  const payload = Buffer.alloc(2 + text.length);
  payload.writeUInt16BE(code, 0);
  text.copy(payload, 2);
  return payload;
}

/**
 * Takes bytes as they come and gives whole messages and control frames to its handlers. Strict: `push`
 * throws a `FrameError` at the first thing that the RFC forbids, and must not be called after that.
 */
export class FrameReader {
  #bytes = new ByteQueue();
  #frame = null;
  // The fragments of a message so far.
  #message = new ByteQueue();
  #messageOpcode = null;
  #isMasked;
  #bytesMax;
  #handlers;

  /**
   * `isMasked` says what the peer must do: a client's frames are masked, a server's are not (section 5.1).
   * The handlers are `message(text or Buffer)`, `close({code, reason})`, `ping(payload)` and `pong(payload)`.
   */
  constructor({ isMasked, messageBytesMax, ...handlers }) {
    this.#isMasked = isMasked;
    this.#bytesMax = messageBytesMax;
    this.#handlers = handlers;
  }

  push(chunk) {
    this.#bytes.push(chunk);
    for (;;) {
      if (!this.#frame && !this.#readHead()) return;
      if (this.#bytes.length < this.#frame.length) return;
      const { opcode, isFinal, length, mask } = this.#frame;
      const payload = this.#bytes.take(length);
      if (mask) applyMask(payload, mask);
      this.#frame = null;
      if (opcode >= OPCODE.close) this.#control(opcode, payload);
      else this.#data(opcode, isFinal, payload);
    }
  }

  /** Reads the head of a frame (section 5.2) if all of it is here. */
  #readHead() {
    if (this.#bytes.length < 2) return false;
    const start = this.#bytes.peek(2);
    const length7 = start[1] & 0x7f;
    const hasMask = (start[1] & 0x80) !== 0;
    const size = 2 + (length7 === 126 ? 2 : length7 === 127 ? 8 : 0) + (hasMask ? 4 : 0);
    this.#checkStart(start, hasMask);
    if (this.#bytes.length < size) return false;
    const head = this.#bytes.take(size);
    let length = length7;
    if (length7 === 126) length = head.readUInt16BE(2);
    if (length7 === 127) {
      const wide = head.readBigUInt64BE(2);
      if (wide > BigInt(Number.MAX_SAFE_INTEGER)) throw new FrameError(1009, 'a frame of absurd length');
      length = Number(wide);
    }
    // Section 5.2: the shortest form must be used.
    if ((length7 === 126 && length < 126) || (length7 === 127 && length < 0x10000)) {
      throw new FrameError(1002, 'a length that is not in its shortest form');
    }
    const opcode = head[0] & 0x0f;
    if (opcode < OPCODE.close && this.#message.length + length > this.#bytesMax) {
      throw new FrameError(1009, `a message of more than ${this.#bytesMax} bytes`);
    }
    const mask = hasMask ? head.subarray(size - 4) : null;
    this.#frame = { opcode, isFinal: (head[0] & 0x80) !== 0, length, mask };
    return true;
  }

  /** Checks the first two bytes of a frame. */
  #checkStart([first, second], hasMask) {
    const opcode = first & 0x0f;
    const isFinal = (first & 0x80) !== 0;
    if ((first & 0x70) !== 0) throw new FrameError(1002, 'a reserved bit without an extension');
    if (!Object.values(OPCODE).includes(opcode)) throw new FrameError(1002, `the reserved opcode ${opcode}`);
    if (hasMask !== this.#isMasked) {
      throw new FrameError(1002, hasMask ? 'a masked frame from a server' : 'a frame without a mask');
    }
    if (opcode >= OPCODE.close) {
      // Section 5.5.
      if (!isFinal) throw new FrameError(1002, 'a fragmented control frame');
      if ((second & 0x7f) > CONTROL_BYTES_MAX) throw new FrameError(1002, 'a control frame that is too long');
    } else if ((opcode === OPCODE.continuation) !== (this.#messageOpcode !== null)) {
      // Section 5.4: fragments of one message follow each other.
      throw new FrameError(1002, opcode === 0 ? 'a continuation of nothing' : 'a message inside a message');
    }
  }

  #data(opcode, isFinal, payload) {
    if (opcode !== OPCODE.continuation) this.#messageOpcode = opcode;
    this.#message.push(payload);
    if (!isFinal) return;
    const bytes = this.#message.take(this.#message.length);
    const isText = this.#messageOpcode === OPCODE.text;
    this.#messageOpcode = null;
    this.#handlers.message(isText ? decodeText(bytes) : bytes);
  }

  #control(opcode, payload) {
    if (opcode === OPCODE.ping) return this.#handlers.ping(payload);
    if (opcode === OPCODE.pong) return this.#handlers.pong(payload);
    if (payload.length === 0) return this.#handlers.close({ code: 1005, reason: '' });
    if (payload.length === 1) throw new FrameError(1002, 'a close code of one byte');
    const code = payload.readUInt16BE(0);
    if (!isSendable(code)) throw new FrameError(1002, `the close code ${code}`);
    this.#handlers.close({ code, reason: decodeText(payload.subarray(2)) });
  }
}

function applyMask(bytes, mask) {
  for (let at = 0; at < bytes.length; at += 1) bytes[at] ^= mask[at & 3];
}

// A byte order mark is part of the text, and anything that is not UTF-8 is a fault (section 8.1).
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeText(bytes) {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new FrameError(1007, 'text that is not UTF-8');
  }
}

/** Whether a close frame may carry this code (section 7.4). */
function isSendable(code) {
  if (code >= 3000) return code < 5000;
  return code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code);
}
