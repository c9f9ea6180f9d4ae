"""One case: a scripted server, a client, and what a case says of both."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from adapter import Adapter
from server import Link, Server

# How long anything may take that must come. Long, because the machine may be busy; no case that
# passes waits for it.
DEADLINE_S = 15.0

# How long to look for what must not come. A client that errs does so at once, or with its first
# backoff, which is 250 ms at most.
WATCH_S = 0.45

# What a timer may be early by.
EARLY_S = 0.03

# The times that a client may have as options; one that has none of these ignores them.
FAST = {"backoff_base_ms": 20, "backoff_cap_ms": 200}

# Backoffs so long that what comes before their end comes at once.
SLOW = {"backoff_base_ms": 60_000, "backoff_cap_ms": 60_000}

ME = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
NEW = "33333333-3333-4333-8333-333333333333"
SECRET = "the-secret-of-the-first-session"


class Failed(Exception):
    """The client did what it must not, or did not do what it must."""


class Skipped(Exception):
    """The client has nothing to which the case could apply."""


@dataclass(frozen=True)
class Case:
    name: str
    what: str
    play: Callable[[Table], Awaitable[None]]


CASES: dict[str, Case] = {}


def case(name: str, what: str) -> Callable[[Callable[[Table], Awaitable[None]]], Any]:
    """Registers a case: `group/name`, and what a client must do in it."""

    def register(play: Callable[[Table], Awaitable[None]]) -> Any:
        assert name not in CASES, name
        CASES[name] = Case(name, what, play)
        return play

    return register


def welcome(**fields: Any) -> dict[str, Any]:
    frame = {
        "type": "welcome",
        "client_id": ME,
        "session": SECRET,
        "room": "lobby",
        "epoch": "lobby-1",
        "seq": 0,
        "server": "a scripted server",
        "node": "44444444-4444-4444-8444-444444444444",
        "ping_s": 30,
        "max_message_bytes": 65536,
        "resume_window_s": 60,
        "limits": {"rate_messages": 100_000, "rate_bytes": 1 << 30, "max_rooms": 100},
        **fields,
    }
    return {name: value for name, value in frame.items() if value is not None}


def newcomer(**fields: Any) -> dict[str, Any]:
    """The welcome of a connection that has a session of its own."""
    return welcome(client_id=NEW, session="the-secret-of-the-second-session", **fields)


def message(room: str, seq: int, content: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "type": "message",
        "room": room,
        "seq": seq,
        "id": f"{zlib.crc32(room.encode()):08x}-0000-4000-8000-{seq % (1 << 48):012x}",
        "content": seq if content is None else content,
        "timestamp": "2026-11-21T07:29:01.771Z",
        "client_id": OTHER,
        **fields,
    }


def messages(room: str, seqs: Iterable[int]) -> list[dict[str, Any]]:
    return [message(room, seq) for seq in seqs]


def joined(link: Link, command: dict[str, Any], **fields: Any) -> None:
    """Answers a join."""
    room = command["room"]
    found = {"epoch": f"{room}-1", "seq": 0, "recovered": False, "overflow": "close", "messages": []}
    if command.get("presence"):
        found |= {"members": [{"client_id": ME}], "count": 1}
    link.ok(command, room=room, **{**found, **fields})


def agree(link: Link, command: dict[str, Any]) -> None:
    """Answers any command as a server does that has nothing against it."""
    room = command.get("room", "lobby")
    match command.get("type", "publish"):
        case "join" if command["room"].endswith(".*"):
            link.ok(command, room=room, rooms=[])
        case "join":
            joined(link, command)
        case "leave":
            link.ok(command, room=room)
        case "history":
            link.ok(command, room=room, epoch=f"{room}-1", seq=0, messages=[])
        case "presence":
            link.ok(command, room=room, members=[{"client_id": ME}], count=1)
        case "direct":
            link.ok(command, to=command["to"], id=command["id"])
        case "broadcast":
            link.ok(command, id=command["id"])
        case "resume":
            resumed(link, command)
        case _:
            published(link, command)


def published(link: Link, command: dict[str, Any], seq: int = 1, **fields: Any) -> None:
    """Answers a publish."""
    rooms = command.get("rooms")
    places = {"room": command.get("room", "lobby"), "seq": seq}
    if rooms:
        places = {"rooms": [{"room": room, "seq": seq} for room in rooms]}
    link.ok(command, **places, id=command["id"], **fields)


def resumed(link: Link, command: dict[str, Any], *, rooms: list[dict[str, Any]] | None = None, **fields: Any) -> None:
    """Answers a resume; without `rooms`, nothing was missed in those that it names."""
    if rooms is None:
        rooms = [found(each["room"], each["epoch"], each["seq"]) for each in command.get("rooms", [])]
    direct = {"seq": command.get("direct", 0) or 0, "recovered": True}
    answer = {"client_id": ME, "session": SECRET, "patterns": [], "rooms": rooms, "direct": direct}
    link.ok(command, **{**answer, **fields})


def found(room: str, epoch: str, seq: int, *, missed: Iterable[dict[str, Any]] | None = (), **fields: Any) -> dict[str, Any]:
    """A room in the answer to a resume; with `missed=None` it was not recovered."""
    return {
        "room": room,
        "epoch": epoch,
        "seq": seq,
        "recovered": missed is not None,
        "overflow": "close",
        "messages": list(missed or ()),
        **fields,
    }


async def end(adapter: Adapter) -> None:
    """Ends the process of an adapter, which must go in order."""
    code = await adapter.stop()
    if code is None:
        raise Failed("the client does not end when its standard input has ended")
    if code != 0:
        last = adapter.noise.decode(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"the client ended with exit code {code}: {''.join(last)}")


class Table:
    """What a case plays on."""

    def __init__(self, adapter: Adapter) -> None:
        self.server = Server()
        self.adapter = adapter
        adapter.begin(self.server.changed)

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        """Ends all, and judges what must hold in every case. The adapter is ready for the next one
        if nothing is raised."""
        try:
            number = self.order("reset")
            await self.until("answer to the last order, reset", lambda: number in self.adapter.results)
            if "skip" in self.adapter.results[number]:
                await end(self.adapter)
        finally:
            await self.server.stop()
        if self.server.faults:
            raise Failed(self.server.faults[0])

    # --- Orders.

    def order(self, do: str, **fields: Any) -> int:
        return self.adapter.order(do, **fields)

    async def result(self, number: int) -> dict[str, Any]:
        """What became of an order: `{"ok": …}` or `{"error": code}`."""
        told = await self.until(f"result of order {number}", lambda: self.adapter.results.get(number))
        if "skip" in told:
            raise Skipped(told["skip"])
        return told

    async def ok(self, number: int) -> Any:
        told = await self.result(number)
        if "error" in told:
            raise Failed(f"order {number} fails with {told['error']!r}: {told.get('message')}")
        return told.get("ok")

    async def error(self, number: int, *codes: str) -> dict[str, Any]:
        """The order has failed, with one of these codes if any are named."""
        told = await self.result(number)
        if "error" not in told or codes and told["error"] not in codes:
            raise Failed(f"order {number} gives {told}, and not one of the errors {codes or 'at all'}")
        return told

    def connect(self, **options: Any) -> int:
        return self.order("connect", url=self.server.url, options={**FAST, **options})

    # --- Waiting.

    async def until(self, what: str | Callable[[], str], look: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
        """Waits until `look()` gives something other than `None` and `False`."""
        deadline = time.monotonic() + seconds
        changed = self.server.changed
        while True:
            changed.clear()
            seen = look()
            if seen is not None and seen is not False:
                return seen
            if self.server.faults:
                raise Failed(self.server.faults[0])
            if self.adapter.garbage is not None:
                raise Failed(f"the adapter says {self.adapter.garbage!r}")
            left_s = deadline - time.monotonic()
            if left_s <= 0 or self.adapter.is_over:
                why = "the client has ended" if self.adapter.is_over else f"within {seconds} s"
                text = what if isinstance(what, str) else what()
                raise Failed(f"no {text}: {why}; yielded were {self._last(self.adapter.log)}")
            try:
                await asyncio.wait_for(changed.wait(), left_s)
            except asyncio.TimeoutError:
                pass

    async def never(self, what: str, look: Callable[[], Any], seconds: float = WATCH_S) -> None:
        """Watches for a while that `look()` gives nothing."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            self.server.changed.clear()
            seen = look()
            if seen is not None and seen is not False:
                raise Failed(f"{what}: {str(seen)[:300]}")
            try:
                await asyncio.wait_for(self.server.changed.wait(), left_s)
            except asyncio.TimeoutError:
                pass

    def _last(self, events: list[dict[str, Any]]) -> str:
        return str(events[-6:])[:600]

    # --- The server's side.

    async def accept(self, seconds: float = DEADLINE_S) -> Link:
        """The next connection that got its 101."""
        await self.until("connection", lambda: bool(self.server.waiting), seconds)
        return self.server.waiting.pop(0)

    async def take(self, link: Link, **fields: Any) -> dict[str, Any]:
        """The next command with these fields."""
        frame = await self.until(
            lambda: f"command with {fields}, but {self._last([f for _, f in link.log])}", lambda: link.find(**fields)
        )
        return frame

    async def open(self, *frames: dict[str, Any], options: dict[str, Any] | None = None, **fields: Any) -> Link:
        """Connects the client, and says welcome with these fields and frames after it."""
        await self.ok(self.connect(**(options or {})))
        link = await self.accept()
        link.send(welcome(**fields), *frames)
        await self.event("open")
        return link

    async def greet(self, link: Link) -> None:
        link.send(welcome())
        await self.event("open")

    async def close_promptly(self) -> None:
        """Long before a time of the client's own, such as its backoff, has passed."""
        number = self.order("close")
        await self.until("end of the close", lambda: number in self.adapter.results, 5.0)
        await self.ok(number)

    async def join(self, link: Link, room: str, *, order: dict[str, Any] | None = None, **fields: Any) -> None:
        number = self.order("join", room=room, **(order or {}))
        joined(link, await self.take(link, type="join", room=room), **fields)
        await self.ok(number)

    async def back(self, seconds: float = DEADLINE_S) -> tuple[Link, dict[str, Any]]:
        """The next connection, greeted, and the resume on it, which must be its first command."""
        link = await self.accept(seconds)
        link.send(newcomer())
        resume = await self.take(link, type="resume")
        if link.log[0][1] != resume:
            raise Failed(f"the first command of the new connection is {link.log[0][1]}")
        if resume.get("session") != SECRET:
            raise Failed(f"the resume has the session {resume.get('session')!r}")
        return link, resume

    async def resume(self) -> Link:
        link, command = await self.back()
        resumed(link, command)
        await self.event("open", resumed=True)
        return link

    async def resume_as_it_is(self) -> Link:
        """Resumes, whatever the positions and the session are by now."""
        link = await self.accept()
        link.send(newcomer())
        resumed(link, await self.take(link, type="resume"))
        return link

    def positions(self, resume: dict[str, Any]) -> dict[str, tuple[str, int]]:
        return {each["room"]: (each["epoch"], each["seq"]) for each in resume.get("rooms", [])}

    # --- The client's side.

    async def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        return await self.until(lambda: f"{kind} with {fields}", lambda: self.adapter.find(kind, **fields))

    def seen(self, room: str) -> list[Any]:
        """The numbers of the messages that were yielded in a room so far."""
        return [each["seq"] for each in self.adapter.log if each["yield"] == "message" and each["room"] == room]

    def all(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            each
            for each in self.adapter.log
            if each["yield"] == kind and all(each.get(k) == v for k, v in fields.items())
        ]

    async def yields(self, room: str, seqs: Iterable[int]) -> None:
        """These messages of the room were yielded since the beginning, in this order, and no others."""
        want = list(seqs)
        await self.until(
            lambda: f"messages {want[:20]} in {room}, but {self.seen(room)[:20]}",
            lambda: len(self.seen(room)) >= len(want),
        )
        self.expect(self.seen(room) == want, f"the messages of {room} are {self.seen(room)[:20]}, not {want[:20]}")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            raise Failed(what)

    # --- What several cases end with.

    async def works(self, link: Link, room: str = "lobby", seq: int = 1) -> None:
        """The client still yields a message, on this connection."""
        link.send(message(room, seq, "still here"))
        await self.until("message on the same connection", lambda: seq in self.seen(room))
        self.expect(not link.is_over, "the connection was given up")

    async def ok_works(self, link: Link) -> None:
        """The client still carries out a call, on this connection."""
        number = self.order("history", room="lobby")
        link.ok(await self.take(link, type="history"), room="lobby", epoch="lobby-1", seq=0, messages=[])
        await self.ok(number)

    async def survives(self, link: Link, room: str = "lobby", seq: int = 1) -> None:
        """The client goes on: on this connection, or on the next one, where it resumes."""
        link.send(message(room, seq, "still here"))
        await self.until(
            "message, and no new connection",
            lambda: seq in self.seen(room) or bool(self.server.waiting) or bool(self.all("end")),
        )
        if seq not in self.seen(room) and self.server.waiting:
            link, command = await self.back()
            epoch, at = self.positions(command).get(room, (f"{room}-1", 0))
            missed = messages(room, range(at + 1, seq + 1))
            resumed(link, command, rooms=[found(room, epoch, seq, missed=missed)])
            await self.until("message after the resume", lambda: seq in self.seen(room))
        self.expect(not self.all("end"), f"the client gave up: {self.all('end')}")

    async def stays_away(self, **fields: Any) -> None:
        """The client says that it has ended, and does not come back."""
        await self.event("end", **fields)
        before = len(self.server.times)
        await self.never("the client comes back", lambda: len(self.server.times) > before)
        await self.error(self.order("publish", room="lobby", content=1), "stopped", "closed")
