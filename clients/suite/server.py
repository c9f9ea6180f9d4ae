"""A WebSocket server whose every byte is the case's. No library does it, because none sends
nonsense."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import struct
import time
from collections.abc import Callable
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# A client has no reason to send more than this in one head or one frame.
HEAD_BYTES_MAX = 64 * 1024
FRAME_BYTES_MAX = 16 * 1024 * 1024

# What is not sent by then waits for a client that reads nothing.
DRAIN_S = 20.0


# Set by `--trace`: is told each frame and line that goes anywhere, with an arrow.
trace: Callable[[str, object], None] = lambda arrow, what: None


def show(arrow: str, what: object) -> None:
    trace(arrow, what)


class Fault(Exception):
    """The client broke a rule that holds in every case."""


def frame(opcode: int, payload: bytes, *, final: bool = True, rsv: int = 0, mask: bool = False) -> bytes:
    """One frame as a server sends it, or as it must not."""
    head = bytes([(0x80 if final else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 0x10000:
        head += struct.pack(">BH", bit | 126, len(payload))
    else:
        head += struct.pack(">BQ", bit | 127, len(payload))
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if mask else b"") + payload


def text(*frames: Any) -> bytes:
    return b"".join(frame(TEXT, json.dumps(each, ensure_ascii=False).encode()) for each in frames)


def close_frame(code: int | None, reason: str = "") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason.encode())


def strict_json(data: str) -> Any:
    """What every JSON parser can read, and no more: RFC 8259 and the one of I-JSON on names."""

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        if len(set(names)) < len(names):
            raise ValueError(f"a name occurs twice in {names}")
        return dict(items)

    return json.loads(data, parse_constant=constant, object_pairs_hook=pairs)


def check_resume(command: dict[str, Any]) -> None:
    """A client makes this command by itself, so that no caller's mistake can be in it."""
    for place in command.get("rooms", []):
        kinds = [type(place.get(name)) for name in ("room", "epoch", "seq")]
        if kinds != [str, str, int] or place["seq"] < 0:
            raise Fault(f"the resume has the position {place}")
    if not isinstance(command.get("session"), str) or type(command.get("direct", 0)) is not int:
        raise Fault(f"the resume is {str(command)[:200]}")


