"""One WebSocket connection: opened, kept alive, and ended with a reason."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as websockets_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from .backoff import Over, retry_after
from .errors import End
from .options import Options

SUBPROTOCOL = "rusty-socks.v1"


class _Connect(websockets_connect):
    # A redirect would take the token to another place. The server sends none.
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class ConnectionOver(Exception):
    def __init__(self, over: Over) -> None:
        super().__init__(str(over.end))
        self.over = over


class Connection:
    """A connection that is open. ``receive`` and ``keep`` raise ``ConnectionOver``."""

    def __init__(self, ws: ClientConnection, session_timeout_s: float) -> None:
        self._ws = ws
        self._session_timeout_s = session_timeout_s
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._quiet_s = 25.0
        self._silence_s = 40.0
        self._has_times = asyncio.Event()

    @classmethod
    async def open(cls, url: str, headers: Mapping[str, str], options: Options) -> Connection:
        arguments = dict(options.connect)
        given = arguments.pop("additional_headers", None) or {}
        try:
            ws = await _Connect(
                url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers={**dict(given), **headers},
                open_timeout=options.open_timeout_s,
                close_timeout=options.close_timeout_s,
                # By the server's own times, as `keep` has it.
                ping_interval=None,
                max_size=options.frame_bytes_max,
                **arguments,
            )
        except InvalidStatus as error:
            raise ConnectionOver(_refusal(error)) from error
        except (OSError, WebSocketException, EOFError) as error:
            # `TimeoutError` is an `OSError` since 3.10, but that of asyncio only since 3.11.
            raise ConnectionOver(Over(End(1006, str(error) or type(error).__name__))) from error
        except asyncio.TimeoutError as error:
            raise ConnectionOver(Over(End(1006, "the connection does not open"))) from error
        return cls(ws, options.open_timeout_s)

    async def receive(self) -> str | bytes:
        try:
            data = await self._ws.recv()
        except ConnectionClosed as error:
            raise ConnectionOver(Over(_end(error))) from error
        self._heard_at = self._loop.time()
        return data

    async def send(self, text: str) -> None:
        """Returns when there is room for more. The end of the connection is told by ``receive``."""
        try:
            await self._ws.send(text)
        except ConnectionClosed:
            await self._loop.create_future()

    def greeted(self, quiet_s: float, silence_s: float) -> None:
        """Pings when nothing has come for so long, and gives up after so much silence."""
        self._quiet_s, self._silence_s = quiet_s, silence_s
        self._has_times.set()

    async def keep(self) -> None:
        """Watches the connection until the server has gone silent, or has not begun a session."""
        if not await is_set(self._has_times, self._session_timeout_s):
            text = "no session: is this a route of the chat protocol?"
            raise ConnectionOver(Over(End(1006, text)))
        while True:
            quiet_s = self._loop.time() - self._heard_at
            if quiet_s < self._quiet_s:
                await asyncio.sleep(self._quiet_s - quiet_s)
            elif not await self._is_alive():
                raise ConnectionOver(Over(End(1006, "the server went silent")))

    async def _is_alive(self) -> bool:
        """Sends a ping and waits for any sign of life."""
        asked_at, unsent = self._loop.time(), self._unsent
        until = max(self._heard_at + self._silence_s, asked_at)
        ping = asyncio.ensure_future(self._ping())
        try:
            while self._heard_at < asked_at:
                left_s = until - self._loop.time()
                if left_s <= 0 and self._unsent >= unsent:
                    return False
                if left_s <= 0:
                    # The ping waits behind earlier data, and a server that reads that is alive.
                    unsent = self._unsent
                    until = self._loop.time() + max(0.1, self._silence_s - self._quiet_s)
                    continue
                # Frames are looked for every so often: a wake-up for each would cost more.
                await asyncio.wait({ping}, timeout=min(left_s, max(0.05, self._quiet_s / 4)))
                if ping.done() and self._heard_at < asked_at:
                    await asyncio.sleep(min(0.05, left_s))
            return True
        finally:
            ping.cancel()

    async def _ping(self) -> None:
        try:
            pong = await self._ws.ping()
            await pong
            self._heard_at = self._loop.time()
        except ConnectionClosed:
            pass

    @property
    def _unsent(self) -> int:
        return self._ws.transport.get_write_buffer_size()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes in order, within the time for that."""
        try:
            await self._ws.close(code, reason)
        finally:
            self.abort()

    def abort(self) -> None:
        self._ws.transport.abort()


async def is_set(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Waits for an event, and says whether it came in time.

    Unlike ``asyncio.wait_for`` before Python 3.12, it is cancelled even if the event comes in the
    same turn of the loop.
    """
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({waiting}, timeout=timeout_s)
        return waiting.done()
    finally:
        waiting.cancel()


def _end(error: ConnectionClosed) -> End:
    if error.rcvd is not None:
        return End(error.rcvd.code, error.rcvd.reason)
    if error.sent is not None and error.sent.code != 1000:
        return End(1006, f"the server broke the protocol: {error.sent.reason or error.sent.code}")
    return End(1006, "the connection was lost")


def _refusal(error: InvalidStatus) -> Over:
    response = error.response
    reason = response.reason_phrase
    try:
        body: Any = json.loads(response.body or b"")
        if isinstance(body, dict) and isinstance(body.get("message"), str):
            reason = body["message"]
    except (ValueError, RecursionError):
        pass
    values = response.headers.get_all("Retry-After")
    end = End(1006, reason, response.status_code)
    return Over(end, retry_after_s=retry_after(values[0] if values else None))
