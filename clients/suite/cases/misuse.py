"""Callers' mistakes: every call in every state, twice, in the wrong order, and with what JSON cannot
hold. None of them harms another call, and each has an end."""

from __future__ import annotations

from typing import Any

from case import OTHER, SLOW, Table, agree, case
from server import Link, raw

# Every call, as it would be right in a session.
CALLS: dict[str, dict[str, Any]] = {
    "join": {"room": "tea"},
    "leave": {"room": "tea"},
    "publish": {"room": "lobby", "content": "a call"},
    "direct": {"to": OTHER, "content": "a call"},
    "broadcast": {"content": "a call"},
    "history": {"room": "lobby"},
    "presence": {"room": "lobby"},
}


async def goes_on(t: Table) -> None:
    """The server answers, and a call and a message are as they should be."""
    await t.ok(t.order("publish", room="lobby", content="after it"))
    link = t.server.links[-1]
    link.send({"type": "broadcast", "id": "last", "content": "last", "timestamp": "2026-11-21T07:29:01Z", "client_id": OTHER})
    await t.event("broadcast", content="last")


def refuse(link: Link, command: dict[str, Any]) -> None:
    """Takes every command for a mistake, until it `goes_on`."""
    if command.get("content") == "after it":
        agree(link, command)
    else:
        link.error(command, "bad_request")


async def open_server(t: Table, **options: Any) -> None:
    link = await t.open(options=options)
    link.auto(agree)


