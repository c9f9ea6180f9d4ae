"""Sessions that go on after a lost connection, in part, or not at all."""

from __future__ import annotations

from case import ME, NEW, Table, case, found, joined, message, messages, newcomer, resumed
from server import frame, TEXT


@case("resume/positions", "a resume has the session, each room's position, and the last direct message")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", epoch="tea-7", seq=40)
    link.send(*messages("tea", (41, 42)), message("lobby", 1))
    link.send({"type": "direct", "seq": 3, "id": "d", "content": 1, "timestamp": "2026-11-21T07:29:01Z", "client_id": ME})
    await t.event("direct")
    await t.yields("tea", [41, 42])
    link.cut()
    again, command = await t.back()
    want = {"lobby": ("lobby-1", 1), "tea": ("tea-7", 42)}
    t.expect(t.positions(command) == want, f"the positions are {t.positions(command)}, not {want}")
    t.expect(command.get("direct") == 3, f"the last direct message is {command.get('direct')}, not 3")
    resumed(again, command)
    await t.works(again, "tea", 43)


@case("resume/recovered", "missed messages are yielded once, in order, before new ones")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(*messages("lobby", (1, 2)))
    await t.yields("lobby", [1, 2])
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-1", 5, missed=messages("lobby", (3, 4, 5)))])
    again.send(message("lobby", 6))
    await t.yields("lobby", [1, 2, 3, 4, 5, 6])
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("resume/before-the-answer", "frames before the answer to a resume count for nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again = await t.accept()
    # A session of its own, with a replay and with what a room of the newcomer says.
    again.send(newcomer(epoch="lobby-1", seq=9), *messages("lobby", (8, 9)), message("lobby", 10))
    again.send({"type": "joined", "room": "lobby", "client_id": NEW})
    command = await t.take(again, type="resume")
    t.expect(t.seen("lobby") == [], f"yielded were {t.seen('lobby')}")
    missed = messages("lobby", range(1, 11))
    resumed(again, command, rooms=[found("lobby", "lobby-1", 10, missed=missed)])
    await t.event("open", resumed=True, client_id=ME)
    await t.yields("lobby", range(1, 11))
    t.expect(not t.all("joined"), "a notice to the newcomer was yielded")


@case("resume/own-messages", "own messages among the missed ones are not yielded")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    mine = message("lobby", 2, client_id=ME)
    missed = [message("lobby", 1), mine, message("lobby", 3)]
    resumed(again, command, rooms=[found("lobby", "lobby-1", 3, missed=missed)])
    await t.yields("lobby", [1, 3])
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("resume/own-number", "the number in the ok to an own publish is a part of the position")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("publish", room="lobby", content="mine")
    command = await t.take(link, content="mine")
    link.ok(command, room="lobby", seq=1, id=command["id"])
    await t.ok(number)
    link.cut()
    again, command = await t.back()
    t.expect(t.positions(command) == {"lobby": ("lobby-1", 1)}, f"the positions are {t.positions(command)}")
    resumed(again, command)
    await t.works(again, seq=2)


@case("resume/history", "what a resume does not recover is fetched from the history, page by page")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-1", 6, missed=None)])
    # It comes while the pages are fetched, and is yielded after them.
    again.send(message("lobby", 7))
    ask = await t.take(again, type="history", room="lobby")
    t.expect(ask.get("after") == 0, f"the history is asked for with {ask}")
    again.ok(ask, room="lobby", epoch="lobby-1", seq=6, messages=messages("lobby", (1, 2, 3)))
    ask = await t.take(again, type="history", room="lobby")
    t.expect(ask.get("after") == 3, f"the next page is asked for with {ask}")
    again.ok(ask, room="lobby", epoch="lobby-1", seq=7, messages=messages("lobby", (4, 5, 6, 7)))
    await t.yields("lobby", range(1, 8))
    await t.works(again, seq=8)
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("resume/history-lost", "missed messages that the history no longer has are told as lost")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-1", 6, missed=None)])
    ask = await t.take(again, type="history", room="lobby")
    again.ok(ask, room="lobby", epoch="lobby-1", seq=6, messages=messages("lobby", (5, 6)))
    await t.event("lost", room="lobby", **{"from": 1, "to": 4})
    await t.yields("lobby", [5, 6])
    await t.works(again, seq=7)


@case("resume/history-empty", "an empty history means that all missed messages are lost")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-1", 3, missed=None)])
    ask = await t.take(again, type="history", room="lobby")
    again.ok(ask, room="lobby", epoch="lobby-1", seq=3, messages=[])
    await t.event("lost", room="lobby", **{"from": 1, "to": 3})
    await t.works(again, seq=4)


@case("resume/history-cut", "a cut while the history is read loses nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-1", 3, missed=None)])
    await t.take(again, type="history", room="lobby")
    again.cut()
    third, command = await t.back()
    at = t.positions(command).get("lobby")
    t.expect(at == ("lobby-1", 0), f"the position is {at}, though nothing was yielded")
    resumed(third, command, rooms=[found("lobby", "lobby-1", 3, missed=messages("lobby", (1, 2, 3)))])
    await t.yields("lobby", [1, 2, 3])
    await t.works(third, seq=4)


