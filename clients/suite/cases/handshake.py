"""Upgrades that are refused, left alone, or answered with nonsense."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

from case import EARLY_S, Table, case, message, welcome
from server import Answer, Link, raw, refuse, text

# `docs/protocol.md`, "Writing a client", 12.
PASSING = (408, 425, 429, 500, 502, 503, 504)
FINAL = (400, 401, 403, 404, 405, 410, 426, 431)
# Neither is an upgrade, and a client that follows them takes its token elsewhere.
NO_UPGRADE = (200, 204, 301, 302, 307)

# How long a client may wait for a server that says nothing, if that is no option of it.
OWN_TIME_S = 30.0


def comes_back(status: int) -> None:
    @case(f"handshake/{status}", f"an upgrade refused with {status} is tried again")
    async def play(t: Table) -> None:
        t.server.plan(refuse(status))
        await t.ok(t.connect())
        link = await t.accept()
        link.send(welcome())
        await t.event("open")
        told = await t.event("waiting")
        t.expect(told.get("status") in (status, None), f"the client says {told}")


def gives_up(status: int) -> None:
    @case(f"handshake/{status}", f"after an upgrade refused with {status} the client stays away")
    async def play(t: Table) -> None:
        where = {"Location": t.server.url.replace("ws:", "http:")} if status in (301, 302, 307) else {}
        t.server.plan(refuse(status, where))
        await t.ok(t.connect())
        await t.stays_away(status=status)


for each in PASSING:
    comes_back(each)
for each in (*FINAL, *NO_UPGRADE):
    gives_up(each)


async def waits(t: Table, answer: Answer, seconds: float) -> None:
    """The attempt after this answer comes not before so long, and then it comes."""
    t.server.plan(answer)
    await t.ok(t.connect())
    link = await t.accept()
    waited = t.server.times[1] - t.server.times[0]
    t.expect(waited >= seconds - EARLY_S, f"the client is back after {waited:.3f} s, not {seconds} s")
    link.send(welcome())
    await t.event("open")


@case("handshake/retry-after", "Retry-After of a 503 is the least that the client waits")
async def _(t: Table) -> None:
    await waits(t, refuse(503, {"Retry-After": "1"}), 1.0)


@case("handshake/retry-after-429", "Retry-After of a 429 is the least that the client waits")
async def _(t: Table) -> None:
    await waits(t, refuse(429, {"Retry-After": "1"}), 1.0)


@case("handshake/retry-after-date", "Retry-After may be a date")
async def _(t: Table) -> None:
    def answer(link: Link) -> Any:
        # Whole seconds are lost in the date: at least one is left.
        return refuse(503, {"Retry-After": formatdate(time.time() + 2, usegmt=True)})(link)

    await waits(t, answer, 0.95)


@case("handshake/retry-after-nonsense", "a Retry-After that is none counts for nothing")
async def _(t: Table) -> None:
    values = ("soon", "-5", "", "1e3", "Thu, 99 Foo 2026 99:99:99 GMT")
    t.server.plan(*(refuse(503, {"Retry-After": value}) for value in values))
    await t.ok(t.connect())
    link = await t.accept()
    link.send(welcome())
    await t.event("open")


@case("handshake/retry-after-forever", "a Retry-After of ages neither harms the client nor keeps it from closing")
async def _(t: Table) -> None:
    t.server.plan(refuse(503, {"Retry-After": "9" * 30}))
    await t.ok(t.connect())
    told = await t.event("waiting")
    t.expect(told["delay_ms"] is None or 1000 <= told["delay_ms"] <= 3_700_000, f"the client waits for {told}")
    await t.never("the client is back", lambda: len(t.server.times) > 1)
    await t.ok(t.order("close"))


@case("handshake/refused-again-and-again", "attempts that fail get rarer")
async def _(t: Table) -> None:
    t.server.plan_all(refuse(503))
    # The default backoff.
    await t.ok(t.order("connect", url=t.server.url, options={}))
    await t.until("second attempt", lambda: len(t.server.times) > 1)
    await asyncio.sleep(1.5)
    # Full jitter over 250, 500, 1000 … ms makes some four of them.
    t.expect(len(t.server.times) <= 15, f"there were {len(t.server.times)} attempts in 1.5 s")


@case("handshake/no-answer", "a connection that ends before any answer is tried again")
async def _(t: Table) -> None:
    t.server.plan(raw(b""), raw(b"", then="cut"), raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgr"))
    await t.ok(t.connect())
    link = await t.accept()
    link.send(welcome())
    await t.event("open")
    t.expect(len(t.server.times) == 4, f"there were {len(t.server.times)} attempts")


@case("handshake/silence", "a server that accepts and says nothing is given up after the client's own time")
async def _(t: Table) -> None:
    t.server.plan(raw(b"", then="keep"))
    await t.ok(t.connect(open_timeout_ms=300))
    link = await t.accept(OWN_TIME_S)
    link.send(welcome())
    await t.event("open")


@case("handshake/no-welcome", "a connection without a welcome is given up after the client's own time")
async def _(t: Table) -> None:
    await t.ok(t.connect(open_timeout_ms=300))
    await t.accept()
    link = await t.accept(OWN_TIME_S)
    link.send(welcome())
    await t.event("open")


async def never_opens(t: Table, answer: Answer) -> None:
    """No session comes of this answer, whatever else the client does; and it still closes."""
    t.server.plan_all(answer)
    await t.ok(t.connect())
    await t.until("attempt", lambda: bool(t.server.times))
    await t.never("there is a session", lambda: t.adapter.find("open"))
    t.expect(not any(link.log for link in t.server.links), "commands were sent without an upgrade")
    t.expect(len(t.server.times) < 100, f"there were {len(t.server.times)} attempts")
    await t.ok(t.order("close"))


GREETING = text(welcome())


@case("handshake/wrong-accept", "a wrong Sec-WebSocket-Accept is no upgrade")
async def _(t: Table) -> None:
    await never_opens(t, lambda link: link.upgrade(GREETING, accept="bm90IHRoZSByaWdodCBvbmU="))


@case("handshake/no-accept", "a 101 without Sec-WebSocket-Accept is no upgrade")
async def _(t: Table) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    await never_opens(t, raw(head + GREETING, then="keep"))


@case("handshake/not-http", "what is not HTTP is no upgrade")
async def _(t: Table) -> None:
    await never_opens(t, raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n\r\n"))


@case("handshake/binary-head", "bytes that are no text are no upgrade")
async def _(t: Table) -> None:
    await never_opens(t, raw(bytes(range(256)) * 4 + b"\r\n\r\n"))


@case("handshake/endless-head", "a head without end is given up within the client's own time")
async def _(t: Table) -> None:
    async def flood(link: Link) -> None:
        link.bytes(b"HTTP/1.1 101 Switching Protocols\r\n")
        while not link.is_over and len(t.server.times) < 2:
            link.bytes((b"X-More: " + b"x" * 80 + b"\r\n") * 64)
            await link.drain()
            await asyncio.sleep(0.001)

    t.server.plan(flood)
    await t.ok(t.connect(open_timeout_ms=2000))
    await t.until("next attempt", lambda: len(t.server.times) > 1 or bool(t.all("end")), OWN_TIME_S)


@case("handshake/one-read", "a welcome in the same read as the head is not lost")
async def _(t: Table) -> None:
    async def answer(link: Link) -> None:
        await link.upgrade(text(welcome(seq=1), message("lobby", 1)))
        t.server.waiting.append(link)

    t.server.plan(answer)
    await t.ok(t.connect())
    link = await t.accept()
    await t.event("open")
    await t.yields("lobby", [1])
    await t.works(link, seq=2)


@case("handshake/byte-by-byte", "a head and a welcome may come in many pieces")
async def _(t: Table) -> None:
    async def answer(link: Link) -> None:
        kept: list[bytes] = []
        link.bytes, send = kept.append, link.bytes  # type: ignore[method-assign]
        await link.upgrade(GREETING)
        for byte in b"".join(kept):
            send(bytes([byte]))
            await asyncio.sleep(0)
        link.bytes = send  # type: ignore[method-assign]
        t.server.waiting.append(link)

    t.server.plan(answer)
    await t.ok(t.connect())
    link = await t.accept()
    await t.event("open")
    await t.works(link)


@case("handshake/fresh-keys", "each upgrade has a key of its own")
async def _(t: Table) -> None:
    t.server.plan(refuse(503), refuse(503), refuse(503))
    await t.ok(t.connect())
    await t.accept()
    keys = [link.headers["sec-websocket-key"] for link in t.server.links]
    t.expect(len(set(keys)) == len(keys), f"keys occur twice in {keys}")
