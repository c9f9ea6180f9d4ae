"""Messages that come twice, late, with holes, or in several rooms; and answers in any order."""

from __future__ import annotations

from case import ME, OTHER, Table, case, found, joined, message, messages, resumed


@case("order/replay", "the replay after the welcome is yielded, and what is new after it")
async def _(t: Table) -> None:
    link = await t.open(*messages("lobby", (8, 9, 10)), seq=10)
    link.send(message("lobby", 11))
    await t.yields("lobby", [8, 9, 10, 11])
    link.cut()
    again, command = await t.back()
    t.expect(t.positions(command) == {"lobby": ("lobby-1", 11)}, f"the positions are {t.positions(command)}")
    resumed(again, command)


@case("order/repeated", "a message at or below the position is dropped")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", seq=10)
    link.send(*messages("tea", (11, 12, 12, 11, 10, 3, 13, 13)))
    await t.yields("tea", [11, 12, 13])
    await t.works(link, "tea", 14)
    await t.yields("tea", [11, 12, 13, 14])


@case("order/hole", "a hole that nobody told of is not waited for")
async def _(t: Table) -> None:
    # It may be an own message of a connection before.
    link = await t.open()
    link.send(*messages("lobby", (1, 2, 7, 8)))
    await t.yields("lobby", [1, 2, 7, 8])


@case("order/gap", "what a gap names is fetched from the history, and yielded before what follows")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    link.send(message("tea", 1), {"type": "gap", "room": "tea", "from": 2, "to": 5}, message("tea", 6))
    ask = await t.take(link, type="history", room="tea")
    t.expect(ask.get("after") == 1, f"the history is asked for with {ask}")
    link.ok(ask, room="tea", epoch="tea-1", seq=6, messages=messages("tea", range(2, 7)))
    await t.yields("tea", range(1, 7))
    await t.works(link, "tea", 7)
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("order/gap-lost", "what a gap names and the history does not have is told as lost, in its place")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    link.send(message("tea", 1), {"type": "gap", "room": "tea", "from": 2, "to": 5}, message("tea", 6))
    ask = await t.take(link, type="history", room="tea")
    link.ok(ask, room="tea", epoch="tea-1", seq=6, messages=messages("tea", (5, 6)))
    await t.event("lost", room="tea", **{"from": 2, "to": 4})
    await t.yields("tea", [1, 5, 6])


@case("order/gap-own", "an own message in a gap is neither yielded nor lost")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    link.send({"type": "gap", "room": "tea", "from": 1, "to": 3}, message("tea", 4))
    ask = await t.take(link, type="history", room="tea")
    page = [message("tea", 1), message("tea", 2, client_id=ME), message("tea", 3), message("tea", 4)]
    link.ok(ask, room="tea", epoch="tea-1", seq=4, messages=page)
    await t.yields("tea", [1, 3, 4])
    await t.works(link, "tea", 5)
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("order/gap-refused", "a history that is refused loses the gap, and nothing else")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    link.send({"type": "gap", "room": "tea", "from": 1, "to": 3}, message("tea", 4))
    link.error(await t.take(link, type="history", room="tea"), "forbidden")
    await t.event("lost", room="tea")
    await t.until("message after the gap", lambda: t.seen("tea") == [4])
    await t.works(link, "tea", 5)


@case("order/gap-latest", "in a room with latest a gap is not fetched")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="latest")
    link.send(message("tea", 1), {"type": "gap", "room": "tea", "from": 2, "to": 8}, message("tea", 9))
    await t.yields("tea", [1, 9])
    t.expect(link.count(type="history") == 0, "the history was asked for")


@case("order/gap-presence", "after a gap in the notices the members are read again")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", order={"presence": True})
    link.send({"type": "gap", "room": "tea", "presence": True})
    ask = await t.take(link, type="presence", room="tea")
    link.ok(ask, room="tea", members=[{"client_id": ME}, {"client_id": OTHER}], count=2)
    await t.works(link, "tea", 1)


@case("order/gap-nonsense", "a gap that makes no sense is no reason to wait for ever")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    link.auto(lambda link, command: link.ok(command, room="tea", epoch="tea-1", seq=1, messages=[]))
    link.send({"type": "gap", "room": "tea", "from": 9, "to": 3})
    link.send({"type": "gap", "room": "elsewhere", "from": 1, "to": 3})
    await t.works(link, "tea", 20)


@case("order/history-other-epoch", "a history of another epoch has nothing of the gap")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", overflow="gap")
    link.send({"type": "gap", "room": "tea", "from": 1, "to": 3}, message("tea", 4))
    ask = await t.take(link, type="history", room="tea")
    link.ok(ask, room="tea", epoch="tea-2", seq=2, messages=messages("tea", (1, 2)))
    await t.event("lost", room="tea")
    t.expect(1 not in t.seen("tea"), f"yielded were {t.seen('tea')}")


