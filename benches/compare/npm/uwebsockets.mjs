// A peer: uWebSockets, a server in C++ of which JavaScript sees only the messages. Broadcast and rooms are its
// own publish and subscribe, which gathers what a client is sent and writes it once.
import uws from "uwebsockets";
import { error, ok, options, parse, roomMessage } from "./arguments.mjs";

const { host, port, mode, tls } = options;
const EVERYONE = "everyone";
const seqs = new Map();
const decoder = new TextDecoder();

function command(socket, text) {
  const { type, room, content } = parse(text);
  if (type === "join" && typeof room === "string") {
    socket.subscribe(room);
    socket.send(ok(room));
  } else if (type === "leave" && typeof room === "string") {
    socket.unsubscribe(room);
    socket.send(ok(room));
  } else if (type === "publish" && content !== undefined && socket.isSubscribed(room)) {
    const seq = (seqs.get(room) ?? 0) + 1;
    seqs.set(room, seq);
    // To all subscribers but this one.
    socket.publish(room, roomMessage(room, seq, content));
  } else {
    socket.send(error("this is no command, or not a member of this room"));
  }
}

const app = tls ? uws.SSLApp({ key_file_name: tls.key, cert_file_name: tls.cert }) : uws.App();
app.ws("/*", {
  compression: uws.DISABLED,
  // Its defaults drop messages above 16 KiB, and deliveries to whoever is 64 KiB behind.
  maxPayloadLength: 1 << 20,
  maxBackpressure: 64 << 20,
  open: (socket) => {
    if (mode === "broadcast") socket.subscribe(EVERYONE);
  },
  message: (socket, message, isBinary) => {
    if (mode === "echo") socket.send(message, isBinary);
    else if (mode === "broadcast") app.publish(EVERYONE, message, isBinary);
    else command(socket, decoder.decode(message));
  },
});
app.listen(host, port, (listening) => {
  if (!listening) {
    console.error(`cannot listen on ${host}:${port}`);
    process.exit(1);
  }
  console.log(`listening on ${host}:${port}`);
});
