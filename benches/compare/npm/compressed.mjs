// Drives a server with compressing clients and prints what it cost the server.
// Usage: node compressed.mjs echo|fanout|idle URL SERVER_PID CONNECTIONS [SECONDS|MESSAGES] [plain]
import { readFileSync, readdirSync } from "node:fs";
import WebSocket from "ws";

const [work, url, pid, count, amount, plain] = process.argv.slice(2);
const connections = Number(count);
const DEPTH = 16;
const KEYS = ["symbol", "price", "volume", "venue", "time"];
const row = (n) => Object.fromEntries(KEYS.map((key, at) => [key, at % 2 ? `v${(n * 7919) % 977}` : n * 31]));
// About 1 KiB of JSON, the kind of thing that is worth compressing.
const payload = JSON.stringify({ content: Array.from({ length: 15 }, (_, n) => row(n)) });

// The CPU time of all threads of the server, in seconds.
function cpu() {
  let nanoseconds = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
  }
  return nanoseconds / 1e9;
}

function rssKib() {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))[1]);
}

const perMessageDeflate = plain === "plain" ? false : { threshold: 256, zlibDeflateOptions: { level: 3 } };

async function open(n) {
  const all = [];
  for (let begun = 0; begun < n; begun += 200) {
    const batch = Array.from({ length: Math.min(200, n - begun) }, () => {
      const socket = new WebSocket(url, { perMessageDeflate });
      socket.on("error", (error) => { console.error(String(error)); process.exit(1); });
      return new Promise((ready) => socket.once("open", () => ready(socket)));
    });
    all.push(...(await Promise.all(batch)));
  }
  return all;
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function echo() {
  const sockets = await open(connections);
  let replies = 0;
  for (const socket of sockets) {
    socket.on("message", () => { replies += 1; socket.send(payload); });
    for (let n = 0; n < DEPTH; n += 1) socket.send(payload);
  }
  await wait(1000);
  const [before, from] = [replies, cpu()];
  await wait(Number(amount) * 1000);
  const [messages, spent] = [replies - before, cpu() - from];
  console.log(`echo ${payload.length} B x ${connections}: ${(spent / messages * 1e6).toFixed(2)} us/message, ${messages} messages`);
}

async function fanout() {
  const sockets = await open(connections + 1);
  const publisher = sockets.pop();
  await wait(1000);
  let got = 0;
  let all = () => {};
  for (const socket of sockets) {
    socket.on("message", (data) => {
      if (data.length < 500) return;
      got += 1;
      if (got === connections) all();
    });
  }
  const rounds = Number(amount);
  let from = 0;
  for (let n = 0; n < rounds + 20; n += 1) {
    if (n === 20) from = cpu();
    got = 0;
    const delivered = new Promise((done) => { all = done; });
    publisher.send(payload);
    await delivered;
  }
  const spent = cpu() - from;
  console.log(`fan-out ${payload.length} B x ${connections}: ${(spent / (rounds * connections) * 1e6).toFixed(2)} us/delivery`);
}

async function idle() {
  const before = rssKib();
  const sockets = await open(connections);
  // One compressed message each way, so that whatever a connection keeps has been made.
  for (const socket of sockets) socket.send(payload);
  await wait(4000);
  console.log(`idle x ${connections}: ${((rssKib() - before) / connections).toFixed(2)} KiB each`);
}

await { echo, fanout, idle }[work]();
process.exit(0);
