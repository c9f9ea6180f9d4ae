"""Publishes that are answered late, twice, never, or by a server that is busy."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from case import EARLY_S, ME, Failed, Table, agree, case, found, message, messages, newcomer, published, resumed
from server import Link

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

MINE = "7b2f0000-1111-4222-8333-444455556666"


def same_id(t: Table, first: dict[str, Any], second: dict[str, Any]) -> None:
    t.expect(second["id"] == first["id"], f"the id was {first['id']}, and is {second['id']}")


@case("publish/id", "a publish has an id of its own, a UUID, and gives back its number")
async def _(t: Table) -> None:
    link = await t.open()
    numbers = [t.order("publish", room="lobby", content=content) for content in ("a", "b")]
    commands = [await t.take(link, content=content) for content in ("a", "b")]
    ids = [str(command.get("id")) for command in commands]
    t.expect(all(UUID.fullmatch(id_) for id_ in ids) and ids[0] != ids[1], f"the ids are {ids}")
    for seq, (number, command) in enumerate(zip(numbers, commands), 1):
        published(link, command, seq)
        done = await t.ok(number)
        t.expect(done["seq"] == seq and done["id"] == command["id"], f"the receipt is {done}")


@case("publish/own-id", "a publish keeps the id that the program gives")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content=1, id=MINE)
    command = await t.take(link, id=MINE)
    published(link, command)
    await t.ok(number)


@case("publish/unchanged", "content is sent as it was given")
async def _(t: Table) -> None:
    link = await t.open()
    link.auto(agree)
    values: list[Any] = [None, False, 0, -1.5, "", "\u0000\u2028\U0001f375\"\\", [], {}, [[[{"a": [None]}]]], {"": "", "type": "leave", "ref": 5}]
    for value in values:
        await t.ok(t.order("publish", room="lobby", content=value))
        sent = link.log[-1][1]
        t.expect(sent["content"] == value and type(sent["content"]) is type(value), f"{value!r} was sent as {sent}")


@case("publish/order", "publishes are sent in the order of their calls")
async def _(t: Table) -> None:
    link = await t.open()
    link.auto(agree)
    numbers = [t.order("publish", room="lobby", content=each) for each in range(50)]
    for number in numbers:
        await t.ok(number)
    sent = [command["content"] for _, command in link.log if "content" in command]
    t.expect(sent == list(range(50)), f"the order is {sent}")


@case("publish/cut", "a publish without an answer is sent again with its id after the resume")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="once")
    first = await t.take(link, content="once")
    link.cut()
    again, command = await t.back()
    t.expect(again.find(content="once") is None, "it was sent before the answer to the resume")
    resumed(again, command)
    second = await t.take(again, content="once")
    same_id(t, first, second)
    published(again, second, 1, repeated=True)
    done = await t.ok(number)
    t.expect(done["repeated"] is True and done["seq"] == 1, f"the receipt is {done}")


async def found_again(t: Table, **options: Any) -> None:
    """Cuts a publish that was carried out, and shows it among the missed messages. The client may
    take that for the answer, or send it again."""
    link = await t.open()
    number = t.order("publish", room="lobby", content="once", **options)
    command = await t.take(link, content="once")
    link.cut()
    again, resume = await t.back()
    mine = message("lobby", 1, "once", id=command["id"], client_id=ME)
    resumed(again, resume, rooms=[found("lobby", "lobby-1", 2, missed=[mine, message("lobby", 2)])])
    again.auto(lambda link, command: published(link, command, 1, repeated=True))
    t.expect((await t.ok(number))["seq"] == 1, "the number is another")
    again.send(message("lobby", 3))
    ids = {each["id"] for _, each in again.log if each.get("content") == "once"}
    t.expect(ids <= {command["id"]}, f"the id was {command['id']}, and is {ids}")


@case("publish/cut-found", "an own message among the missed ones is not yielded, and its call is answered")
async def _(t: Table) -> None:
    await found_again(t)
    await t.yields("lobby", [2, 3])


@case("publish/echo-cut", "an own message with echo among the missed ones is yielded once, and its call is answered")
async def _(t: Table) -> None:
    await found_again(t, echo=True)
    await t.yields("lobby", [1, 2, 3])


@case("publish/cut-twice", "a publish is repeated with the same id however often the connection is lost")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="once")
    ids = set()
    for _ in range(3):
        command = await t.take(link, content="once")
        ids.add(command["id"])
        link.cut()
        link = await t.resume()
    command = await t.take(link, content="once")
    published(link, command, 1)
    await t.ok(number)
    t.expect(ids == {command["id"]}, f"the ids are {ids}")


@case("publish/gone", "a publish without an answer is sent in the new session, if the old one is gone")
async def _(t: Table) -> None:
    link = await t.open(room=None, epoch=None, seq=None)
    await t.join(link, "tea")
    number = t.order("publish", room="tea", content="once")
    first = await t.take(link, content="once")
    link.cut()
    again = await t.accept()
    again.send(newcomer(room=None, epoch=None, seq=None))
    again.error(await t.take(again, type="resume"), "unrecoverable")
    join = await t.take(again, type="join", room="tea")
    t.expect(again.find(content="once") is None, "it was sent before its room was joined again")
    again.ok(join, room="tea", epoch="tea-1", seq=0, recovered=True, overflow="close", messages=[])
    second = await t.take(again, content="once")
    same_id(t, first, second)
    published(again, second, 1)
    await t.ok(number)


@case("publish/while-away", "what is published while there is no connection is sent after the resume")
async def _(t: Table) -> None:
    link = await t.open()
    link.send({"type": "closing", "reason": "drain", "reconnect_after_ms": 300})
    link.close(1001)
    await t.event("waiting")
    number = t.order("publish", room="lobby", content="later")
    again, command = await t.back()
    resumed(again, command)
    published(again, await t.take(again, content="later"), 1)
    await t.ok(number)


@case("publish/never-answered", "a publish that is never answered holds up nothing else")
async def _(t: Table) -> None:
    link = await t.open()
    t.order("publish", room="lobby", content="never")
    await t.take(link, content="never")
    await t.ok_works(link)
    await t.works(link)
    t.expect(link.count(content="never") == 1, "it was sent again on the same connection")


@case("publish/answered-twice", "a second answer to a publish changes nothing")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content=1)
    command = await t.take(link, content=1)
    published(link, command, 1)
    published(link, command, 9)
    link.error(command, "forbidden")
    t.expect((await t.ok(number))["seq"] == 1, "the second answer counts")
    await t.works(link, seq=2)


@case("publish/late", "the ok to a publish may come after later messages, which do not wait for it")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="mine")
    command = await t.take(link, content="mine")
    link.send(*messages("lobby", (1, 3, 4)))
    await t.yields("lobby", [1, 3, 4])
    published(link, command, 2)
    t.expect((await t.ok(number))["seq"] == 2, "the number is another")
    link.cut()
    again, command = await t.back()
    t.expect(t.positions(command) == {"lobby": ("lobby-1", 4)}, f"the positions are {t.positions(command)}")
    resumed(again, command)


@case("publish/before-others", "the ok may come before earlier messages of others, which are still yielded")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="mine")
    published(link, await t.take(link, content="mine"), 3)
    await t.ok(number)
    link.send(*messages("lobby", (1, 2, 4)))
    await t.yields("lobby", [1, 2, 4])


async def put_off(t: Table, code: str) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="later")
    first = await t.take(link, content="later")
    at = time.monotonic()
    link.error(first, code, retry_after_ms=300)
    second = await t.take(link, content="later")
    waited = link.log[-1][0] - at
    t.expect(waited >= 0.3 - EARLY_S, f"it was sent again after {waited:.3f} s, not 0.3 s")
    same_id(t, first, second)
    published(link, second, 1)
    await t.ok(number)


@case("publish/rate-limited", "after rate_limited a publish is sent again, not before retry_after_ms")
async def _(t: Table) -> None:
    await put_off(t, "rate_limited")


@case("publish/overloaded", "after overloaded a publish is sent again, not before retry_after_ms")
async def _(t: Table) -> None:
    await put_off(t, "overloaded")


@case("publish/rate-limited-silence", "after rate_limited nothing else is sent for retry_after_ms")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="first")
    command = await t.take(link, content="first")
    at = time.monotonic()
    link.error(command, "rate_limited", retry_after_ms=400)
    link.auto(agree)
    # The client has read the error when it yields what came after it.
    await t.works(link, seq=5)
    others = [t.order("publish", room="lobby", content=f"other {each}") for each in range(3)]
    for each in (number, *others):
        await t.ok(each)
    early = [command for when, command in link.log[1:] if when - at < 0.4 - EARLY_S and command.get("type") != "ping"]
    t.expect(not early, f"within 0.4 s were sent {early}")


@case("publish/rate-limited-for-ever", "a publish that is always put off neither floods the server nor hangs")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="never")
    link.auto(lambda link, command: link.error(command, "rate_limited", retry_after_ms=30))
    await t.until("attempts", lambda: link.count(content="never") >= 5 or number in t.adapter.results)
    times = [at for at, command in link.log if command.get("content") == "never"]
    rushed = [b - a for a, b in zip(times, times[1:]) if b - a < 0.02]
    t.expect(not rushed, f"two attempts were {rushed[:1]} s apart")
    link.auto(agree)
    told = await t.result(number)
    t.expect("ok" in told or told["error"] == "rate_limited", f"it ends as {told}")


@case("publish/retry-forever", "a retry_after_ms of ages is bounded: the client goes on to yield, and closes")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="later")
    link.error(await t.take(link, content="later"), "rate_limited", retry_after_ms=10**17)
    await t.works(link)
    await t.never("it was sent again", lambda: link.count(content="later") > 1)
    await t.ok(t.order("close"))
    await t.error(number, "closed", "stopped")


@case("publish/retry-nonsense", "a retry_after_ms that is no time neither ends the client nor makes it flood")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="later")
    for after in ("soon", -5, None):
        command = await t.until("attempt or result", lambda: link.find(content="later") or number in t.adapter.results)
        if command is True:
            break
        link.error(command, "overloaded", retry_after_ms=after)
    link.auto(agree)
    await t.result(number)
    await t.works(link, seq=9)
    t.expect(link.count(content="later") < 20, f"it was sent {link.count(content='later')} times")


def refused(code: str) -> None:
    @case(f"publish/{code}", f"a publish that is answered with {code} fails with that, and is not repeated")
    async def play(t: Table) -> None:
        link = await t.open()
        number = t.order("publish", room="lobby", content=1)
        link.error(await t.take(link, content=1), code)
        await t.error(number, code)
        await t.works(link)
        t.expect(link.count(content=1) == 1, "it was sent again")


for each in ("bad_request", "not_member", "forbidden", "limit_exceeded", "a_code_of_tomorrow"):
    refused(each)


@case("publish/too-large", "a message that is larger than the server takes is not sent")
async def _(t: Table) -> None:
    link = await t.open(max_message_bytes=1000)
    await t.error(t.order("publish", room="lobby", content="x" * 2000), "too_large", "caller", "full")
    t.expect(link.count() == 0, "it was sent, for which a server closes with 1009")
    await t.ok_works(link)


@case("publish/paced", "publishes are no faster than the limits of the welcome")
async def _(t: Table) -> None:
    link = await t.open(limits={"rate_messages": 20, "rate_bytes": 1 << 20, "max_rooms": 10})
    link.auto(agree)
    began = time.monotonic()
    numbers = [t.order("publish", room="lobby", content=each) for each in range(40)]
    await t.until("first message", lambda: bool(link.log))
    await asyncio.sleep(max(0.0, began + 0.5 - time.monotonic()))
    # A bucket of a second, and half a second more.
    t.expect(len(link.log) <= 20 + 10 + 4, f"{len(link.log)} messages came in half a second")
    for number in numbers:
        await t.ok(number)


@case("publish/echo", "an own message that is published with echo is yielded once")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="mine", echo=True)
    command = await t.take(link, content="mine")
    t.expect(command.get("echo") is True, f"the publish is {command}")
    mine = message("lobby", 1, "mine", id=command["id"], client_id=ME)
    link.send(mine)
    published(link, command, 1)
    link.send(mine, message("lobby", 2))
    await t.ok(number)
    await t.yields("lobby", [1, 2])


@case("publish/several-rooms", "a publish to several rooms names them, and counts in each")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    await t.join(link, "cake")
    number = t.order("publish", rooms=["tea", "cake"], content="both")
    command = await t.take(link, content="both")
    t.expect(command.get("rooms") == ["tea", "cake"] and "room" not in command, f"the publish is {command}")
    link.ok(command, rooms=[{"room": "tea", "seq": 1}, {"room": "cake", "seq": 1}], id=command["id"])
    await t.ok(number)
    link.cut()
    again, resume = await t.back()
    want = {"lobby": ("lobby-1", 0), "tea": ("tea-1", 1), "cake": ("cake-1", 1)}
    t.expect(t.positions(resume) == want, f"the positions are {t.positions(resume)}")
    resumed(again, resume)


@case("publish/answer-nonsense", "an ok to a publish that makes no sense fails the call, or is survived")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content=1)
    command = await t.take(link, content=1)
    link.send({"type": "ok", "ref": command["ref"], "room": 5, "seq": "one"})

    def settled() -> bool:
        return number in t.adapter.results or bool(t.server.waiting)

    await t.until("error, or another connection", settled)
    if t.server.waiting:
        link, resume = await t.back()
        resumed(link, resume)
        link.auto(agree)
    else:
        await t.error(number)
    await t.survives(link, seq=7)


@case("publish/broadcast-cut", "a broadcast without an answer is not sent again")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("broadcast", content="all")
    await t.take(link, type="broadcast")
    link.cut()
    again = await t.resume()
    await t.error(number, "answer_lost")
    await t.ok_works(again)
    t.expect(again.count(type="broadcast") == 0, "it was sent again")


@case("publish/direct-cut", "a direct message without an answer is sent again with its id")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("direct", to=ME, content="you")
    first = await t.take(link, type="direct")
    link.cut()
    again = await t.resume()
    second = await t.take(again, type="direct")
    same_id(t, first, second)
    again.ok(second, to=ME, id=second["id"], repeated=True)
    await t.ok(number)


@case("publish/join-cut", "a join without an answer is repeated after the resume, or settled by it")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="tea")
    await t.take(link, type="join")
    link.cut()
    again, command = await t.back()
    resumed(again, command)
    again.auto(agree)
    await t.ok(number)
    await t.works(again, "tea", 1)


@case("publish/join-cut-done", "a join that was carried out before the cut is settled by the resume")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="tea")
    await t.take(link, type="join")
    link.cut()
    again, command = await t.back()
    rooms = [found("lobby", "lobby-1", 0), {**found("tea", "tea-1", 0), "recovered": False}]
    resumed(again, command, rooms=rooms)

    def answer(link: Link, command: dict[str, Any]) -> None:
        if command["type"] == "join":
            link.error(command, "already_member")
        else:
            agree(link, command)

    again.auto(answer)
    await t.ok(number)
    await t.works(again, "tea", 1)


@case("publish/bounded", "of calls that are never answered only so many wait; further ones fail at once")
async def _(t: Table) -> None:
    link = await t.open(options={"outbox_max": 5})
    numbers = [t.order("publish", room="lobby", content=each) for each in range(1200)]
    await t.until("refusal", lambda: any(n in t.adapter.results for n in numbers))
    told = [t.adapter.results[n] for n in numbers if n in t.adapter.results]
    if any(each.get("error") != "full" for each in told):
        raise Failed(f"calls end as {told[:3]}")
    link.auto(agree)
    await t.ok(numbers[0])
    for number in numbers:
        await t.result(number)
    await t.ok(t.order("history", room="lobby"))
