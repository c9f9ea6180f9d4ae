// A peer: echo, broadcast and rooms on `ws`, written as its documentation does.
import { readFileSync } from "node:fs";
import { createServer as plainServer } from "node:http";
import { createServer as tlsServer } from "node:https";

import { WebSocketServer } from "ws";
import { error, ok, options, parse, roomMessage } from "./arguments.mjs";

const { host, port, mode, compression, tls } = options;
const isShared = compression === "shared";
const perMessageDeflate = compression !== "off" && {
  // The same terms and level as the server it is compared with.
  serverNoContextTakeover: isShared,
  clientNoContextTakeover: isShared,
  threshold: 256,
  zlibDeflateOptions: { level: 3 },
};
const web = tls ? tlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }) : plainServer();
const server = new WebSocketServer({ server: web, perMessageDeflate });
const rooms = new Map();

function command(socket, text) {
  const { type, room, content } = parse(text);
  const there = rooms.get(room);
  if (type === "join" && typeof room === "string") {
    if (there) there.members.add(socket);
    else rooms.set(room, { seq: 0, members: new Set([socket]) });
    socket.send(ok(room));
  } else if (type === "leave" && there) {
    leave(socket, room, there);
    socket.send(ok(room));
  } else if (type === "publish" && content !== undefined && there?.members.has(socket)) {
    there.seq += 1;
    const message = roomMessage(room, there.seq, content);
    for (const member of there.members) if (member !== socket) member.send(message);
  } else {
    socket.send(error("this is no command, or not a member of this room"));
  }
}

function leave(socket, name, room) {
  room.members.delete(socket);
  if (room.members.size === 0) rooms.delete(name);
}

server.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, isBinary) => {
    if (mode === "echo") return socket.send(data, { binary: isBinary });
    if (mode === "rooms") return command(socket, data.toString());
    // Its own advice for broadcasting: a loop over all clients.
    for (const client of server.clients) client.send(data, { binary: isBinary });
  });
  socket.on("close", () => {
    for (const [name, room] of rooms) if (room.members.has(socket)) leave(socket, name, room);
  });
});
web.listen(port, host, () => console.log(`listening on ${host}:${port}`));