@case("order/epoch-equal", "a new epoch at the client's own number loses nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(*messages("lobby", (1, 2)), {"type": "epoch", "room": "lobby", "epoch": "lobby-2", "seq": 2}, message("lobby", 3))
    await t.yields("lobby", [1, 2, 3])
    link.cut()
    _, command = await t.back()
    t.expect(t.positions(command) == {"lobby": ("lobby-2", 3)}, f"the positions are {t.positions(command)}")
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("order/epoch-larger", "a new epoch above the client's number is a gap up to there")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(message("lobby", 1), {"type": "epoch", "room": "lobby", "epoch": "lobby-2", "seq": 3}, message("lobby", 4))
    ask = await t.take(link, type="history", room="lobby")
    t.expect(ask.get("after") == 1, f"the history is asked for with {ask}")
    link.ok(ask, room="lobby", epoch="lobby-2", seq=4, messages=messages("lobby", (2, 3, 4)))
    await t.yields("lobby", [1, 2, 3, 4])
    t.expect(not t.all("lost"), f"lost are {t.all('lost')}")


@case("order/epoch-smaller", "a new epoch below the client's number gives numbers again, and says so")
async def _(t: Table) -> None:
    link = await t.open()
    link.send(*messages("lobby", (1, 2, 3)), {"type": "epoch", "room": "lobby", "epoch": "lobby-2", "seq": 1})
    link.send(message("lobby", 2, "again"))
    await t.event("lost", room="lobby")
    await t.yields("lobby", [1, 2, 3, 2])


@case("order/several-rooms", "a message to several rooms counts in each, and comes once")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    await t.join(link, "cake", seq=4)
    both = message("tea", 1, rooms=[{"room": "tea", "seq": 1}, {"room": "cake", "seq": 5}])
    link.send(both, both, message("cake", 5), message("tea", 2), message("cake", 6))
    await t.until("last message", lambda: 6 in t.seen("cake") and 2 in t.seen("tea"))
    for room, seqs in (("tea", [1, 2]), ("cake", [5, 6])):
        # It may come in one of its rooms, or in each.
        t.expect(t.seen(room) in (seqs, seqs[1:]), f"the messages of {room} are {t.seen(room)}")
    t.expect(1 in t.seen("tea") or 5 in t.seen("cake"), "the message to both did not come")
    link.cut()
    again, command = await t.back()
    want = {"tea": ("tea-1", 2), "cake": ("cake-1", 6), "lobby": ("lobby-1", 0)}
    t.expect(t.positions(command) == want, f"the positions are {t.positions(command)}")
    resumed(again, command)


@case("order/after-leave", "nothing of a room is yielded after the call that leaves it")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    number = t.order("leave", room="tea")
    leave = await t.take(link, type="leave", room="tea")
    link.send(*messages("tea", (1, 2)))
    link.ok(leave, room="tea")
    link.send(message("tea", 3))
    await t.ok(number)
    await t.works(link)
    t.expect(t.seen("tea") == [], f"yielded were {t.seen('tea')}")


@case("order/left-and-joined", "a room that is joined again begins where the server says")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", seq=5)
    link.send(message("tea", 6))
    await t.yields("tea", [6])
    number = t.order("leave", room="tea")
    link.ok(await t.take(link, type="leave"), room="tea")
    await t.ok(number)
    await t.join(link, "tea", epoch="tea-2", seq=0)
    await t.works(link, "tea", 1)
    await t.yields("tea", [6, 1])


@case("order/matched", "a room of a pattern is told, and its messages are yielded")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="prices.*")
    link.ok(await t.take(link, type="join"), room="prices.*", rooms=[])
    await t.ok(number)
    matched = {"type": "matched", "pattern": "prices.*", "room": "prices.usd", "epoch": "u", "seq": 0, "overflow": "close"}
    link.send(matched, message("prices.usd", 1))
    link.send({"type": "unmatched", "pattern": "prices.*", "room": "prices.chf"})
    await t.event("matched", room="prices.usd")
    await t.event("unmatched", room="prices.chf")
    await t.yields("prices.usd", [1])


@case("order/excluded", "a left with the client's own id is told, and ends the room")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    link.send({"type": "left", "room": "tea", "client_id": ME})
    await t.event("excluded", room="tea")
    link.cut()
    again, command = await t.back()
    t.expect("tea" not in t.positions(command), f"the positions are {t.positions(command)}")
    resumed(again, command)


