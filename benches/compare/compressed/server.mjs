// The peer: echo or broadcast on `ws` with permessage-deflate.
// Usage: node server.mjs PORT echo|broadcast shared|dedicated|off
import { WebSocketServer } from "ws";

const [port, mode, compression] = process.argv.slice(2);
const alone = compression === "shared";
const perMessageDeflate = compression !== "off" && {
  // The same terms and level as the server it is compared with.
  serverNoContextTakeover: alone,
  clientNoContextTakeover: alone,
  threshold: 256,
  zlibDeflateOptions: { level: 3 },
};
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate });
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => {
    if (mode === "echo") return socket.send(data, { binary: isBinary });
    // The peers' own advice for broadcasting: a loop over all clients.
    for (const client of server.clients) client.send(data, { binary: isBinary });
  });
  socket.on("error", () => {});
});
server.on("listening", () => console.log("ready"));
