// The command line that both servers have, and the compression that ws alone has. Where TLS_CERT and TLS_KEY
// name PEM files, they serve TLS.
const [port, mode, compression = "off"] = process.argv.slice(2);
const isKnown = ["echo", "broadcast", "rooms"].includes(mode) && ["off", "shared", "dedicated"].includes(compression);
if (!(Number(port) > 0) || !isKnown) {
  console.error("usage: node SERVER.mjs PORT echo|broadcast|rooms [off|shared|dedicated]");
  process.exit(2);
}

const { TLS_CERT: cert, TLS_KEY: key } = process.env;
export const options = { host: "127.0.0.1", port: Number(port), mode, compression, tls: cert && { cert, key } };

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
