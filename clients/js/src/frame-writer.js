/**
 * The frames that wait to be written to a socket.
 *
 * They are written in pieces, one at a time, because Node reports a write only when all of it is
 * done: the pieces show whether a large message makes progress.
 */
const PIECE_BYTES = 64 * 1024;

export class FrameWriter {
  #socket;
  #frames = [];
  // How much of the first frame is written.
  #offset = 0;
  #bytes = 0;
  #pong = null;
  #isWriting = false;
  #isEnding = false;

  constructor(socket) {
    this.#socket = socket;
  }

  /** How many bytes the system has not taken yet. */
  get bufferedAmount() {
    return this.#bytes;
  }

  send(frame) {
    this.#frames.push(frame);
    this.#bytes += frame.length;
    this.#pump();
  }

  /**
   * Sends a pong before all other frames. It replaces a pong that still waits: only the latest ping
   * is answered (RFC 6455 section 5.5.3), so a peer that sends pings and reads nothing fills no
   * memory.
   */
  pong(frame) {
    this.#bytes += frame.length - (this.#pong?.length ?? 0);
    this.#pong = frame;
    this.#pump();
  }

  /** Ends the connection when all is written. */
  end() {
    this.#isEnding = true;
    this.#pump();
  }

  #pump() {
    if (this.#isWriting) return;
    const piece = this.#takePiece();
    if (piece.length === 0) {
      if (this.#isEnding) this.#socket.destroySoon();
      return;
    }
    this.#isWriting = true;
    this.#socket.write(piece, (error) => {
      this.#isWriting = false;
      this.#bytes -= piece.length;
      // The socket has ended, and reports that itself.
      if (error) return;
      this.#pump();
    });
  }

  #takePiece() {
    const parts = [];
    let space = PIECE_BYTES;
    while (space > 0) {
      if (this.#pong && this.#offset === 0) {
        parts.push(this.#pong);
        space -= this.#pong.length;
        this.#pong = null;
      }
      const [frame] = this.#frames;
      if (!frame) break;
      const part = frame.subarray(this.#offset, this.#offset + Math.max(space, 0));
      parts.push(part);
      space -= part.length;
      this.#offset += part.length;
      if (this.#offset === frame.length) {
        this.#frames.shift();
        this.#offset = 0;
      }
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }
}
