"""The client under test: a child process that takes orders and tells what the client yields, both
as lines of JSON. `docs/clients.md` says which. It plays one case after the other, each with a new
client, until one fails."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

from server import show

# A line of a client that yields a large message.
LINE_BYTES_MAX = 16 * 1024 * 1024

# What a client writes to its standard error, of which the end is shown.
NOISE_BYTES_MAX = 64 * 1024

# How long a child may take to end after its standard input has ended.
END_S = 10.0


class Adapter:
    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._number = 0
        self.is_over = False
        self.begin(asyncio.Event())

    def begin(self, changed: asyncio.Event) -> None:
        """Begins a case, which is told by this event that there is something to look at."""
        self._changed = changed
        # What the client yielded, in order, and what was not yet looked for.
        self.log: list[dict[str, Any]] = []
        self.yields: list[dict[str, Any]] = []
        self.results: dict[int, dict[str, Any]] = {}
        self.noise = b""
        self.garbage: str | None = None

    @property
    def is_started(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        self._tasks = [
            asyncio.create_task(self._read_lines()),
            asyncio.create_task(self._read_noise()),
        ]

    def order(self, do: str, **fields: Any) -> int:
        self._number += 1
        assert self._process is not None
        line = json.dumps({"n": self._number, "do": do, **fields})
        show("adapter <-", line)
        assert self._process.stdin is not None
        if not self.is_over:
            self._process.stdin.write(line.encode() + b"\n")
        return self._number

    def find(self, kind: str, **fields: Any) -> dict[str, Any] | None:
        """Takes the first thing of this kind that was yielded and not taken yet."""
        for at, event in enumerate(self.yields):
            if event["yield"] == kind and all(event.get(k) == v for k, v in fields.items()):
                return self.yields.pop(at)
        return None

    async def stop(self) -> int | None:
        """Ends the child, and returns its exit code; `None` if it had to be killed."""
        if self._process is None:
            return 0
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            return await asyncio.wait_for(self._process.wait(), END_S)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
            return None
        finally:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _read_lines(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                show("adapter ->", line)
                try:
                    told = json.loads(line)
                except ValueError:
                    told = None
                if isinstance(told, dict) and "result" in told:
                    self.results[told["result"]] = told
                elif isinstance(told, dict) and "yield" in told:
                    self.log.append(told)
                    self.yields.append(told)
                else:
                    self.garbage = line[:200].decode(errors="replace").rstrip()
                self._changed.set()
        finally:
            self.is_over = True
            self._changed.set()

    async def _read_noise(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        while chunk := await self._process.stderr.read(65536):
            self.noise = (self.noise + chunk)[-NOISE_BYTES_MAX:]
