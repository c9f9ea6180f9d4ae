"""Every close code, connections that are lost without one, and what a server asks for first."""

from __future__ import annotations

import asyncio

from case import EARLY_S, SLOW, Table, case, message, newcomer, resumed, welcome

# `docs/protocol.md`, "Close codes". The last ones of 40xx, 41xx and 42xx have no meaning yet: the
# rule for their hundred holds. `None` is a close frame without a code.
STAYS_AWAY = (1000, 1002, 1003, 1007, 1008, 1009, 4001, 4003, 4008, 4009, 4010, 4000, 4099)
COMES_BACK = (1001, 1011, 1012, 1013, 4101, 4102, 4103, 4199, None)
AT_ONCE = (4201, 4202, 4203, 4299)


def stays_away(code: int) -> None:
    @case(f"close/{code}", f"after close code {code} the client stays away")
    async def play(t: Table) -> None:
        link = await t.open()
        link.close(code, "the case says so")
        await t.stays_away()
        t.expect(link.close_code == code, f"the close was answered with {link.close_code}")


def comes_back(code: int | None) -> None:
    name, told_code = ("none", 1005) if code is None else (str(code), code)

    @case(f"close/{name}", f"after close code {name} the client comes back, and resumes")
    async def play(t: Table) -> None:
        link = await t.open()
        link.close(code, "the case says so")
        told = await t.event("waiting")
        t.expect(told.get("code") == told_code, f"the client says {told}")
        again = await t.resume()
        await t.works(again)
        t.expect(link.close_code == told_code, f"the close was answered with {link.close_code}")


def at_once(code: int) -> None:
    @case(f"close/{code}", f"after close code {code} the client is back at once, and resumes")
    async def play(t: Table) -> None:
        link = await t.open(options=SLOW)
        link.close(code, "the case says so")
        again = await t.resume()
        waited = t.server.times[1] - t.server.times[0]
        t.expect(waited < 3, f"the client is back after {waited:.3f} s")
        await t.works(again)


for each in STAYS_AWAY:
    stays_away(each)
for each in COMES_BACK:
    comes_back(each)
for each in AT_ONCE:
    at_once(each)


@case("close/lost", "a connection that ends without a close frame is resumed")
async def _(t: Table) -> None:
    link = await t.open()
    link.end()
    await t.works(await t.resume())


@case("close/reset", "a connection that is reset is resumed")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    await t.works(await t.resume())


@case("close/nobody-listens", "while nobody listens, the client tries again")
async def _(t: Table) -> None:
    link = await t.open()
    port = t.server.port
    t.server._server.close()
    link.cut()
    await t.event("waiting")
    await t.event("waiting")
    t.server._server = await asyncio.start_server(t.server._serve, "127.0.0.1", port)
    await t.works(await t.resume())


async def hammered(t: Table, code: int | None, most: int) -> None:
    """Closes each connection as soon as it is greeted, and counts how many there are."""

    async def play() -> None:
        while True:
            link = await t.accept()
            link.send(newcomer())
            command = await t.take(link, type="resume")
            resumed(link, command)
            link.cut() if code is None else link.close(code)

    await t.ok(t.order("connect", url=t.server.url, options={}))
    link = await t.accept()
    link.send(welcome())
    await t.event("open")
    link.cut() if code is None else link.close(code)
    playing = asyncio.create_task(play())
    await asyncio.sleep(1.5)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)
    t.expect(len(t.server.times) <= most, f"there were {len(t.server.times)} connections in 1.5 s")
    t.expect(len(t.server.times) > 1, "the client did not come back")


@case("close/4102-storm", "a server that closes with 4102 again and again is not hammered")
async def _(t: Table) -> None:
    await hammered(t, 4102, 15)


@case("close/4201-storm", "only the first return after 42xx is immediate")
async def _(t: Table) -> None:
    await hammered(t, 4201, 15)


@case("close/cut-storm", "a server that cuts again and again is not hammered")
async def _(t: Table) -> None:
    await hammered(t, None, 15)


async def told_to_wait(t: Table, code: int) -> None:
    link = await t.open()
    link.send({"type": "closing", "reason": "drain", "reconnect_after_ms": 400})
    await t.works(link)
    link.close(code)
    again, command = await t.back()
    waited = t.server.times[1] - t.server.times[0]
    t.expect(waited >= 0.4 - EARLY_S, f"the client is back after {waited:.3f} s, not 0.4 s")
    resumed(again, command)
    await t.works(again, seq=2)


@case("close/closing-1001", "reconnect_after_ms before 1001 is the next delay")
async def _(t: Table) -> None:
    await told_to_wait(t, 1001)


@case("close/closing-1012", "reconnect_after_ms before 1012 is the next delay")
async def _(t: Table) -> None:
    await told_to_wait(t, 1012)


@case("close/closing-twice", "reconnect_after_ms is the least delay the second time in a row too")
async def _(t: Table) -> None:
    link = await t.open()
    for round_ in range(1, 3):
        link.send({"type": "closing", "reason": "drain", "reconnect_after_ms": 300})
        link.close(1001)
        link, command = await t.back()
        waited = t.server.times[round_] - t.server.times[round_ - 1]
        t.expect(waited >= 0.3 - EARLY_S, f"the client is back after {waited:.3f} s, not 0.3 s")
        resumed(link, command)
    await t.works(link)


@case("close/closing-nonsense", "a reconnect_after_ms that is no time counts for nothing")
async def _(t: Table) -> None:
    link = await t.open()
    for after in ("soon", -1, None, [1], True):
        link.send({"type": "closing", "reason": 7, "reconnect_after_ms": after})
    link.close(1001)
    again, command = await t.back()
    resumed(again, command)
    await t.works(again)


@case("close/closing-forever", "a reconnect_after_ms of ages is bounded, and the client still closes")
async def _(t: Table) -> None:
    link = await t.open()
    link.send({"type": "closing", "reason": "drain", "reconnect_after_ms": 10**15})
    link.close(1001)
    told = await t.event("waiting")
    t.expect(told["delay_ms"] is None or told["delay_ms"] <= 600_000, f"the client waits for {told}")
    await t.ok(t.order("close"))


@case("close/by-the-client", "the client closes with 1000, and yields nothing after it")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("close")
    await t.until("close frame", lambda: link.close_code)
    t.expect(link.close_code == 1000, f"the client closes with {link.close_code}")
    await t.ok(number)
    await t.never("the client comes back", lambda: len(t.server.times) > 1)


@case("close/yields-first", "what came before the close is yielded")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(*(message("lobby", seq) for seq in range(1, 101)))
    link.close(4009)
    await t.yields("lobby", range(1, 101))
    await t.stays_away()
