"""A TCP proxy that does to connections what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Literal

Direction = Literal["up", "down"]

# A stalled direction holds back so much and then stops reading, as a full pipe would.
HELD_BYTES_MAX = 1 << 16


class _Pipe(asyncio.Protocol):
    """One side of a link: what it receives goes to ``other``, in the given direction."""

    def __init__(self, proxy: Proxy, direction: Direction) -> None:
        self.proxy = proxy
        self.direction = direction
        self.transport: asyncio.Transport | None = None
        self.other: _Pipe | None = None
        self._held: list[tuple[float, bytes]] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._held.append((loop.time() + self.proxy.delay_s, data))
        self._bytes += len(data)
        if self._bytes > HELD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()
        self.flush()

    def eof_received(self) -> bool:
        self._is_ending = True
        self.flush()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.proxy.links.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def flush(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        to = self.other.transport if self.other is not None else None
        if to is None or self.direction in self.proxy.stalled:
            return
        while self._held:
            at, data = self._held[0]
            if at > loop.time():
                self._timer = loop.call_at(at, self.flush)
                return
            self._held.pop(0)
            self._bytes -= len(data)
            if not to.is_closing():
                to.write(data)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._is_ending:
            to.close()

    def reset(self) -> None:
        """Ends the connection with an RST."""
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Proxy:
    def __init__(self, target: int) -> None:
        # Where new connections lead.
        self.target = target
        self.stalled: set[Direction] = set()
        self.delay_s = 0.0
        # New connections are reset at once.
        self.is_refusing = False
        self.accepted = 0
        self.links: set[_Pipe] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections with a FIN in both directions."""
        for link in list(self.links):
            if link.transport is not None:
                link.transport.close()

    def reset(self) -> None:
        for link in list(self.links):
            link.reset()

    def stall(self, direction: Direction) -> None:
        """Nothing passes in this direction any more: ``up`` is to the server."""
        self.stalled.add(direction)

    def release(self) -> None:
        """What was held back passes now."""
        self.stalled.clear()
        for link in list(self.links):
            link.flush()

    def _accept(self) -> _Pipe:
        self.accepted += 1
        up = _Accepted(self, "up")
        self.links.add(up)
        return up

    def connect(self, up: _Pipe) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(up))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, up: _Pipe) -> None:
        down = _Pipe(self, "down")
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: down, "127.0.0.1", self.target)
        except OSError:
            up.reset()
            return
        self.links.add(down)
        up.other, down.other = down, up
        if up.transport is None or up.transport.is_closing():
            down.reset()
        up.flush()
        down.flush()


class _Accepted(_Pipe):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.proxy.is_refusing:
            self.reset()
        else:
            self.proxy.connect(self)
