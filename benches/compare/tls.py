#!/usr/bin/env python3
"""What TLS costs this server and two peers, beside each of them without it, in the same run.

    tls.py --binary target/release/rusty_socks --npm DIRECTORY [--rounds 3] [--seconds 2]

DIRECTORY holds copies of npm/ with `npm install` run there. Linux, two cores that nothing else uses, openssl,
Node. The server has core 0 and one thread, the load tool core 1; everything is on the loopback. Prints a table
as Markdown: medians of the rounds, in which the servers take turns.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# Where certificates and ports for servers come from.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "third-party"))
from checks import certificate, free_port  # noqa: E402
from server import bare_environment  # noqa: E402

SERVER_CORE, LOAD_CORE = "0", "1"
TICKS = os.sysconf("SC_CLK_TCK")
DEADLINE_S = 20
IDLE = 2000
HANDSHAKES = 1000


class Server:
    """One server, for the length of a `with`."""

    def __init__(self, args, name, tls):
        self.args, self.name, self.tls, self.port = args, name, tls, free_port()

    def command(self):
        if self.name == "Rusty Socks":
            return [self.args.binary]
        script = {"uWebSockets": "uwebsockets.mjs", "ws": "ws.mjs"}[self.name]
        return ["node", f"{self.args.npm}/{script}", str(self.port), "echo"]

    def environment(self):
        settings = {"host": "127.0.0.1", "port": self.port, "echo": "true", "thread_pool_size": 1}
        settings |= {"max_conn": 6000, "max_pending_heads": 6000, "rate_messages": 0, "rate_bytes": 0}
        settings |= {"resume_window": 0, "ping": 0, "timeout": 600}
        if self.tls:
            settings |= {"tls_cert": self.args.cert, "tls_key": self.args.key}
        ours = {f"RUSTY_SOCKS_{name.upper()}": str(value) for name, value in settings.items()}
        peers = {"TLS_CERT": self.args.cert, "TLS_KEY": self.args.key} if self.tls else {}
        return {**bare_environment(), **ours, **peers}

    def __enter__(self):
        command = ["taskset", "-c", SERVER_CORE, *self.command()]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=self.environment(), **quiet)
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        raise AssertionError(f"{self.name} does not listen")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def url(self, path):
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}{path}"

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))

    def load(self, *arguments):
        """Starts the load tool against it."""
        command = ["taskset", "-c", LOAD_CORE, self.args.binary, "load", *arguments, "--insecure", "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def result(load):
    return json.loads(load.communicate(timeout=120)[0])


def echo(server, seconds):
    """CPU time of the server for a round trip of 128 bytes, in microseconds."""
    run = ["echo", server.url("/echo"), "-c", "64", "--size", "128", "--warmup", "0.2"]
    before = server.cpu_s()
    told = result(server.load(*run, "--duration", str(seconds)))
    return (server.cpu_s() - before) / told["messages"]["received"] * 1e6


def fanout(server, seconds):
    """CPU time for a delivery to one of 1,000, in microseconds: only of this server, whose protocol it is."""
    if server.name != "Rusty Socks":
        return None
    run = ["fanout", server.url("/ws"), "--subscribers", "1000", "--rate", "40", "--warmup", "0.2", "--ramp", "1"]
    loading = server.load(*run, "--duration", str(2 * seconds))
    # Without the handshakes.
    time.sleep(1.5 + 0.2)
    before = server.cpu_s()
    time.sleep(2 * seconds - 1)
    cpu = server.cpu_s() - before
    told = result(loading)
    return cpu / (1000 * 40 * (2 * seconds - 1)) * 1e6 if told["messages"]["received"] else None


def idle(server, _):
    """Resident bytes for an idle session."""
    path = "/ws" if server.name == "Rusty Socks" else "/"
    before = server.rss_bytes()
    loading = server.load("idle", server.url(path), "-c", str(IDLE), "--ping", "0", "--hold", "2")
    time.sleep(6 if server.tls else 3)
    after = server.rss_bytes()
    told = result(loading)
    return (after - before) / told["open_max"]


def handshake(server, _):
    """CPU time for a connection and its upgrade, in microseconds."""
    before = server.cpu_s()
    told = result(server.load(server.url("/echo"), "-c", str(HANDSHAKES), "--hold", "0"))
    return (server.cpu_s() - before) / told["connections"] * 1e6


def inside(server, seconds):
    """p99 of the round trips of those inside while 500 others a second connect, and without them, in ms."""
    run = ["echo", server.url("/echo"), "-c", "20", "--rate", "200", "--duration", str(2 * seconds)]
    quiet = result(server.load(*run))["traffic"]["latency"]["p99_ms"]
    measured = server.load(*run)
    storm = ["-c", str(int(500 * 2 * seconds)), "--rate", "500", "--hold", "0"]
    pushing = server.load(server.url("/echo"), *storm)
    p99 = result(measured)["traffic"]["latency"]["p99_ms"]
    result(pushing)
    return quiet, p99


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--npm", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        args.cert, args.key = certificate(pathlib.Path(directory))
        measure(args)


def measure(args):
    servers = [(name, tls) for name in ("Rusty Socks", "uWebSockets", "ws") for tls in (False, True)]
    kinds = [echo, fanout, idle, handshake, inside]
    found = {}
    for _ in range(args.rounds):
        for name, tls in servers:
            for kind in kinds:
                with Server(args, name, tls) as server:
                    found.setdefault((name, tls, kind), []).append(kind(server, args.seconds))

    def median(*key):
        values = [value for value in found[key] if value is not None]
        return statistics.median(values) if values else None

    print("| | echo, µs | fan-out, µs | idle, B | handshake, µs | p99 inside, ms, quiet and in a storm |")
    print("|---|---|---|---|---|---|")
    for name, tls in servers:
        cells = []
        for kind in kinds[:4]:
            value, plain = median(name, tls, kind), median(name, False, kind)
            ratio = f" ({value / plain:.2f} ×)" if value and tls else ""
            cells.append("–" if value is None else f"{value:.4g}{ratio}")
        pairs = found[name, tls, inside]
        cells.append(", ".join(f"{statistics.median(part):.3g}" for part in zip(*pairs)))
        print(f"| {name}{', TLS' if tls else ''} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