def before_connect(do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/{do}-before-connect", f"{do} before connect fails at once, or is carried out after it")
    async def play(t: Table) -> None:
        await t.ok(t.order("new", url=t.server.url, options={}))
        number = t.order(do, **fields)
        await t.never("there is a connection", lambda: bool(t.server.times), 0.1)
        await open_server(t)
        told = await t.result(number)
        t.expect("ok" in told or told["error"] in ("closed", "caller"), f"{do} ends as {told}")
        await goes_on(t)


def after_close(do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/{do}-after-close", f"{do} after close fails at once, each time, and sends nothing")
    async def play(t: Table) -> None:
        await open_server(t)
        await t.ok(t.order("close"))
        for _ in range(2):
            await t.error(t.order(do, **fields), "closed", "stopped")
        t.expect(t.server.links[0].count() == 0, f"sent was {t.server.links[0].log}")
        await t.never("there is another connection", lambda: len(t.server.times) > 1, 0.2)


def while_connecting(do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/{do}-while-connecting", f"{do} before there is a session waits for it")
    async def play(t: Table) -> None:
        t.server.plan(raw(b"", then="cut"))
        await t.ok(t.connect())
        number = t.order(do, **fields)
        link = await t.accept()
        t.expect(link.count() == 0, f"before the welcome was sent {link.log}")
        await t.greet(link)
        link.auto(agree)
        told = await t.result(number)
        t.expect("ok" in told or told["error"] == "not_member", f"{do} ends as {told}")
        await goes_on(t)


def close_meanwhile(do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/{do}-and-close", f"{do} that has no answer ends with the close")
    async def play(t: Table) -> None:
        link = await t.open()
        number = t.order(do, **fields)
        await t.take(link, type=do) if do != "publish" else await t.take(link, content="a call")
        await t.ok(t.order("close"))
        await t.error(number, "closed", "stopped", "answer_lost")


for each, arguments in CALLS.items():
    before_connect(each, arguments)
    while_connecting(each, arguments)
    close_meanwhile(each, arguments)
    after_close(each, arguments)


@case("misuse/close-twice", "close twice, and at once, is close")
async def _(t: Table) -> None:
    await open_server(t)
    for number in [t.order("close") for _ in range(3)]:
        await t.ok(number)
    await t.ok(t.order("close"))


@case("misuse/close-before-connect", "close before connect ends the client, which does not connect then")
async def _(t: Table) -> None:
    await t.ok(t.order("new", url=t.server.url, options={}))
    await t.ok(t.order("close"))
    await t.result(t.connect())
    await t.never("there is a connection", lambda: bool(t.server.times))
    await t.error(t.order("publish", room="lobby", content=1), "closed", "stopped")


@case("misuse/close-while-connecting", "close while the server has not answered the upgrade is prompt")
async def _(t: Table) -> None:
    t.server.plan(raw(b"", then="keep"))
    await t.ok(t.connect(open_timeout_ms=8000))
    await t.until("attempt", lambda: bool(t.server.times))
    await t.close_promptly()
    await t.never("there is another connection", lambda: len(t.server.times) > 1)


@case("misuse/close-before-welcome", "close before the welcome is prompt")
async def _(t: Table) -> None:
    await t.ok(t.connect())
    await t.accept()
    await t.close_promptly()


@case("misuse/close-while-waiting", "close while the client waits to come back is prompt")
async def _(t: Table) -> None:
    link = await t.open(options=SLOW)
    link.send({"type": "closing", "reason": "drain", "reconnect_after_ms": 60_000})
    link.close(1001)
    await t.event("waiting")
    await t.close_promptly()


@case("misuse/close-while-resuming", "close while the resume has no answer is prompt")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    await t.back()
    await t.close_promptly()


@case("misuse/close-unanswered", "close is bounded if the server does not answer it")
async def _(t: Table) -> None:
    link = await t.open()
    link.pause()
    await t.result(t.order("close"))


@case("misuse/connect-twice", "a second connect makes no second connection")
async def _(t: Table) -> None:
    await t.ok(t.order("new", url=t.server.url, options={}))
    await open_server(t)
    await t.result(t.connect())
    await t.never("there is another connection", lambda: len(t.server.times) > 1)
    await goes_on(t)


def address(name: str, url: str) -> None:
    @case(f"misuse/url-{name}", "such an address is refused at once")
    async def play(t: Table) -> None:
        await t.error(t.order("connect", url=url, options={}), "caller")


# What a client may take for an address is its own affair; these are none.
for each, url in {"empty": "", "scheme": "ftp://localhost/ws", "space": "ws://a host/ws", "port": "ws://localhost:123456/ws"}.items():
    address(each, url)


@case("misuse/join-twice", "a room that is joined twice is joined, or the second join is refused")
async def _(t: Table) -> None:
    link = await t.open()
    rooms: set[str] = set()

    def answer(link: Link, command: dict[str, Any]) -> None:
        if command.get("type") == "join" and command["room"] in rooms:
            link.error(command, "already_member")
        else:
            rooms.add(command.get("room", ""))
            agree(link, command)

    link.auto(answer)
    numbers = [t.order("join", room="tea") for _ in range(3)]
    told = [await t.result(number) for number in numbers]
    t.expect(any("ok" in each for each in told), f"the joins end as {told}")
    t.expect(all("ok" in each or each["error"] == "already_member" for each in told), f"the joins end as {told}")
    await t.works(link, "tea", 1)
    await t.yields("tea", [1])


@case("misuse/join-and-leave", "join, leave and join at once, without waiting, ends joined")
async def _(t: Table) -> None:
    link = await t.open()
    link.auto(agree)
    numbers = [t.order(do, room="tea") for do in ("join", "leave", "join")]
    for number in numbers:
        await t.result(number)
    if [command["type"] for _, command in link.log] not in (["join", "leave", "join"], ["join"]):
        # Calls that the adapter makes in threads of their own have no order.
        await t.result(t.order("join", room="tea"))
    await t.works(link, "tea", 1)


@case("misuse/leave-twice", "a room that is left twice, or was never joined, is refused by the server alone")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    left: set[str] = {"milk"}

    def answer(link: Link, command: dict[str, Any]) -> None:
        if command.get("type") == "leave" and command["room"] in left:
            link.error(command, "not_member")
        else:
            left.add(command.get("room", ""))
            agree(link, command)

    link.auto(answer)
    await t.ok(t.order("leave", room="tea"))
    for room in ("tea", "milk"):
        told = await t.result(t.order("leave", room=room))
        t.expect("ok" in told or told["error"] in ("not_member", "caller"), f"the leave ends as {told}")
    await t.ok(t.order("publish", room="lobby", content=1))


# What JSON cannot hold, or only by a change: each call fails as the caller's mistake, or sends JSON.
VALUES = ("nan", "infinity", "circle", "function", "nothing", "big", "bytes", "set", "half", "deep", "throws", "key")


def value(name: str) -> None:
    @case(f"misuse/value-{name}", "such content is refused at once, or sent as JSON; the next call is not harmed")
    async def play(t: Table) -> None:
        await open_server(t)
        for do, fields in (("publish", {"room": "lobby"}), ("direct", {"to": OTHER})):
            told = await t.result(t.order(do, value=name, **fields))
            t.expect("ok" in told or told["error"] in ("caller", "too_large"), f"{do} ends as {told}")
        await goes_on(t)


for each in VALUES:
    value(each)


# The server refuses such rooms, or the client does before.
ROOMS: dict[str, Any] = {
    "empty": "",
    "long": "r" * 129,
    "star": "a*b",
    "control": "a\u0007b",
    "null": None,
    "number": 5,
    "list": ["tea"],
    "object": {},
}


def room(name: str, given: Any) -> None:
    @case(f"misuse/room-{name}", "such a room is refused, and nothing else is harmed")
    async def play(t: Table) -> None:
        link = await t.open()
        link.auto(refuse)
        for do in ("join", "leave", "history", "presence"):
            told = await t.result(t.order(do, room=given))
            t.expect(told.get("error") in ("caller", "bad_request"), f"{do} of {given!r} ends as {told}")
        await goes_on(t)


for each_name, given in ROOMS.items():
    room(each_name, given)


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("publish", {"room": "lobby", "content": 1, "id": "no UUID"}),
    "nil-id": ("publish", {"room": "lobby", "content": 1, "id": "00000000-0000-0000-0000-000000000000"}),
    "no-rooms": ("publish", {"rooms": [], "content": 1}),
    "limit": ("history", {"room": "lobby", "limit": -1}),
    "before": ("history", {"room": "lobby", "before": 1.5}),
    "before-and-after": ("history", {"room": "lobby", "before": 5, "after": 1}),
    "since": ("join", {"room": "tea", "since": 5}),
    "watch": ("presence", {"room": "lobby", "watch": "yes"}),
    "sender": ("join", {"room": "tea", "sender": "s" * 300}),
}


def option(name: str, do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/option-{name}", f"such an option of {do} is refused by the client or by the server")
    async def play(t: Table) -> None:
        link = await t.open()
        link.auto(refuse)
        await t.error(t.order(do, **fields), "caller", "bad_request")
        await goes_on(t)


for each_name, (do, fields) in OPTIONS.items():
    option(each_name, do, fields)


def aborted(do: str, fields: dict[str, Any]) -> None:
    @case(f"misuse/{do}-aborted", f"{do} with a signal that is aborted already fails, and nothing else is harmed")
    async def play(t: Table) -> None:
        link = await t.open()
        link.auto(agree)
        await t.error(t.order(do, **fields, signal="aborted"), "aborted")
        await goes_on(t)
        # A leave is sent whatever becomes of the wait.
        which = {"content": fields["content"]} if "content" in fields else {"type": do}
        t.expect(do == "leave" or link.count(**which) == 0, f"sent was {link.log}")


for each, arguments in CALLS.items():
    aborted(each, arguments)


@case("misuse/aborted-later", "a call whose wait ends has an end, and its late answer harms nothing")
async def _(t: Table) -> None:
    link = await t.open()
    for do, fields in CALLS.items():
        if do == "leave":
            continue
        number = t.order(do, **fields, signal="soon")
        command = await t.until(f"command {do}", lambda: link.frames.pop() if link.frames else t.adapter.results.get(number))
        await t.error(number, "aborted")
        agree(link, command)
    link.auto(agree)
    await goes_on(t)
    t.expect("tea" not in {each["room"] for each in t.all("message")}, "the room is joined")


@case("misuse/no-time", "a call that may wait for no time has an end, and is not harmful")
async def _(t: Table) -> None:
    link = await t.open()
    link.auto(agree)
    for do, fields in CALLS.items():
        await t.result(t.order(do, **fields, timeout_ms=0))
    await goes_on(t)
