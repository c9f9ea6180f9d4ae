"""The asyncio client for the conformance suite: orders from stdin, what it yields to stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True
# One that is installed comes first.
sys.path.append(str(Path(__file__).resolve().parents[2] / "python" / "src"))

from rusty_socks import Client, Options, Position, RustySocksError, events  # noqa: E402

BY_DESIGN: dict[str, str] = {}

OPTIONS = {
    "backoff_base_ms": ("backoff_base_s", 1000),
    "backoff_cap_ms": ("backoff_cap_s", 1000),
    "open_timeout_ms": ("open_timeout_s", 1000),
    "outbox_max": ("outbox_max", 1),
}


class Skip(Exception):
    """There is no such thing in this client."""


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> Any:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


# Values that no line of JSON could bring here.
VALUES: dict[str, Callable[[], Any]] = {
    "nan": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "circle": circle,
    "function": lambda: print,
    "nothing": lambda: ...,
    "big": lambda: 10**400,
    "bytes": lambda: b"\x00\xff",
    "set": lambda: {1},
    "half": lambda: "\ud83d",
    "deep": deep,
    "throws": object,
    "key": lambda: {(1, 2): 3},
}


class Adapter:
    def __init__(self) -> None:
        self.client: Client | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.entering: asyncio.Task[None] | None = None
        # The rooms that are read already.
        self.read: dict[str, asyncio.Task[None]] = {}

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # --- What is yielded.

    async def read_events(self, client: Client) -> None:
        try:
            async for event in client.events():
                if isinstance(event, events.Connected) and client.default_room is not None:
                    self.read_room(client.default_room)
                self.told(event)
        except RustySocksError as error:
            end = error.end
            say({"yield": "end", "code": end and end.code, "status": end and end.status})

    def told(self, event: Any) -> None:
        match event:
            case events.Connected(client_id=client_id, resumed=resumed):
                say({"yield": "open", "client_id": client_id, "resumed": resumed})
            case events.Disconnected(end=end, delay_s=delay_s):
                say({"yield": "waiting", "delay_ms": delay_s * 1000, "code": end.code, "status": end.status})
            case events.Lost(room=room, first=first, last=last):
                say({"yield": "lost", "room": room, "from": first, "to": last})
            case events.Joined(room=room, member=member):
                say({"yield": "joined", "room": room, "client_id": member.client_id})
            case events.Left(room=room, member=member):
                say({"yield": "left", "room": room, "client_id": member.client_id})
            case events.PresenceRead(room=room):
                assert self.client is not None
                members = list(self.client._session.rooms.wanted[room].members)
                say({"yield": "members", "room": room, "clients": members})
            case events.Matched(pattern=pattern, room=room):
                say({"yield": "matched", "pattern": pattern, "room": room})
            case events.Unmatched(pattern=pattern, room=room):
                say({"yield": "unmatched", "pattern": pattern, "room": room})
            case events.Dropped(room=room, code=code):
                say({"yield": "excluded", "room": room, "code": code})
            case events.Direct(seq=seq, id=id_, content=content):
                say({"yield": "direct", "seq": seq, "id": id_, "content": content})
            case events.Broadcast(id=id_, content=content):
                say({"yield": "broadcast", "id": id_, "content": content})

    def read_room(self, room: Any) -> None:
        if room.name not in self.read or self.read[room.name].done():
            self.read[room.name] = self.spawn(self.read_messages(room))

    async def read_messages(self, room: Any) -> None:
        try:
            async for each in room:
                places = [{"room": place.room, "seq": place.seq} for place in each.rooms]
                say({
                    "yield": "message",
                    "room": each.room,
                    "seq": each.seq,
                    **({"rooms": places} if len(places) > 1 else {}),
                    "id": each.id,
                    "content": each.content,
                    "client_id": each.client_id,
                })
        except RustySocksError:
            # The events say why.
            pass

    # --- Orders.

    def make(self, order: dict[str, Any]) -> None:
        given = order.get("options", {})
        options = {}
        for name, value in given.items():
            if name in OPTIONS:
                ours, unit = OPTIONS[name]
                options[ours] = value / unit if unit != 1 else value
        self.client = Client(order["url"], options=Options(**options))

    def connect(self, order: dict[str, Any]) -> None:
        # A second connect enters the same client again, which it refuses.
        if self.client is None:
            self.make(order)
        assert self.client is not None
        if self.entering is None:
            self.spawn(self.read_events(self.client))
        self.entering = self.spawn(self.enter(self.client))

    async def enter(self, client: Client) -> None:
        try:
            await client.__aenter__()
        except (RustySocksError, RuntimeError):
            # The events tell of an end.
            pass

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def end(self) -> None:
        """Closes the client, and says nothing more of it."""
        await self.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def carry_out(self, order: dict[str, Any]) -> Any:
        do = order["do"]
        if do == "about":
            return {"name": "python", "by_design": BY_DESIGN}
        if do == "new":
            self.make(order)
        elif do == "connect":
            self.connect(order)
        elif do == "close":
            await self.close()
        else:
            call = getattr(self, f"do_{do}", None)
            if call is None or self.client is None:
                raise Skip(f"no {do}")
            return await self.bounded(call(self.client, order), order)
        return None

    async def bounded(self, call: Awaitable[Any], order: dict[str, Any]) -> Any:
        """Waits for a call as long as the order says."""
        task = asyncio.ensure_future(call)
        signal = order.get("signal")
        if signal == "aborted":
            task.cancel()
        elif signal == "soon":
            asyncio.get_running_loop().call_later(0.05, task.cancel)
        try:
            if "timeout_ms" in order:
                return await asyncio.wait_for(task, order["timeout_ms"] / 1000)
            return await task
        except asyncio.CancelledError:
            if signal is None:
                raise
            raise TimeoutError("aborted") from None

    async def do_join(self, client: Client, order: dict[str, Any]) -> Any:
        room = order["room"]
        if isinstance(room, str) and room.endswith(".*"):
            pattern = await client.join_pattern(room)
            self.read_room(pattern)
            return {"room": room}
        how = {name: order[name] for name in ("presence", "sender") if name in order}
        if "since" in order:
            since = order["since"]
            how["since"] = Position(since["epoch"], since["seq"]) if isinstance(since, dict) else since
        self.read_room(await client.join(room, **how))
        return {"room": room}

    async def do_leave(self, client: Client, order: dict[str, Any]) -> None:
        await client.leave(order["room"])

    def content(self, order: dict[str, Any]) -> Any:
        return VALUES[order["value"]]() if "value" in order else order.get("content")

    async def do_publish(self, client: Client, order: dict[str, Any]) -> Any:
        how = {name: order[name] for name in ("id", "sender", "echo") if name in order}
        done = await client.publish(order.get("rooms", order.get("room")), self.content(order), **how)
        return {"room": done.room, "seq": done.seq, "id": done.id, "repeated": done.repeated}

    async def do_direct(self, client: Client, order: dict[str, Any]) -> None:
        how = {name: order[name] for name in ("id",) if name in order}
        await client.direct(order["to"], self.content(order), **how)

    async def do_broadcast(self, client: Client, order: dict[str, Any]) -> None:
        await client.broadcast(self.content(order))

    async def do_history(self, client: Client, order: dict[str, Any]) -> Any:
        how = {name: order[name] for name in ("before", "after", "limit") if name in order}
        page = await client.history(order["room"], **how)
        return {"seqs": [each.seq for each in page.messages]}

    async def do_presence(self, client: Client, order: dict[str, Any]) -> Any:
        how = {name: order[name] for name in ("watch", "after", "limit") if name in order}
        members = await client.presence(order["room"], **how)
        return {"clients": list(members.members), "count": members.count}

    async def answer(self, order: dict[str, Any]) -> None:
        told: dict[str, Any]
        try:
            told = {"ok": await self.carry_out(order)}
        except Skip as skip:
            told = {"skip": str(skip)}
        except RustySocksError as error:
            code = {"outbox_full": "full"}.get(error.code, error.code)
            told = {"error": code, "message": error.message}
        except (ValueError, TypeError) as error:
            told = {"error": "caller", "message": str(error)}
        except (TimeoutError, asyncio.TimeoutError) as error:
            told = {"error": "aborted" if str(error) else "timeout", "message": str(error)}
        except Exception as error:
            told = {"error": type(error).__name__, "message": str(error)}
        say({"result": order["n"], **told})


async def main() -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    adapter = Adapter()
    async for line in reader:
        order = json.loads(line)
        if order["do"] == "reset":
            await adapter.end()
            adapter = Adapter()
            say({"result": order["n"], "ok": None})
        else:
            adapter.spawn(adapter.answer(order))
    await adapter.end()


if __name__ == "__main__":
    asyncio.run(main())
