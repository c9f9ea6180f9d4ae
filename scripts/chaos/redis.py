"""Redis as nodes use it: processes of a real server, that can be killed, frozen and promoted."""

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

START_S_MAX = 20
ANSWER_S_MAX = 5
# Between choosing a port and listening on it, somebody else may.
PORTS_TRIED_MAX = 10
# How Sentinel names the primary, and how long that must be silent until another one is promoted.
PRIMARY = "main"
SILENCE_MS = 1000


def program():
    """The program, or `None` where there is none."""
    return shutil.which("redis-server") or shutil.which("valkey-server")


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


class Redis:
    """A process on a port of its own, which keeps each write on disk before it answers. `watched`
    is the port of a primary: then this is the Sentinel of it."""

    def __init__(self, watched=None):
        self.dir = Path(tempfile.mkdtemp(prefix="rusty-socks-redis-"))
        self.watched, self.process, self.port = watched, None, None

    async def begin(self, *more):
        """Starts it on a port that is free."""
        for _ in range(PORTS_TRIED_MAX):
            self.port = free_port()
            if await self.start(*more):
                return self
        raise AssertionError(f"redis-server runs on none of {PORTS_TRIED_MAX} ports")

    def _arguments(self):
        if self.watched is None:
            return [
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.dir)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
                *("--repl-diskless-sync-delay", "0", "--repl-backlog-size", "8mb"),
            ]
        conf = self.dir / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.dir}\n"
            f"sentinel monitor {PRIMARY} 127.0.0.1 {self.watched} 1\n"
            f"sentinel down-after-milliseconds {PRIMARY} {SILENCE_MS}\n"
            f"sentinel failover-timeout {PRIMARY} 3000\n"
        )
        return [str(conf), "--sentinel"]

    async def start(self, *more):
        """Starts it again on its port, with what it has kept. `False` if it ended instead."""
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(
                [program(), *self._arguments(), *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncio.TimeoutError, RuntimeError):
                await self.command("PING")
                return self.process.poll() is None
            if self.process.poll() is not None:
                return False
            await asyncio.sleep(0.02)
        raise AssertionError(f"redis-server does not answer on port {self.port}")

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def forget(self):
        """Removes what it has kept, while it does not run."""
        shutil.rmtree(self.dir / "appendonlydir", ignore_errors=True)
        for file in self.dir.glob("*.rdb"):
            file.unlink()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)

    def end(self):
        self.go_on()
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    async def command(self, *words):
        """Runs one command, and returns its answer. Raises `RuntimeError` with the words of an
        error, and `OSError` or `TimeoutError` where there is no answer."""
        return await asyncio.wait_for(self._command(words), ANSWER_S_MAX)

    async def _command(self, words):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            request = [f"*{len(words)}\r\n".encode()]
            for word in map(str, words):
                request.append(f"${len(word.encode())}\r\n{word}\r\n".encode())
            writer.write(b"".join(request))
            return await read_reply(reader)
        finally:
            writer.close()

    async def info(self):
        """What `INFO replication` says, by name."""
        lines = (await self.command("INFO", "replication")).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)


async def read_reply(reader):
    line = (await reader.readline()).decode().rstrip("\r\n")
    if not line:
        raise ConnectionError("Redis has closed the connection")
    kind, rest = line[0], line[1:]
    if kind == "-":
        raise RuntimeError(rest)
    if kind == "$":
        if rest == "-1":
            return None
        return (await reader.readexactly(int(rest) + 2))[:-2].decode(errors="replace")
    if kind == "*":
        return [await read_reply(reader) for _ in range(max(int(rest), 0))]
    return int(rest) if kind == ":" else rest