@case("order/presence", "joined, left and presence notices are yielded in their order")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea", order={"presence": True})
    link.send(
        {"type": "joined", "room": "tea", "client_id": OTHER},
        {"type": "presence", "room": "tea", "joined": [{"client_id": "a"}, {"client_id": "b"}], "left": [{"client_id": OTHER}]},
        {"type": "left", "room": "tea", "client_id": "a"},
    )
    await t.event("left", client_id="a")
    told = [(each["yield"], each["client_id"]) for each in t.adapter.log if each["yield"] in ("joined", "left")]
    t.expect(set(told[1:-1]) == {("joined", "a"), ("joined", "b"), ("left", OTHER)}, f"the notices are {told}")
    t.expect(told[0] == ("joined", OTHER), f"the notices are {told}")


@case("order/answers-swapped", "an answer is matched by its ref, in whatever order it comes")
async def _(t: Table) -> None:
    link = await t.open()
    await t.join(link, "tea")
    first = t.order("presence", room="tea")
    second = t.order("presence", room="lobby")
    a = await t.take(link, type="presence", room="tea")
    b = await t.take(link, type="presence", room="lobby")
    link.ok(b, room="lobby", members=[{"client_id": "in the lobby"}], count=1)
    link.ok(a, room="tea", members=[{"client_id": "in tea"}], count=1)
    t.expect((await t.ok(first))["clients"] == ["in tea"], "the first question has the wrong answer")
    t.expect((await t.ok(second))["clients"] == ["in the lobby"], "the second question has the wrong answer")


@case("order/answers-strange", "answers to nothing, and a second answer, change nothing")
async def _(t: Table) -> None:
    link = await t.open()
    link.send({"type": "ok", "ref": "nobody's"}, {"type": "ok"}, {"type": "ok", "ref": None}, {"type": "ok", "ref": [1]})
    link.send({"type": "error", "ref": 10**6, "code": "forbidden", "message": "no"}, {"type": "pong"})
    link.send({"type": "error", "code": "internal", "message": "no"})
    number = t.order("history", room="lobby")
    ask = await t.take(link, type="history")
    for seqs in ((1,), (1, 2)):
        link.ok(ask, room="lobby", epoch="lobby-1", seq=2, messages=messages("lobby", seqs))
    link.error(ask, "forbidden")
    t.expect(await t.ok(number) == {"seqs": [1]}, "the second answer counts")
    await t.works(link, seq=3)


@case("order/late-answer", "an answer that comes late finds its call")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("history", room="lobby")
    ask = await t.take(link, type="history")
    link.send(*messages("lobby", range(1, 201)))
    await t.yields("lobby", range(1, 201))
    t.expect(number not in t.adapter.results, "the call was answered by nobody")
    link.ok(ask, room="lobby", epoch="lobby-1", seq=200, messages=messages("lobby", [200]))
    t.expect(await t.ok(number) == {"seqs": [200]}, "the answer is another")


@case("order/join-since", "a join with a position yields what came after it, before what is new")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="tea", since={"epoch": "tea-1", "seq": 3})
    command = await t.take(link, type="join", room="tea")
    t.expect(command.get("since") == {"epoch": "tea-1", "seq": 3}, f"the join is {command}")
    joined(link, command, seq=5, recovered=True, messages=messages("tea", (4, 5)))
    link.send(message("tea", 6))
    await t.ok(number)
    await t.yields("tea", [4, 5, 6])


@case("order/join-not-recovered", "a join with a position whose answer has nothing reads the history")
async def _(t: Table) -> None:
    link = await t.open()
    number = t.order("join", room="tea", since={"epoch": "tea-1", "seq": 3})
    joined(link, await t.take(link, type="join", room="tea"), seq=6, recovered=False)
    ask = await t.take(link, type="history", room="tea")
    t.expect(ask.get("after") == 3, f"the history is asked for with {ask}")
    link.ok(ask, room="tea", epoch="tea-1", seq=6, messages=messages("tea", (5, 6)))
    await t.ok(number)
    await t.event("lost", room="tea", **{"from": 4, "to": 4})
    await t.yields("tea", [5, 6])


@case("order/history-not-yielded", "a page that the program asked for is not yielded as messages")
async def _(t: Table) -> None:
    link = await t.open(seq=9)
    number = t.order("history", room="lobby", before=9, limit=2)
    ask = await t.take(link, type="history")
    t.expect((ask.get("before"), ask.get("limit")) == (9, 2), f"the history is asked for with {ask}")
    link.ok(ask, room="lobby", epoch="lobby-1", seq=9, messages=messages("lobby", (7, 8)))
    t.expect(await t.ok(number) == {"seqs": [7, 8]}, "the page is another")
    await t.works(link, seq=10)
    await t.yields("lobby", [10])