class Link:
    """One connection of the client, from the head of its upgrade on."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        changed: asyncio.Event,
        faults: list[str],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._changed = changed
        self._faults = faults
        self._refs: set[str] = set()
        self.opened_at = time.monotonic()
        self.head = ""
        self.headers: dict[str, str] = {}
        # Every command in order, with the time at which it came, and those that were not yet taken.
        self.log: list[tuple[float, dict[str, Any]]] = []
        self.frames: list[dict[str, Any]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        # The code of the client's close frame; 1005 if it had none, `None` without a close frame.
        self.close_code: int | None = None
        self.is_over = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._answer: Callable[[Link, dict[str, Any]], None] | None = None

    # --- What the case does.

    def send(self, *frames: Any) -> None:
        """Sends them in one piece, so that they may come in one read."""
        self.bytes(text(*frames))

    def bytes(self, data: bytes) -> None:
        if not self._writer.is_closing():
            show("client <-", data)
            self._writer.write(data)

    async def drain(self) -> None:
        try:
            await asyncio.wait_for(self._writer.drain(), DRAIN_S)
        except (ConnectionError, asyncio.TimeoutError):
            pass

    def ok(self, command: dict[str, Any], **fields: Any) -> None:
        ref = {"ref": command["ref"]} if "ref" in command else {}
        self.send({"type": "ok", **ref, **fields})

    def error(self, command: dict[str, Any], code: str, **fields: Any) -> None:
        ref = {"ref": command["ref"]} if "ref" in command else {}
        self.send({"type": "error", **ref, "code": code, "message": f"the case says {code}", **fields})

    def close(self, code: int | None, reason: str = "") -> None:
        """Says goodbye, and ends the connection when the client has answered."""
        self.bytes(close_frame(code, reason))

    def pause(self) -> None:
        """Reads nothing more."""
        self._reading.clear()

    def end(self) -> None:
        """Ends the connection in order, but without a close frame."""
        if not self._writer.is_closing():
            self._writer.close()

    def cut(self) -> None:
        """Ends the connection by a reset."""
        self._writer.transport.abort()

    def find(self, **fields: Any) -> dict[str, Any] | None:
        """Takes the first command with these fields that was not taken yet."""
        for at, command in enumerate(self.frames):
            if all(command.get(name) == value for name, value in fields.items()):
                return self.frames.pop(at)
        return None

    def auto(self, answer: Callable[[Link, dict[str, Any]], None]) -> None:
        """From now on commands are answered so, those that wait first."""
        self._answer = answer
        waiting, self.frames = self.frames, []
        for command in waiting:
            answer(self, command)

    def count(self, **fields: Any) -> int:
        """How many commands with these fields came so far, those that were taken too."""
        return sum(all(command.get(k) == v for k, v in fields.items()) for _, command in self.log)

    # --- What comes.

    async def upgrade(self, extra: bytes = b"", accept: str | None = None) -> None:
        key = self.headers.get("sec-websocket-key", "").encode()
        right = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        offered = "sec-websocket-protocol" in self.headers
        head = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            *(["Sec-WebSocket-Protocol: rusty-socks.v1"] if offered else []),
            f"Sec-WebSocket-Accept: {right if accept is None else accept}",
        ]
        self.bytes("\r\n".join([*head, "", ""]).encode() + extra)

    async def read_head(self) -> bool:
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return False
        self.head = head.decode("latin-1")
        for line in self.head.split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if colon:
                self.headers[name.strip().lower()] = value.strip()
        return True

    def check_head(self) -> None:
        """What RFC 6455, 4.1, and the protocol ask of an upgrade."""
        headers = self.headers
        wrong = []
        if not re.match(r"GET /ws(\?\S*)? HTTP/1\.1\r\n", self.head):
            wrong.append("the request line")
        if "websocket" not in headers.get("upgrade", "").lower():
            wrong.append("Upgrade")
        if "upgrade" not in headers.get("connection", "").lower():
            wrong.append("Connection")
        if headers.get("sec-websocket-version") != "13":
            wrong.append("Sec-WebSocket-Version")
        if "host" not in headers:
            wrong.append("Host")
        # A client need not offer it.
        if "rusty-socks.v1" not in headers.get("sec-websocket-protocol", "rusty-socks.v1"):
            wrong.append("Sec-WebSocket-Protocol")
        try:
            is_key = len(base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)) == 16
        except ValueError:
            is_key = False
        if not is_key:
            wrong.append("Sec-WebSocket-Key")
        if wrong:
            self._fault(f"the head of an upgrade is wrong in {', '.join(wrong)}")

    async def read_frames(self) -> None:
        try:
            while self.close_code is None:
                await self._reading.wait()
                await self._read_frame()
                self._changed.set()
        except Fault as fault:
            self._fault(str(fault))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.is_over = True
            self.end()
            self._changed.set()

    async def _read_frame(self) -> None:
        first, second = await self._reader.readexactly(2)
        opcode, size = first & 15, second & 127
        if size == 126:
            (size,) = struct.unpack(">H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._reader.readexactly(8))
        if not second & 128:
            raise Fault("a frame of the client has no mask")
        if first & 0x70:
            raise Fault("a frame of the client has a reserved bit that was not agreed on")
        if opcode in (CLOSE, PING, PONG) and (size > 125 or not first & 128):
            raise Fault("a control frame of the client is too long, or in parts")
        if size > FRAME_BYTES_MAX:
            raise Fault(f"a frame of the client has {size} bytes")
        mask = await self._reader.readexactly(4)
        data = await self._reader.readexactly(size)
        payload = (int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")).to_bytes(size, "big")
        if opcode == PING:
            self.pings += 1
            self.bytes(frame(PONG, payload))
        elif opcode == PONG:
            self.pongs.append(payload)
        elif opcode == CLOSE:
            self.close_code = struct.unpack(">H", payload[:2])[0] if payload else 1005
            self.bytes(close_frame(None if self.close_code == 1005 else self.close_code))
        elif opcode == TEXT and first & 128:
            self._command(payload)
        else:
            raise Fault(f"a frame of the client has opcode {opcode}, or is in parts")

    def _command(self, payload: bytes) -> None:
        try:
            command = strict_json(payload.decode())
        except (ValueError, RecursionError) as error:
            raise Fault(f"the client sends what is no JSON: {error}") from error
        if not isinstance(command, dict):
            raise Fault("the client sends what is no object")
        show("client ->", command)
        ref = json.dumps(command.get("ref"))
        if "ref" in command and (ref in self._refs or len(ref) > 128):
            raise Fault(f"the ref {ref} is used again, or is too long")
        self._refs.add(ref)
        if command.get("type") == "resume":
            check_resume(command)
        self.log.append((time.monotonic(), command))
        if command.get("type") == "ping":
            self.send({"type": "pong", **({"ref": command["ref"]} if "ref" in command else {})})
            return
        self.frames.append(command)
        if self._answer is not None:
            self._answer(self, self.frames.pop())

    def _fault(self, what: str) -> None:
        self._faults.append(what)
        self._changed.set()


# Answers an upgrade in another way than with a proper 101.
Answer = Callable[[Link], Any]


class Server:
    """Listens on a free port. Upgrades get the answers that were planned, and then 101."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        # Rules that the client broke.
        self.faults: list[str] = []
        # All connections, and those with a 101 that the case has not taken yet.
        self.links: list[Link] = []
        self.waiting: list[Link] = []
        # When each connection came.
        self.times: list[float] = []
        self._plans: list[Answer] = []
        self._always: Answer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for link in self.links:
            link.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def plan(self, *answers: Answer) -> None:
        """The next upgrades are answered so."""
        self._plans += answers

    def plan_all(self, answer: Answer) -> None:
        self._always = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link(reader, writer, self.changed, self.faults)
        self.links.append(link)
        self.times.append(link.opened_at)
        try:
            if await link.read_head():
                link.check_head()
                answer = self._plans.pop(0) if self._plans else self._always
                self.changed.set()
                if answer is None:
                    await link.upgrade()
                    self.waiting.append(link)
                else:
                    answered = answer(link)
                    if asyncio.iscoroutine(answered):
                        await answered
                self.changed.set()
                await link.read_frames()
        except asyncio.CancelledError:
            # The case is over.
            pass
        finally:
            link.is_over = True
            self._tasks.discard(task)
            writer.close()


def refuse(status: int, headers: dict[str, str] | None = None, body: str = "") -> Answer:
    """Answers with this status and ends the connection."""

    def answer(link: Link) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} No\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        link.bytes(head.encode())
        link.end()

    return answer


def raw(data: bytes, *, then: str = "end") -> Answer:
    """Answers with these bytes, and then ends, cuts or keeps the connection."""

    def answer(link: Link) -> None:
        link.bytes(data)
        if then == "end":
            link.end()
        elif then == "cut":
            link.cut()

    return answer
