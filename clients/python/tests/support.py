"""What the tests share: the real server, waiting for conditions, and clients that are closed."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time
import unittest
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from rusty_socks import Client, Connected, Event, Message, Options, Room
from rusty_socks.client import Token

from .proxy import Proxy

T = TypeVar("T")

# The longest that anything here may take; what reaches it hangs.
DEADLINE_S = 20.0

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("RUSTY_SOCKS_BINARY", str(ROOT / "target/debug/rusty_socks"))

SEED = int(os.environ.get("SEED") or random.randrange(2**32))

# Long enough that what is lost has to be fetched again, short enough that the tests are.
FAST: dict[str, Any] = {"backoff_base_s": 0.02, "backoff_cap_s": 0.2, "open_timeout_s": 3.0}


async def until(what: str | Callable[[], str], look: Callable[[], T]) -> T:
    """Waits until ``look()`` gives something true, and returns that."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"no {what if isinstance(what, str) else what()}")
        await asyncio.sleep(0.003)


async def within(what: str, awaitable: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(awaitable, DEADLINE_S)
    except asyncio.TimeoutError:
        raise AssertionError(f"no {what} within {DEADLINE_S} s") from None


class Server:
    """The real server, with ``settings`` and otherwise the defaults."""

    def __init__(self, **settings: object) -> None:
        self._settings = {"host": "127.0.0.1", "port": 0, "drain_timeout": 2, **settings}
        self._process: asyncio.subprocess.Process | None = None
        self._drained: asyncio.Task[None] | None = None
        self.log = ""
        self.port = 0

    async def start(self) -> None:
        # Of the caller's environment, no setting may reach the server.
        kept = {k: v for k, v in os.environ.items() if not re.match("RUSTY_SOCKS_|RUST_LOG", k)}
        text = {k: str(v).lower() if v is True else str(v) for k, v in self._settings.items()}
        ours = {f"RUSTY_SOCKS_{key.upper()}": value for key, value in text.items()}
        self.log = ""
        self._process = await asyncio.create_subprocess_exec(
            BINARY,
            env={**kept, **ours},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._drained = asyncio.create_task(self._read_log(self._process))
        pattern = re.compile(r"listens on \S+:(\d+):")

        def port() -> int:
            assert self._drained is not None and not self._drained.done(), self.log
            found = pattern.search(self.log)
            return int(found[1]) if found else 0

        self.port = await until("line with the address in the log", port)

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.log += line.decode(errors="replace")

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def stop(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(by)
            await within("end of the server", self._process.wait())
        if self._drained is not None:
            await self._drained


class Reader:
    """A client with all that it was told, for a test to look at."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: list[Event] = []
        self.messages: dict[str, list[Message]] = {}
        self._tasks = [asyncio.create_task(self._read_events())]

    async def _read_events(self) -> None:
        async for event in self.client.events():
            self.events.append(event)

    def read(self, room: Any) -> Any:
        """Reads a room or pattern from now on."""
        seen = self.messages.setdefault(room.name, [])

        async def loop() -> None:
            async for message in room:
                seen.append(message)

        self._tasks.append(asyncio.create_task(loop()))
        return room

    async def join(self, name: str, **how: Any) -> Room:
        room: Room = self.read(await self.client.join(name, **how))
        return room

    def contents(self, name: str) -> list[Any]:
        return [message.content for message in self.messages[name]]

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class ServerTest(unittest.IsolatedAsyncioTestCase):
    """A test with a server, a proxy before it, and clients that are closed at its end."""

    async def asyncSetUp(self) -> None:
        self.readers: list[Reader] = []

    async def serve(self, **settings: object) -> None:
        self.server = Server(**settings)
        self.addAsyncCleanup(self.server.stop)
        await self.server.start()
        self.proxy = Proxy(self.server.port)
        self.addAsyncCleanup(self.proxy.stop)
        await self.proxy.start()
        # Run before the proxy and the server end.
        self.addAsyncCleanup(self._close_clients)

    async def connect(
        self, *, direct: bool = False, token: Token | None = None, **options: Any
    ) -> Reader:
        """A client, through the proxy unless it is ``direct``."""
        url = self.server.url if direct else self.proxy.url
        client = Client(url, token=token, options=Options(**{**FAST, **options}))
        reader = Reader(client)
        self.readers.append(reader)
        await within("session", client.__aenter__())
        return reader

    async def _close_clients(self) -> None:
        for reader in self.readers:
            await within("close", reader.client.close())
            await reader.stop()

    async def break_and_return(self, reader: Reader, how: Callable[[], None]) -> None:
        """Breaks the connections, and waits until this client has a session again."""
        before = len(reader.of(Connected))
        how()
        await until("new session", lambda: len(reader.of(Connected)) > before)
