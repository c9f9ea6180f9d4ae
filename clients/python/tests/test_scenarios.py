"""What the client must do against the real server, through a proxy that cuts, stalls and resets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import time
import unittest
from unittest import mock
from typing import Any

from websockets.asyncio.client import connect

from rusty_socks import (
    Broadcast,
    Client,
    Closing,
    Connected,
    Direct,
    Disconnected,
    Dropped,
    Joined,
    Left,
    Lost,
    Matched,
    Options,
    Place,
    Position,
    PresenceRead,
    RustySocksError,
    State,
    Unmatched,
)

from .support import FAST, Reader, ServerTest, until, within

SECRET = "a secret for tests that has enough bytes"

IDENTITY = {"identity": "required", "token_hmac_secret": SECRET, "token_grace": 1}


def sign(user: str, seconds: int, rooms: str = "*", **claims: Any) -> str:
    """A token of a user for so many seconds, for these rooms."""

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    allow = ["join", "publish", "history", "presence", "direct"]
    body = {
        "sub": user,
        "exp": int(time.time()) + seconds,
        "rooms": [{"match": rooms, "allow": allow}],
        **claims,
    }
    text = part({"alg": "HS256"}) + b"." + part(body)
    mac = hmac.new(SECRET.encode(), text, hashlib.sha256).digest()
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


class Commands(ServerTest):
    async def test_publish_receive_history_leave(self) -> None:
        await self.serve()
        anna, ben = await self.connect(), await self.connect(direct=True)
        tea = await anna.join("tea")
        bens = await ben.join("tea")
        first = await tea.publish({"cups": 2, "x": None}, sender="anna")
        self.assertEqual((first.room, first.seq, first.repeated), ("tea", 1, False))
        await until("message", lambda: ben.contents("tea"))
        (told,) = ben.messages["tea"]
        self.assertEqual((told.content, told.sender), ({"cups": 2, "x": None}, "anna"))
        self.assertEqual((told.id, told.client_id), (first.id, anna.client.client_id))
        await tea.publish("and back", echo=True)
        await until("echo", lambda: anna.contents("tea") == ["and back"])
        page = await bens.history(limit=1)
        self.assertEqual([message.content for message in page.messages], ["and back"])
        self.assertEqual(page.position.seq, 2)
        self.assertEqual(len((await bens.history(after=0, limit=5)).messages), 2)
        await bens.leave()
        with self.assertRaisesRegex(RustySocksError, "not_member"):
            await bens.publish("no")
        with self.assertRaisesRegex(RustySocksError, "already_member"):
            await anna.client.join("tea")
        with self.assertRaisesRegex(RustySocksError, "bad_request"):
            await anna.client.join("p*q")
        self.assertEqual(anna.client.rooms, ("lobby", "tea"))
        self.assertEqual(ben.client.rooms, ("lobby",))

    async def test_a_loop_ends_when_its_room_is_left_and_with_the_client(self) -> None:
        await self.serve()
        anna = await self.connect()
        tea, cake = [await anna.client.join(name) for name in ("tea", "cake")]

        async def read(room: Any) -> str:
            async for _ in room:
                pass
            return "ended"

        loops = [asyncio.create_task(read(room)) for room in (tea, cake)]
        await tea.leave()
        self.assertEqual(await within("end", loops[0]), "ended")
        await anna.client.close()
        self.assertEqual(await within("end", loops[1]), "ended")
        with self.assertRaisesRegex(RustySocksError, "closed"):
            await cake.publish("late")

    async def test_what_came_before_the_loop_is_yielded_by_it(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        room = ben.client.default_room
        assert room is not None
        for number in range(3):
            await anna.client.publish("lobby", number)
        await until("messages", lambda: room.waiting == 3)
        seen = []
        async for message in room:
            seen.append(message.content)
            if len(seen) == 2:
                break
        async for message in room:
            seen.append(message.content)
            break
        self.assertEqual(seen, [0, 1, 2])

    async def test_the_replay_of_the_default_room_comes_first(self) -> None:
        await self.serve()
        anna = await self.connect(direct=True)
        for number in range(3):
            await anna.client.publish("lobby", number)
        ben = await self.connect()
        ben.read(ben.client.default_room)
        await anna.client.publish("lobby", 3)
        await until("messages", lambda: len(ben.messages["lobby"]) == 4)
        self.assertEqual(ben.contents("lobby"), [0, 1, 2, 3])

    async def test_join_with_a_position_yields_what_came_after_it(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        tea = await anna.join("tea")
        for number in range(4):
            await tea.publish(number)
        epoch = (await tea.history(limit=1)).position.epoch
        await ben.join("tea", since=Position(epoch, 2))
        await tea.publish(4)
        await until("messages", lambda: len(ben.messages["tea"]) == 3)
        self.assertEqual(ben.contents("tea"), [2, 3, 4])

    async def test_presence(self) -> None:
        await self.serve()
        anna, ben = await self.connect(), await self.connect(direct=True)
        room = await anna.client.join("tea", presence=True, sender="Anna")
        self.assertEqual([each.sender for each in room.members.values()], ["Anna"])
        bens = await ben.join("tea", sender="Ben")
        await until("notice", lambda: anna.of(Joined))
        self.assertEqual((len(room.members), room.member_count), (2, 2))
        # A resume tells nobody, and the members are read again.
        before = len(anna.of(PresenceRead))
        await self.break_and_return(anna, self.proxy.cut)
        self.assertGreater(len(anna.of(PresenceRead)), before)
        self.assertEqual(sorted(each.sender for each in room.members.values()), ["Anna", "Ben"])
        self.assertEqual(ben.of(Left), [])
        await bens.leave()
        await until("notice", lambda: anna.of(Left))
        self.assertEqual((len(room.members), room.member_count), (1, 1))
        (left,) = anna.of(Left)
        self.assertEqual((left.room, left.member.sender), ("tea", "Ben"))
        page = await room.presence(limit=1)
        self.assertEqual((page.count, list(page.members)), (1, [anna.client.client_id]))

    async def test_closing_ends_the_session_at_once(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.client.presence("lobby", watch=True)
        await ben.client.close()
        await until("notice", lambda: anna.of(Left))
        self.assertIs(ben.client.state, State.CLOSED)

    async def test_direct_messages_come_once_over_a_loss_too(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        assert ben.client.client_id is not None
        await anna.client.direct(ben.client.client_id, "a")
        await until("message", lambda: ben.of(Direct))
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        await anna.client.direct(ben.client.client_id, "b")
        self.proxy.is_refusing = False
        await until("message", lambda: len(ben.of(Direct)) == 2)
        await anna.client.direct(ben.client.client_id, "c")
        await until("message", lambda: len(ben.of(Direct)) == 3)
        told = [(event.seq, event.content) for event in ben.of(Direct)]
        self.assertEqual(told, [(1, "a"), (2, "b"), (3, "c")])
        with self.assertRaisesRegex(RustySocksError, "not_found"):
            await anna.client.direct("00000000-0000-4000-8000-000000000000", "x")

    async def test_direct_messages_that_are_not_kept_are_told_to_be_lost(self) -> None:
        await self.serve(inbox=1)
        anna, ben = await self.connect(direct=True), await self.connect()
        assert ben.client.client_id is not None
        self.proxy.stall("down")
        for content in "abc":
            await anna.client.direct(ben.client.client_id, content)
        self.proxy.reset()
        self.proxy.release()
        await until("message", lambda: ben.of(Direct))
        told = [(event.seq, event.content) for event in ben.of(Direct)]
        self.assertEqual((told, ben.of(Lost)), ([(3, "c")], [Lost(None, 1, 2, "not_kept")]))

    async def test_broadcasts(self) -> None:
        await self.serve(broadcast=True)
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.client.broadcast({"all": True}, sender="anna")
        await until("broadcast", lambda: ben.of(Broadcast))
        (told,) = ben.of(Broadcast)
        self.assertEqual((told.content, told.sender), ({"all": True}, "anna"))

    async def test_broadcasts_where_they_are_not_allowed(self) -> None:
        await self.serve()
        anna = await self.connect()
        with self.assertRaisesRegex(RustySocksError, "forbidden"):
            await anna.client.broadcast("x")

    async def test_patterns_with_rooms_made_before_after_and_while_away(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.join("prices.eur")
        await anna.client.publish("prices.eur", "before")
        pattern = ben.read(await ben.client.join_pattern("prices.*"))
        self.assertEqual(pattern.rooms, ("prices.eur",))
        await anna.join("prices.usd")
        await anna.client.publish("prices.usd", "usd")
        await anna.client.publish("prices.eur", "eur")
        await until("messages", lambda: len(ben.messages["prices.*"]) == 2)
        self.proxy.is_refusing = True
        self.proxy.reset()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        await anna.join("prices.gbp")
        await anna.client.publish("prices.gbp", "gbp")
        await anna.client.publish("prices.usd", "usd again")
        self.proxy.is_refusing = False
        await until("messages", lambda: len(ben.messages["prices.*"]) == 4)
        self.assertEqual(sorted(ben.contents("prices.*")), ["eur", "gbp", "usd", "usd again"])
        self.assertEqual([event.room for event in ben.of(Matched)], ["prices.usd", "prices.gbp"])
        await anna.client.publish(["prices.eur", "prices.usd"], "both")
        await until("message", lambda: "both" in ben.contents("prices.*"))
        await pattern.leave()
        self.assertEqual(ben.client.rooms, ("lobby",))
        await anna.client.publish("prices.eur", "unheard")
        # What was sent before it has come when this answer has.
        await ben.client.history("lobby")
        self.assertEqual(len(ben.messages["prices.*"]), 5)

    async def test_a_pattern_beyond_the_limit_of_rooms(self) -> None:
        await self.serve(max_rooms_per_conn=2)
        ben = await self.connect()
        await ben.client.join_pattern("p.*")
        for name in ("p.a", "p.b"):
            other = await self.connect(direct=True)
            await other.join(name)
        await until("notice", lambda: ben.of(Unmatched))
        self.assertEqual([event.room for event in ben.of(Unmatched)], ["p.b"])

    async def test_overlapping_patterns_keep_each_others_rooms(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.join("p.q.r")
        wide, narrow = [await ben.client.join_pattern(name) for name in ("p.*", "p.q.*")]
        await wide.leave()
        ben.read(narrow)
        await anna.client.publish("p.q.r", "still")
        await until("message", lambda: ben.contents("p.q.*") == ["still"])

    async def test_a_message_to_several_rooms_comes_once_in_each_live_and_after_a_loss(
        self,
    ) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        for reader in (anna, ben):
            for name in ("a", "b"):
                await reader.join(name)
        receipt = await anna.client.publish(["a", "b", "lobby"], "live")
        self.assertEqual(receipt.rooms, (Place("a", 1), Place("b", 1), Place("lobby", 1)))
        await until("message", lambda: ben.contents("b"))
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        await anna.client.publish("b", "b2")
        await anna.client.publish(["a", "b"], "both")
        await anna.client.publish("a", "a3")
        self.proxy.is_refusing = False
        await anna.client.publish(["b", "a"], "end")
        await until("message", lambda: "end" in ben.contents("a") + ben.contents("b"))
        await until("message", lambda: ben.contents("a")[-1] == ben.contents("b")[-1] == "end")
        self.assertEqual(ben.contents("a"), ["live", "both", "a3", "end"])
        self.assertEqual(ben.contents("b"), ["live", "b2", "both", "end"])
        places = [(message.room, message.seq) for message in ben.messages["b"]]
        self.assertEqual(places, [("b", seq) for seq in (1, 2, 3, 4)])

    async def test_content_that_is_no_json_fails_alone(self) -> None:
        await self.serve()
        anna = await self.connect()
        circle: list[Any] = []
        circle.append(circle)
        for content in (float("nan"), object(), "\ud83d", circle, {1: {2}}):
            with self.assertRaises((ValueError, TypeError)):
                await anna.client.publish("lobby", content)
        with self.assertRaises(ValueError):
            await anna.client.publish("lobby", 1, id="no uuid")
        self.assertEqual((await anna.client.publish("lobby", "fine")).seq, 1)
        self.assertEqual(len(anna.of(Connected)), 1)

    async def test_mistakes_without_number_cost_no_connection(self) -> None:
        await self.serve()
        anna = await self.connect()
        wrong = [anna.client.publish("nowhere", number) for number in range(100)]
        results = await within("answers", asyncio.gather(*wrong, return_exceptions=True))
        self.assertEqual({getattr(each, "code", each) for each in results}, {"not_member"})
        self.assertEqual((await anna.client.publish("lobby", "fine")).seq, 1)
        self.assertEqual(len(anna.of(Connected)), 1)

    async def test_a_burst_far_over_the_rate_costs_no_connection(self) -> None:
        await self.serve(rate_messages=40, history=200)
        anna, ben = await self.connect(), await self.connect(direct=True)
        ben.read(ben.client.default_room)
        burst = [anna.client.publish("lobby", number) for number in range(90)]
        results = await within("answers", asyncio.gather(*burst))
        self.assertEqual([each.seq for each in results], list(range(1, 91)))
        await until("messages", lambda: len(ben.messages["lobby"]) == 90)
        self.assertEqual(ben.contents("lobby"), list(range(90)))
        self.assertEqual(len(anna.of(Connected)), 1)

    async def test_more_commands_than_the_outbox_holds_are_refused(self) -> None:
        await self.serve()
        anna = await self.connect(outbox_max=5)
        burst = [anna.client.publish("lobby", number) for number in range(8)]
        results = await asyncio.gather(*burst, return_exceptions=True)
        codes = [getattr(each, "code", "ok") for each in results]
        self.assertEqual(codes, ["ok"] * 5 + ["outbox_full"] * 3)

    async def test_a_message_beyond_the_servers_bound_fails_alone(self) -> None:
        await self.serve(max_message_bytes=1000)
        anna = await self.connect()
        with self.assertRaisesRegex(RustySocksError, "too_large"):
            await anna.client.publish("lobby", "x" * 1000)
        await anna.client.publish("lobby", "fine")


class Losses(ServerTest):
    async def test_each_kind_of_loss_is_resumed(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await ben.join("tea")
        tea = await anna.join("tea")
        client_id = ben.client.client_id
        for number, how in enumerate((self.proxy.cut, self.proxy.reset)):
            await self.break_and_return(ben, how)
            await tea.publish(number)
            await until("message", lambda n=number: n in ben.contents("tea"))  # type: ignore[misc]
        self.assertEqual(ben.contents("tea"), [0, 1])
        self.assertTrue(all(event.resumed for event in ben.of(Connected)[1:]))
        self.assertEqual((ben.client.client_id, ben.of(Lost)), (client_id, []))

    async def test_a_server_that_goes_silent_is_noticed(self) -> None:
        await self.serve(ping=1)
        ben = await self.connect(ping_s_max=0.1, silence_extra_s=0)
        self.proxy.stall("down")
        await until("loss", lambda: ben.of(Disconnected))
        self.assertIn("silent", ben.of(Disconnected)[0].end.reason)
        self.proxy.release()
        await until("session", lambda: len(ben.of(Connected)) == 2)
        self.assertTrue(ben.of(Connected)[1].resumed)

    async def test_a_publish_without_an_answer_is_published_once(self) -> None:
        await self.serve()
        anna, ben = await self.connect(), await self.connect(direct=True)
        ben.read(ben.client.default_room)
        # The server has it, and its answer is lost.
        self.proxy.stall("down")
        publish = asyncio.create_task(anna.client.publish("lobby", "once"))
        await until("message", lambda: ben.contents("lobby"))
        self.proxy.reset()
        self.proxy.release()
        receipt = await within("answer", publish)
        self.assertEqual((receipt.seq, receipt.repeated), (1, True))
        await anna.client.publish("lobby", "end")
        await until("message", lambda: "end" in ben.contents("lobby"))
        self.assertEqual(ben.contents("lobby"), ["once", "end"])

    async def test_a_publish_without_an_answer_is_not_published_again_in_a_new_session(
        self,
    ) -> None:
        await self.serve(resume_window=0)
        anna, ben = await self.connect(), await self.connect(direct=True)
        ben.read(ben.client.default_room)
        self.proxy.stall("down")
        publish = asyncio.create_task(anna.client.publish("lobby", "once"))
        await until("message", lambda: ben.contents("lobby"))
        self.proxy.reset()
        self.proxy.release()
        receipt = await within("answer", publish)
        self.assertEqual((receipt.seq, receipt.repeated), (1, True))
        self.assertFalse(anna.of(Connected)[-1].resumed)
        await anna.client.publish("lobby", "end")
        await until("message", lambda: "end" in ben.contents("lobby"))
        self.assertEqual(ben.contents("lobby"), ["once", "end"])

    async def test_a_lost_session_joins_its_rooms_from_their_positions(self) -> None:
        await self.serve(resume_window=0)
        anna, ben = await self.connect(direct=True), await self.connect()
        await ben.join("tea")
        pattern = ben.read(await ben.client.join_pattern("p.*"))
        ben.read(ben.client.default_room)
        for name in ("tea", "p.a"):
            await anna.join(name)
        await anna.client.publish(["tea", "p.a", "lobby"], 1)
        await until("message", lambda: ben.contents("lobby"))
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        await anna.client.publish(["tea", "p.a"], 2)
        await anna.client.publish("lobby", 2)
        self.proxy.is_refusing = False
        await until("session", lambda: len(ben.of(Connected)) == 2)
        await anna.client.publish(["lobby", "tea", "p.a"], 3)
        for name in ("tea", "p.*", "lobby"):
            await until("message", lambda n=name: 3 in ben.contents(n))  # type: ignore[misc]
            self.assertEqual(ben.contents(name), [1, 2, 3])
        self.assertEqual(pattern.rooms, ("p.a",))
        self.assertEqual((ben.of(Connected)[1].resumed, ben.of(Lost)), (False, []))

    async def test_a_new_session_watches_presence_again(self) -> None:
        await self.serve(resume_window=0)
        anna, ben = await self.connect(direct=True), await self.connect()
        room = await ben.client.join("tea", presence=True, sender="Ben")
        await self.break_and_return(ben, self.proxy.cut)
        self.assertFalse(ben.of(Connected)[1].resumed)
        await anna.join("tea", sender="Anna")
        await until("notice", lambda: "Anna" in [event.member.sender for event in ben.of(Joined)])
        self.assertLessEqual({"Anna", "Ben"}, {each.sender for each in room.members.values()})

    async def test_a_join_whose_answer_is_lost_is_not_undone(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.client.join("tea", presence=True)
        self.proxy.stall("down")
        join = asyncio.create_task(ben.client.join("tea"))
        await until("join", lambda: anna.of(Joined))
        self.proxy.reset()
        self.proxy.release()
        room = ben.read(await within("answer", join))
        await anna.client.publish("tea", "heard")
        await until("message", lambda: ben.contents("tea") == ["heard"])
        self.assertEqual((anna.of(Left), room.name), ([], "tea"))

    async def test_what_is_to_be_undone_while_away_does_not_hinder_the_return(self) -> None:
        await self.serve()
        ben = await self.connect()
        session = ben.client._session
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        session.unwanted(session.rooms.subscription("tea"))
        self.proxy.is_refusing = False
        await until("session", lambda: len(ben.of(Connected)) == 2)

    async def test_what_is_not_kept_is_told_to_be_lost(self) -> None:
        await self.serve(history=3, replay=0)
        anna, ben = await self.connect(direct=True), await self.connect()
        ben.read(ben.client.default_room)
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        for number in range(1, 8):
            await anna.client.publish("lobby", number)
        self.proxy.is_refusing = False
        await until("messages", lambda: 7 in ben.contents("lobby"))
        self.assertEqual(ben.contents("lobby"), [5, 6, 7])
        self.assertEqual(ben.of(Lost), [Lost("lobby", 1, 4, "not_kept")])

    async def test_too_slow_in_a_room_with_gaps_loses_nothing(self) -> None:
        await self.serve(overflow="gap", buffer=16, history=1000, history_bytes="64MiB")
        ben = await self.overflow()
        self.assertEqual((ben.contents("big"), ben.of(Lost)), (list(range(200)), []))

    async def test_too_slow_in_a_room_with_the_latest_is_told_what_it_misses(self) -> None:
        await self.serve(overflow="latest", buffer=16, history=1000, history_bytes="64MiB")
        ben = await self.overflow()
        lost = sum((event.last or 0) - (event.first or 0) + 1 for event in ben.of(Lost))
        self.assertEqual(len(ben.contents("big")) + lost, 200)
        self.assertEqual({event.reason for event in ben.of(Lost)}, {"latest"})

    async def overflow(self) -> Reader:
        anna, ben = await self.connect(direct=True), await self.connect()
        seen: list[Any] = []
        room = await ben.client.join("big")

        async def read() -> None:
            async for message in room:
                seen.append(message.content["number"])

        reading = asyncio.create_task(read())
        await anna.client.join("big")
        self.proxy.stall("down")
        # More than all buffers between the server and the proxy hold.
        pad = "x" * 60_000
        many = [anna.client.publish("big", {"number": n, "pad": pad}) for n in range(200)]
        await within("answers", asyncio.gather(*many))
        self.proxy.release()
        await until("last message", lambda: 199 in seen)
        reading.cancel()
        self.assertEqual(len(ben.of(Connected)), 1)
        self.assertEqual(seen, sorted(set(seen)))
        ben.messages["big"] = [Stub(number) for number in seen]  # type: ignore[misc]
        return ben

    async def test_a_reader_that_is_behind_gets_all_in_the_end(self) -> None:
        await self.serve(history=1000)
        anna = await self.connect(direct=True)
        ben = await self.connect(queue_max=3, hold_max=5)
        slow, fast = await ben.client.join("slow"), await ben.join("fast")
        for name in ("slow", "fast"):
            await anna.join(name)
        for number in range(60):
            await anna.client.publish(["slow", "fast"], number)
        await until("messages", lambda: len(ben.messages["fast"]) == 60)
        self.assertEqual(slow.waiting, 3)
        seen = []
        async for message in slow:
            seen.append(message.content)
            if len(seen) == 60:
                break
        self.assertEqual((seen, ben.of(Lost)), (list(range(60)), []))
        self.assertEqual(fast.waiting, 0)


class Stub:
    def __init__(self, content: Any) -> None:
        self.content = content


class Cancelling(ServerTest):
    async def test_a_cancelled_reader_takes_no_message(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        room = ben.client.default_room
        assert room is not None
        seen = []
        for number in range(20):
            reading = asyncio.ensure_future(room.__anext__())
            await asyncio.sleep(0)
            await anna.client.publish("lobby", number)
            if number % 2:
                reading.cancel()
            try:
                seen.append((await reading).content)
            except asyncio.CancelledError:
                pass
        while len(seen) < 20:
            seen.append((await within("message", room.__anext__())).content)
        self.assertEqual(seen, list(range(20)))

    async def test_a_publish_that_is_cancelled_before_it_is_sent_is_withdrawn(self) -> None:
        await self.serve()
        anna = await self.connect()
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: anna.client.state is not State.OPEN)
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(anna.client.publish("lobby", "no"), 0.05)
        self.assertEqual(anna.client.pending, 0)
        self.proxy.is_refusing = False
        self.assertEqual((await anna.client.publish("lobby", "yes")).seq, 1)

    async def test_a_join_that_is_cancelled_leaves_the_client_out(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.join("tea")
        watch = await anna.client.presence("tea", watch=True)
        self.assertEqual(watch.count, 1)
        for is_lost in (False, True):
            joins = len(anna.of(Joined))
            self.proxy.stall("down")
            join = asyncio.create_task(ben.client.join("tea"))
            await until("join", lambda n=joins: len(anna.of(Joined)) > n)  # type: ignore[misc]
            join.cancel()
            if is_lost:
                await asyncio.gather(join, return_exceptions=True)
                self.proxy.reset()
            self.proxy.release()
            await until("leave", lambda n=joins: len(anna.of(Left)) > n)  # type: ignore[misc]
            self.assertNotIn("tea", ben.client.rooms)
        await ben.join("tea")
        self.assertIn("tea", ben.client.rooms)

    async def test_a_join_that_is_cancelled_with_its_answer_leaves_the_client_out(self) -> None:
        await self.serve()
        ben = await self.connect()
        rooms = ben.client._session.rooms
        joined = rooms.joined

        def joined_and_cancelled(*given: Any) -> None:
            joined(*given)
            asyncio.get_running_loop().call_soon(join.cancel)

        with mock.patch.object(rooms, "joined", joined_and_cancelled):
            join = asyncio.create_task(ben.client.join("tea"))
            with self.assertRaises(asyncio.CancelledError):
                await join
        await ben.join("tea")
        self.assertEqual(ben.client.rooms, ("lobby", "tea"))

    async def test_a_pattern_whose_leave_lost_its_answer_is_not_joined_again(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        await anna.join("p.a")
        pattern = await ben.client.join_pattern("p.*")
        await anna.client.presence("p.a", watch=True)
        self.proxy.stall("down")
        leave = asyncio.create_task(pattern.leave())
        await until("leave", lambda: anna.of(Left))
        self.proxy.reset()
        self.proxy.release()
        await within("answer", leave)
        self.assertEqual(ben.client.rooms, ("lobby",))
        self.assertEqual((await anna.client.presence("p.a")).count, 1)

    async def test_a_leave_that_is_cancelled_is_carried_out(self) -> None:
        await self.serve()
        anna, ben = await self.connect(direct=True), await self.connect()
        tea = await ben.client.join("tea", presence=True)
        await anna.join("tea")
        await anna.client.presence("tea", watch=True)
        self.proxy.is_refusing = True
        self.proxy.cut()
        await until("loss", lambda: ben.client.state is not State.OPEN)
        leave = asyncio.create_task(tea.leave())
        await asyncio.sleep(0)
        leave.cancel()
        self.proxy.is_refusing = False
        await until("notice", lambda: anna.of(Left))
        await until("session", lambda: len(ben.of(Connected)) == 2)
        self.assertEqual(ben.client.rooms, ("lobby",))

    async def test_entering_that_is_cancelled_leaves_nothing_behind(self) -> None:
        await self.serve()
        self.proxy.stall("down")
        before = asyncio.all_tasks()
        client = Client(self.proxy.url, options=Options(**FAST))
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(client.__aenter__(), 0.1)
        self.assertIs(client.state, State.CLOSED)
        await until("end of all tasks", lambda: asyncio.all_tasks() - before == set())


class Ends(ServerTest):
    async def test_a_server_that_is_killed_is_found_again(self) -> None:
        await self.serve()
        ben = await self.connect()
        await ben.join("tea")
        ben.read(ben.client.default_room)
        await ben.client.publish("tea", 1)
        await self.server.stop(signal.SIGKILL)
        waiting = asyncio.create_task(ben.client.publish("tea", "kept meanwhile"))
        await until("loss", lambda: ben.of(Disconnected))
        await self.server.start()
        self.proxy.target = self.server.port
        receipt = await within("answer", waiting)
        # The rooms are others, and say so.
        self.assertEqual(receipt.seq, 1)
        self.assertEqual([event.resumed for event in ben.of(Connected)], [False, False])
        self.assertIn(Lost("tea", None, None, "epoch"), ben.of(Lost))
        other = await self.connect(direct=True)
        await other.join("tea")
        await other.client.publish("tea", "heard")
        await until("message", lambda: ben.contents("tea") == ["heard"])

    async def test_a_server_that_drains_is_left_alone_for_as_long_as_it_asks(self) -> None:
        await self.serve()
        ben = await self.connect()
        await self.server.stop(signal.SIGTERM)
        await until("end", lambda: ben.of(Disconnected))
        (closing,) = ben.of(Closing)
        first = ben.of(Disconnected)[0]
        self.assertEqual((first.end.code, first.delay_s), (1001, closing.reconnect_after_s))

    async def test_a_session_that_is_taken_over_is_not_fought_for(self) -> None:
        await self.serve()
        ben = await self.connect()
        room = ben.client.default_room
        assert room is not None
        async with connect(self.server.url) as elsewhere:
            resume = {"type": "resume", "session": ben.client.session_token}
            await elsewhere.send(json.dumps(resume))
            with self.assertRaises(RustySocksError) as raised:
                await within("end", room.__anext__())
        self.assertEqual(raised.exception.code, "stopped")
        assert raised.exception.end is not None
        self.assertEqual(raised.exception.end.code, 4010)
        with self.assertRaisesRegex(RustySocksError, "4010"):
            await ben.client.publish("lobby", 1)
        self.assertEqual(self.proxy.accepted, 1)

    async def test_a_full_server_is_asked_again_after_its_retry_after(self) -> None:
        await self.serve(max_conn=1, max_queued_tasks=0, queue_timeout=4)
        first = await self.connect(direct=True)
        second = Client(self.proxy.url, options=Options(**FAST))
        reader = Reader(second)
        self.readers.append(reader)
        began = time.monotonic()
        entering = asyncio.create_task(second.__aenter__())
        await until("refusal", lambda: reader.of(Disconnected))
        refusal = reader.of(Disconnected)[0]
        self.assertEqual((refusal.end.status, refusal.end.code), (503, 1006))
        self.assertGreaterEqual(refusal.delay_s, 1)
        await first.client.close()
        await within("session", entering)
        self.assertGreaterEqual(time.monotonic() - began, 1)

    async def test_what_is_no_such_server_is_not_asked_again(self) -> None:
        await self.serve()
        client = Client(self.proxy.url.replace("/ws", "/nowhere"), options=Options(**FAST))
        with self.assertRaisesRegex(RustySocksError, "HTTP status 404"):
            await within("end", client.__aenter__())
        self.assertEqual(self.proxy.accepted, 1)

    async def test_attempts_may_be_bounded(self) -> None:
        await self.serve()
        self.proxy.is_refusing = True
        client = Client(self.proxy.url, options=Options(**FAST, attempts_max=2))
        with self.assertRaisesRegex(RustySocksError, "stopped"):
            await within("end", client.__aenter__())
        self.assertEqual(self.proxy.accepted, 3)


class Tokens(ServerTest):
    async def test_a_token_is_renewed_before_it_ends_and_after_a_loss(self) -> None:
        await self.serve(**IDENTITY)
        asked = 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            return sign("anna", 2 if asked == 1 else 600)

        anna = await self.connect(token=token)
        ben = await self.connect(token=sign("ben", 600), direct=True)
        for reader in (anna, ben):
            await reader.join("tea")
        await until("renewal", lambda: asked == 2)
        await anna.client.publish("tea", "still here", sender="someone else")
        await until("message", lambda: ben.messages["tea"])
        self.assertEqual((ben.messages["tea"][0].user, anna.client.user), ("anna", "anna"))
        self.assertEqual(len(anna.of(Connected)), 1)
        await self.break_and_return(anna, self.proxy.cut)
        self.assertEqual((asked, anna.of(Connected)[-1].resumed), (3, True))

    async def test_a_connection_whose_token_has_ended_comes_back_with_a_new_one(self) -> None:
        await self.serve(**IDENTITY)
        tokens = [sign("anna", 1), sign("anna", 600)]

        def token() -> str:
            if len(tokens) == 1 and len(anna_was) == 1:
                anna_was.append("asked to renew")
                raise OSError("asleep")
            return tokens.pop(0)

        anna_was = ["new"]
        anna = await self.connect(token=token)
        await until("session", lambda: len(anna.of(Connected)) == 2)
        self.assertEqual(anna.of(Disconnected)[0].end.code, 4203)
        self.assertTrue(anna.of(Connected)[1].resumed)

    async def test_a_long_token_is_sent_in_the_first_frame(self) -> None:
        await self.serve(**IDENTITY)
        anna = await self.connect(token=sign("anna", 600, note="x" * 8000))
        self.assertEqual(anna.client.user, "anna")
        await self.break_and_return(anna, self.proxy.cut)
        self.assertTrue(anna.of(Connected)[-1].resumed)
        with self.assertRaisesRegex(RustySocksError, "4001.*expired"):
            await self.connect(token=sign("anna", -60, note="x" * 8000))

    async def test_a_token_that_is_refused_ends_the_client_which_says_why(self) -> None:
        await self.serve(**IDENTITY)
        for token, why in (("nonsense", "not a signed JWT"), (sign("anna", -60), "expired")):
            with self.assertRaisesRegex(RustySocksError, f"HTTP status 401.*{why}"):
                await self.connect(token=token)

    async def test_rooms_that_a_new_token_does_not_allow_are_dropped(self) -> None:
        await self.serve(**IDENTITY)
        tokens = [sign("anna", 2), sign("anna", 600, "lobby")]
        anna = await self.connect(token=lambda: tokens.pop(0))
        tea = await anna.client.join("tea")
        with self.assertRaisesRegex(RustySocksError, "left.*forbidden"):
            await within("end", tea.__anext__())
        await until("event", lambda: anna.of(Dropped))
        self.assertEqual(anna.of(Dropped), [Dropped("tea", "forbidden")])
        with self.assertRaisesRegex(RustySocksError, "forbidden"):
            await anna.client.join("tea")


if __name__ == "__main__":
    unittest.main()
