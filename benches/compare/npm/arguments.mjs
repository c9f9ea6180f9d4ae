// The command line that both servers have: PORT echo|broadcast|rooms
const [port, mode] = process.argv.slice(2);
if (!(Number(port) > 0) || !["echo", "broadcast", "rooms"].includes(mode)) {
  console.error("usage: node SERVER.mjs PORT echo|broadcast|rooms");
  process.exit(2);
}

export const options = { host: "127.0.0.1", port: Number(port), mode };

// What is sent in mode `rooms`, with the fields in the order in which all peers have them.
export const ok = (room) => JSON.stringify({ type: "ok", room });
export const error = (message) => JSON.stringify({ type: "error", message });
export const roomMessage = (room, seq, content) => JSON.stringify({ type: "message", room, seq, content });

export function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
