"""What no server of ours sends: unknown, malformed, too much."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from case import OTHER, Failed, Table, agree, case, message, messages, welcome
from server import BINARY, CLOSE, CONTINUATION, PING, TEXT, Link, frame, text

# The client goes on, on the same connection: `docs/protocol.md` promises that such frames may come.
UNKNOWN: dict[str, list[dict[str, Any]]] = {
    "type": [{"type": "a_type_of_tomorrow", "room": "lobby", "seq": 1}],
    "fields": [{**message("lobby", 1), "tomorrow": {"a": [1]}, "": None, "__proto__": 1, "constructor": 1}],
    "welcome-fields": [],
    "policy": [{"type": "matched", "pattern": "p.*", "room": "p.q", "epoch": "e", "seq": 0, "overflow": "of tomorrow"}],
    "rooms": [{"type": "joined", "room": "where", "client_id": OTHER}, message("where", 1)],
}


def unknown(name: str, frames: list[dict[str, Any]]) -> None:
    @case(f"nonsense/unknown-{name}", f"unknown {name.replace('-', ' ')} change nothing, and the connection stays")
    async def play(t: Table) -> None:
        link = await t.open(**({"tomorrow": 1, "limits": {"of_tomorrow": 5}} if name == "welcome-fields" else {}))
        link.send(*frames)
        await t.works(link, seq=2)


for each, frames in UNKNOWN.items():
    unknown(each, frames)


# The client may ignore such a frame, or give up the connection and come back: `Table.survives`.
WRONG: dict[str, list[bytes]] = {
    "not-json": [b"hello?", b"{", b"", b'{"type":"message"', b"{'type':'message'}", b'{"type":NaN}', b"\xef\xbb\xbf{}"],
    "no-object": [b"[]", b"null", b"7", b'"text"', b"true", b'[{"type":"message"}]'],
    "no-type": [b"{}", b'{"type":null}', b'{"type":5}', b'{"type":["message"]}', b'{"type":""}', b'{"type":"__proto__"}', b'{"type":"constructor"}'],
    "twice": [b'{"type":"joined","type":"left","room":"lobby","client_id":"x"}'],
    "deep": [b'{"type":"tomorrow","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
    "deep-message": [json.dumps(message("lobby", 1)).encode()[:-1] + b',"x":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}"],
    "numbers": [
        b'{"type":"tomorrow","n":1e999}',
        b'{"type":"tomorrow","n":-1e999}',
        b'{"type":"tomorrow","n":' + b"9" * 5000 + b"}",
        b'{"type":"tomorrow","n":1e-999,"m":-0}',
    ],
    "surrogates": [b'{"type":"tomorrow","text":"\\ud83d","\\udc00":1}'],
    "long": [b'{"type":"tomorrow","text":"' + b"x" * (1 << 20) + b'"}'],
}

# Values that no field of the protocol has.
ODD: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x" * 1000, [], {}, [None])

# The fields of each frame that the server sends by itself.
FRAMES: dict[str, dict[str, Any]] = {
    "message": message("lobby", 1),
    "message-rooms": message("lobby", 1, rooms=[{"room": "lobby", "seq": 1}]),
    "direct": {"type": "direct", "seq": 1, "id": "d", "content": 1, "timestamp": "2026-11-21T07:29:01Z", "client_id": OTHER},
    "broadcast": {"type": "broadcast", "id": "b", "content": 1, "timestamp": "2026-11-21T07:29:01Z", "client_id": OTHER},
    "joined": {"type": "joined", "room": "lobby", "client_id": OTHER, "sender": "Ben"},
    "left": {"type": "left", "room": "elsewhere", "client_id": OTHER, "sender": "Ben"},
    "presence": {"type": "presence", "room": "lobby", "joined": [{"client_id": OTHER}], "left": [{"client_id": "x"}]},
    "matched": {"type": "matched", "pattern": "p.*", "room": "p.q", "epoch": "e", "seq": 0, "overflow": "close"},
    "unmatched": {"type": "unmatched", "pattern": "p.*", "room": "p.q"},
    "gap": {"type": "gap", "room": "elsewhere", "from": 1, "to": 2},
    "epoch": {"type": "epoch", "room": "elsewhere", "epoch": "e", "seq": 1},
    "token-expires": {"type": "token_expires", "expires_s": 5, "close_s": 10},
    "closing": {"type": "closing", "reason": "drain", "reconnect_after_ms": 5},
    "error": {"type": "error", "code": "internal", "message": "no", "retry_after_ms": 5},
    "ok": {"type": "ok", "ref": "nobody's", "room": "lobby"},
    "pong": {"type": "pong", "ref": "nobody's"},
}


def broadcast(content: str) -> dict[str, Any]:
    return {**FRAMES["broadcast"], "content": content}


async def goes_on(t: Table, link: Link, data: bytes, round_: int) -> Link:
    """Sends this, and then something that the client must yield, on this connection or the next."""
    link.bytes(data)
    marker = f"after {round_}"
    link.send(broadcast(marker))

    def look() -> bool:
        return bool(t.server.waiting) or bool(t.all("end")) or bool(t.all("broadcast", content=marker))

    await t.until(f"sign of life after {data[:80]!r}", look)
    if t.all("end"):
        raise Failed(f"the client gives up after {data[:80]!r}")
    if not t.all("broadcast", content=marker):
        link = await t.resume_as_it_is()
        link.send(broadcast(marker))
        await t.until("message after the resume", lambda: bool(t.all("broadcast", content=marker)))
    return link


def wrong(name: str, texts: list[bytes]) -> None:
    @case(f"nonsense/{name}", "such text is ignored, or the connection given up and resumed")
    async def play(t: Table) -> None:
        link = await t.open()
        for round_, each in enumerate(texts):
            link = await goes_on(t, link, frame(TEXT, each), round_)


for each_name, texts in WRONG.items():
    wrong(each_name, texts)


def odd(name: str, sample: dict[str, Any]) -> None:
    fields = [field for field in sample if field != "type"]

    @case(f"nonsense/odd-{name}", f"fields of {sample['type']} that are absent or of a wrong type end nothing")
    async def play(t: Table) -> None:
        # Commands that come of it, such as `history`, are left alone.
        link = await t.open(options={"backoff_base_ms": 1, "backoff_cap_ms": 5})
        every = [{k: v for k, v in sample.items() if k != field} for field in fields]
        every += [{**sample, field: value} for field in fields for value in ODD]
        # All of them at once, where each alone is survived; a client that gives up at each needs them in turn.
        link.bytes(text(*every))
        await goes_on(t, link, b"", 0)
        await t.ok(t.order("close"))


for each_name, sample in FRAMES.items():
    odd(each_name, sample)


WELCOMES: dict[str, dict[str, Any]] = {
    "no-client-id": {"client_id": None},
    "client-id": {"client_id": 5},
    "session": {"session": [1]},
    "ping": {"ping_s": "often"},
    "limits": {"limits": 7},
    "epoch": {"epoch": 5},
    "seq": {"seq": -1},
}


def odd_welcome(name: str, fields: dict[str, Any]) -> None:
    @case(f"nonsense/welcome-{name}", "such a welcome is taken, ignored, or ends the connection, and the next one is tried")
    async def play(t: Table) -> None:
        await t.ok(t.connect())
        link = await t.accept()
        link.send({**welcome(), **fields})

        def answer(link: Link, command: dict[str, Any]) -> None:
            agree(link, command)
            # What came before the answer to a resume counts for nothing.
            link.send(broadcast("after it"))

        for _ in range(3):
            link.auto(answer)
            link.send(welcome(), broadcast("after it"))
            await t.until("message, or another connection", lambda: bool(t.all("broadcast")) or bool(t.server.waiting))
            if t.all("broadcast"):
                return
            link = await t.accept()
        raise Failed("the client does not come to a session")


for each_name, welcome_fields in WELCOMES.items():
    odd_welcome(each_name, welcome_fields)


ORDERS: dict[str, dict[str, Any]] = {
    "join": {"room": "tea"},
    "join-pattern": {"room": "tea.*"},
    "leave": {"room": "lobby"},
    "history": {"room": "lobby"},
    "presence": {"room": "lobby"},
    "direct": {"to": OTHER, "content": 1},
    "broadcast": {"content": 1},
}


def odd_answer(do: str, order: dict[str, Any]) -> None:
    @case(f"nonsense/answer-{do}", "an answer that makes no sense leaves no call without an end, and the client goes on")
    async def play(t: Table) -> None:
        link = await t.open()
        number = t.order(do.split("-")[0], **order)
        command = await t.take(link, type=do.split("-")[0])
        link.send({"type": "ok", "ref": command["ref"], "room": [], "rooms": 5, "messages": {}, "members": [7], "epoch": 1, "seq": "x", "id": 2})
        await t.until("end of the call", lambda: number in t.adapter.results or bool(t.server.waiting))
        if t.server.waiting:
            link = await t.resume_as_it_is()
        link.auto(agree)
        await t.result(number)
        await t.ok(t.order("publish", room="lobby", content=1))


for each_name, order in ORDERS.items():
    odd_answer(each_name, order)


@case("nonsense/binary", "a binary message is ignored, or the connection given up and resumed")
async def _(t: Table) -> None:
    link = await t.open()
    link = await goes_on(t, link, frame(BINARY, bytes(range(256))), 0)
    await goes_on(t, link, frame(BINARY, json.dumps(message("lobby", 1)).encode()), 1)


# RFC 6455: the client fails the connection. It is not to blame, so it comes back.
BROKEN: dict[str, bytes] = {
    "utf-8": frame(TEXT, b'{"type":"tomorrow","text":"\xff\xfe"}'),
    "utf-8-cut": frame(TEXT, b'{"type":"tomorrow","text":"\xe2\x82'),
    "reserved-bit": frame(TEXT, b"{}", rsv=4),
    "reserved-opcode": frame(3, b"{}"),
    "reserved-control": frame(11, b""),
    "masked": frame(TEXT, b"{}", mask=True),
    "long-ping": frame(PING, b"x" * 126),
    "ping-in-parts": frame(PING, b"x", final=False),
    "continuation-of-nothing": frame(CONTINUATION, b"{}"),
    "message-in-message": frame(TEXT, b"{", final=False) + frame(TEXT, b"{}"),
    "close-of-one-byte": frame(CLOSE, b"\x03"),
    "close-reason": frame(CLOSE, b"\x0f\xa5\xff\xfe"),
}


def broken(name: str, data: bytes) -> None:
    @case(f"nonsense/frame-{name}", "the connection is failed, and the session resumed on another")
    async def play(t: Table) -> None:
        link = await t.open()
        link.bytes(data)
        again = await t.resume()
        await t.works(again)
        t.expect(link.close_code in (None, 1002, 1007, 1009), f"the connection was failed with {link.close_code}")


for each_name, data in BROKEN.items():
    broken(each_name, data)


def too_long(name: str, data: bytes) -> None:
    @case(f"nonsense/frame-{name}", "a message beyond all bounds is not waited for")
    async def play(t: Table) -> None:
        link = await t.open()
        link.bytes(data)
        # The next connection may bring the same message again, so a client may as well stay away.
        await t.until("end of the connection", lambda: bool(t.server.waiting) or bool(t.all("end")))
        if t.server.waiting:
            await t.works(await t.resume())
        t.expect(link.close_code in (None, 1002, 1009), f"the connection was failed with {link.close_code}")


too_long("huge-length", b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")
too_long("negative-length", b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")


@case("nonsense/close-code", "a close code that no close frame may have ends the connection alone, or the client in order")
async def _(t: Table) -> None:
    link = await t.open()
    for code in (0, 999, 1004, 1006, 1015, 5000, 65535):
        link.bytes(frame(CLOSE, code.to_bytes(2, "big")))
        # It may be taken for the 1002 that answers it, after which a client stays away.
        await t.until("next connection, or the end", lambda: bool(t.server.waiting) or bool(t.all("end")))
        if t.all("end"):
            return
        link = await t.resume_as_it_is()
    await t.works(link)


@case("nonsense/in-parts", "a message in parts, with pings between them, is one message; pings are answered")
async def _(t: Table) -> None:
    link = await t.open()
    data = json.dumps(message("lobby", 1, "é€🍵"), ensure_ascii=False).encode()
    for at, byte in enumerate(data):
        first, last = at == 0, at == len(data) - 1
        link.bytes(frame(TEXT if first else CONTINUATION, bytes([byte]), final=last))
        if at in (1, len(data) // 2):
            link.bytes(frame(PING, b"ping %d" % at))
    await t.yields("lobby", [1])
    t.expect(t.all("message")[0]["content"] == "é€🍵", f"the content is {t.all('message')[0]['content']!r}")
    await t.until("pong", lambda: b"ping %d" % (len(data) // 2) in link.pongs)


@case("nonsense/empty-parts", "parts may be empty")
async def _(t: Table) -> None:
    link = await t.open()
    data = json.dumps(message("lobby", 1)).encode()
    parts = [b"", data[:5], b"", data[5:], b""]
    for at, part in enumerate(parts):
        link.bytes(frame(TEXT if at == 0 else CONTINUATION, part, final=at == len(parts) - 1))
    await t.works(link, seq=2)
    await t.yields("lobby", [1, 2])


@case("nonsense/byte-by-byte", "frames may come a byte at a time")
async def _(t: Table) -> None:
    link = await t.open()
    for byte in text(*messages("lobby", (1, 2))):
        link.bytes(bytes([byte]))
        await asyncio.sleep(0)
    await t.yields("lobby", [1, 2])


@case("nonsense/cut-in-frame", "a frame that is cut in the middle is no message, and the session is resumed")
async def _(t: Table) -> None:
    link = await t.open()
    data = text(message("lobby", 1, "half"))
    link.bytes(data[: len(data) // 2])
    link.end()
    again = await t.resume()
    await t.works(again, seq=1)
    t.expect(t.all("message")[0]["content"] == "still here", f"yielded were {t.all('message')}")


@case("nonsense/frames-after-close", "what comes after the server's close frame is not yielded")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(message("lobby", 1))
    link.close(4009)
    link.send(message("lobby", 2))
    await t.stays_away()
    t.expect(t.seen("lobby") == [1], f"yielded were {t.seen('lobby')}")


@case("flood/messages", "twenty thousand messages in a room are yielded, each once and in order")
async def _(t: Table) -> None:
    link = await t.open()
    for start in range(1, 20_001, 500):
        link.send(*messages("lobby", range(start, start + 500)))
        await link.drain()
    await t.yields("lobby", range(1, 20_001))


@case("flood/pings", "of a flood of pings at least the latest is answered, and messages come through")
async def _(t: Table) -> None:
    link = await t.open()
    for start in range(0, 20_000, 500):
        link.bytes(b"".join(frame(PING, b"%d" % at) for at in range(start, start + 500)))
        await link.drain()
    await t.works(link)
    await t.until("pong to the last ping", lambda: b"19999" in link.pongs)


@case("flood/unknown", "twenty thousand unknown frames and answers to nobody are ignored")
async def _(t: Table) -> None:
    link = await t.open()
    for start in range(0, 20_000, 500):
        link.send(*({"type": "tomorrow", "n": n} if n % 2 else {"type": "ok", "ref": f"x{n}"} for n in range(start, start + 500)))
        await link.drain()
    await t.works(link)


@case("flood/rooms", "notices and messages of five thousand rooms that nobody joined end nothing")
async def _(t: Table) -> None:
    link = await t.open()
    for start in range(0, 5_000, 500):
        link.send(*(message(f"room-{n}", 1) for n in range(start, start + 500)))
        link.send(*({"type": "joined", "room": f"room-{n}", "client_id": OTHER} for n in range(start, start + 500)))
        await link.drain()
    await t.works(link)


@case("flood/members", "thirty thousand members of a watched room end nothing")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", order={"presence": True})
    for start in range(0, 30_000, 250):
        members = [{"client_id": f"client-{n}"} for n in range(start, start + 250)]
        link.send({"type": "presence", "room": "tea", "joined": members, "left": []})
        await link.drain()
    await t.works(link, "tea", 1)


@case("flood/large", "a message as large as a server's answers may be is yielded")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(message("lobby", 1, "x" * (2 << 20)))
    await t.works(link, seq=2)
    await t.yields("lobby", [1, 2])


@case("flood/gaps", "a thousand gaps in a row are answered by no more than one question at a time")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    for at in range(1, 2001, 2):
        link.send({"type": "gap", "room": "tea", "from": at, "to": at}, message("tea", at + 1))
    await t.take(link, type="history")
    await t.works(link)
    t.expect(link.count(type="history") <= 2, f"the history was asked for {link.count(type='history')} times")


@case("flood/not-read", "a server that reads nothing holds up neither messages nor the close")
async def _(t: Table) -> None:
    link = await t.open()
    link.pause()
    for each in range(300):
        t.order("publish", room="lobby", content=f"{each}" + "x" * 20_000)
    await t.works(link)
    number = t.order("close")
    await t.result(number)