@case("resume/new-epoch", "a room that was made anew is told as lost, and goes on from there")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(*messages("lobby", (1, 2, 3)))
    await t.yields("lobby", [1, 2, 3])
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-2", 1, missed=None)])
    await t.event("lost", room="lobby")
    again.send(message("lobby", 2, "new"))
    await t.until("message of the new epoch", lambda: t.seen("lobby") == [1, 2, 3, 2])


@case("resume/recovered-epoch", "a room that was recovered into a new epoch has lost nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[found("lobby", "lobby-2", 2, missed=messages("lobby", (1, 2)))])
    await t.yields("lobby", [1, 2])
    again.cut()
    third, command = await t.back()
    t.expect(t.positions(command) == {"lobby": ("lobby-2", 2)}, f"the positions are {t.positions(command)}")
    resumed(third, command)
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("resume/gone", "after unrecoverable the rooms are joined again from their positions, in the new session")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", seq=4)
    link.send(message("tea", 5), message("lobby", 1))
    await t.yields("tea", [5])
    await t.yields("lobby", [1])
    link.cut()
    again, command = await t.back()
    again.error(command, "unrecoverable")
    # The server has put the newcomer in the default room, without what was missed there.
    leave = await t.take(again, type="leave", room="lobby")
    again.ok(leave, room="lobby")
    for room, seq in (("lobby", 1), ("tea", 5)):
        join = await t.take(again, type="join", room=room)
        since = join.get("since")
        t.expect(since == {"epoch": f"{room}-1", "seq": seq}, f"{room} is joined since {since}")
        joined(again, join, seq=seq + 1, recovered=True, messages=messages(room, [seq + 1]))
    await t.event("open", client_id=NEW, resumed=False)
    await t.yields("tea", [5, 6])
    await t.yields("lobby", [1, 2])
    await t.works(again, "tea", 7)
    again.cut()
    third = await t.accept()
    third.send(newcomer())
    command = await t.take(third, type="resume")
    t.expect(command["session"] == "the-secret-of-the-second-session", f"the resume is {command}")


@case("resume/gone-and-refused", "a room that cannot be joined again is told to be gone")
async def _(t: Table) -> None:
    link = await t.open(room=None, epoch=None, seq=None)
    await t.join(link, "tea")
    link.cut()
    again = await t.accept()
    again.send(newcomer(room=None, epoch=None, seq=None))
    again.error(await t.take(again, type="resume"), "unrecoverable")
    again.error(await t.take(again, type="join", room="tea"), "forbidden")
    await t.event("excluded", room="tea", code="forbidden")
    await t.ok_works(again)


@case("resume/gone-patterns", "after unrecoverable patterns are joined again")
async def _(t: Table) -> None:
    link = await t.open(room=None, epoch=None, seq=None)
    number = t.order("join", room="prices.*")
    link.ok(await t.take(link, type="join", room="prices.*"), room="prices.*", rooms=[])
    await t.ok(number)
    link.cut()
    again = await t.accept()
    again.send(newcomer(room=None, epoch=None, seq=None))
    again.error(await t.take(again, type="resume"), "unrecoverable")
    rooms = [{"room": "prices.eur", "epoch": "e", "seq": 3, "overflow": "close"}]
    again.ok(await t.take(again, type="join", room="prices.*"), room="prices.*", rooms=rooms)
    # The room is new to the client, which may read what it missed.
    page = {"room": "prices.eur", "epoch": "e", "seq": 3, "messages": []}
    again.auto(lambda link, command: link.ok(command, **page))
    await t.works(again, "prices.eur", 4)


@case("resume/room-refused", "a room that a resume does not let back is told to be gone, and others go on")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    link.cut()
    again, command = await t.back()
    resumed(again, command, rooms=[{"room": "tea", "error": "forbidden"}, found("lobby", "lobby-1", 0)])
    await t.event("excluded", room="tea", code="forbidden")
    await t.works(again)


@case("resume/other-id", "a resume may give another client id, by which own messages are known then")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    missed = [message("lobby", 1, client_id=NEW), message("lobby", 2)]
    resumed(again, command, client_id=NEW, rooms=[found("lobby", "lobby-1", 2, missed=missed)])
    await t.event("open", client_id=NEW)
    await t.yields("lobby", [2])


@case("resume/cut-again", "a connection that is lost before the answer to its resume changes nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(message("lobby", 1))
    await t.yields("lobby", [1])
    link.cut()
    for _ in range(3):
        link, command = await t.back()
        t.expect(t.positions(command) == {"lobby": ("lobby-1", 1)}, f"the positions are {t.positions(command)}")
        link.cut()
    await t.works(await t.resume(), seq=2)


# A client whose backoff is no option makes but a few rounds in this time.
MANY_S = 3.0


@case("resume/many-times", "cut after cut loses and repeats nothing, twenty times or for three seconds")
async def _(t: Table) -> None:
    link = await t.open(options={"backoff_base_ms": 1, "backoff_cap_ms": 10})
    seq = 0
    for _ in range(20):
        link.send(message("lobby", seq + 1))
        await t.until("message", lambda: seq + 1 in t.seen("lobby"))
        link.cut()
        link, command = await t.back()
        resumed(link, command, rooms=[found("lobby", "lobby-1", seq + 2, missed=[message("lobby", seq + 2)])])
        seq += 2
        if t.server.times[-1] - t.server.times[0] > MANY_S:
            break
    await t.yields("lobby", range(1, seq + 1))


@case("resume/direct", "direct messages that were missed are yielded once, and lost ones are told")
async def _(t: Table) -> None:
    def direct(seq: int) -> dict[str, object]:
        return {"type": "direct", "seq": seq, "id": f"d{seq}", "content": seq, "timestamp": "2026-11-21T07:29:01Z", "client_id": NEW}

    link = await t.open()
    link.send(direct(1), direct(2))
    await t.event("direct", content=2)
    link.cut()
    again, command = await t.back()
    t.expect(command.get("direct") == 2, f"the last direct message is {command.get('direct')}")
    resumed(again, command, direct={"seq": 5, "recovered": False})
    again.send(direct(4), direct(5), direct(5), direct(2), direct(6))
    await t.event("direct", content=6)
    contents = [each["content"] for each in t.all("direct")]
    t.expect(contents == [1, 2, 4, 5, 6], f"direct messages are {contents}")
    await t.event("lost", room=None)


@case("resume/patterns", "rooms of a pattern are resumed like others, and new ones of it are read from their beginning")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="prices.*")
    rooms = [{"room": "prices.eur", "epoch": "e", "seq": 3, "overflow": "close"}]
    link.ok(await t.take(link, type="join", room="prices.*"), room="prices.*", rooms=rooms)
    await t.ok(number)
    link.cut()
    again, command = await t.back()
    t.expect(t.positions(command).get("prices.eur") == ("e", 3), f"the positions are {t.positions(command)}")
    usd = found("prices.usd", "u", 2, missed=messages("prices.usd", (1, 2)))
    old = [found("lobby", "lobby-1", 0), found("prices.eur", "e", 3)]
    resumed(again, command, patterns=["prices.*"], rooms=[*old, usd])
    await t.yields("prices.usd", [1, 2])
    await t.works(again, "prices.eur", 4)


@case("resume/answer-nonsense", "an answer to a resume that makes no sense neither ends the program nor yields anything")
async def _(t: Table) -> None:
    for answer in ({"rooms": 5}, {"rooms": [{"room": 7}]}, {"rooms": [None]}, {"client_id": None, "rooms": {}}):
        if not t.server.times:
            link = await t.open(options={"backoff_base_ms": 1})
            link.cut()
        again = await t.accept()
        again.send(newcomer())
        command = await t.take(again, type="resume")
        again.ok(command, **{"client_id": ME, "session": "s", "patterns": [], "direct": {"seq": 0, "recovered": True}, **answer})
        if not again.is_over:
            await t.never("a message is yielded", lambda: bool(t.seen("lobby")), 0.05)
        again.cut()
        if t.all("end"):
            return
    t.order("close")


@case("resume/binary-answer", "a binary frame is no answer to a resume")
async def _(t: Table) -> None:
    link = await t.open()
    link.cut()
    again, command = await t.back()
    again.bytes(frame(2, b"\x00\x01") + frame(TEXT, b"[]"))
    resumed(again, command)
    await t.survives(again)
