"""A server that plays by a script, and not by the rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from rusty_socks import Client, Connected, Direct, Disconnected, Dropped, Options, Overrun, RustySocksError

from .support import FAST, Reader, until, within

Play = Callable[[ServerConnection], Awaitable[None]]

WELCOME = {
    "type": "welcome",
    "client_id": "me",
    "session": "secret",
    "room": "lobby",
    "epoch": "e",
    "seq": 0,
}


def message(seq: int, room: str = "lobby", **fields: Any) -> dict[str, Any]:
    body = {"id": f"{room}{seq}", "content": seq, "client_id": "other", "timestamp": "t"}
    return {"type": "message", "room": room, "seq": seq, **body, **fields}


class Script:
    """One connection of a scripted server."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws

    async def say(self, *frames: dict[str, Any] | str) -> None:
        for frame in frames:
            await self.ws.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def hear(self, type_: str) -> dict[str, Any]:
        while True:
            frame: dict[str, Any] = json.loads(await self.ws.recv())
            if frame["type"] == type_:
                return frame

    async def answer(self, type_: str, **fields: Any) -> None:
        command = await self.hear(type_)
        await self.say({"type": "ok", "ref": command["ref"], **fields})


class Hostile(unittest.IsolatedAsyncioTestCase):
    @contextlib.asynccontextmanager
    async def served(self, *plays: Callable[[Script], Awaitable[None]]) -> AsyncIterator[str]:
        """Each connection gets the next of the plays, and the last one again and again."""
        self.connections = 0
        self.faults: list[BaseException] = []

        async def handle(ws: ServerConnection) -> None:
            play = plays[min(self.connections, len(plays) - 1)]
            self.connections += 1
            try:
                await play(Script(ws))
            except ConnectionClosed:
                pass
            except Exception as fault:
                self.faults.append(fault)

        async with serve(handle, "127.0.0.1", 0) as server:
            yield f"ws://127.0.0.1:{port_of(server)}/ws"
        self.assertEqual(self.faults, [])

    @contextlib.asynccontextmanager
    async def entered(self, url: str, **options: Any) -> AsyncIterator[Reader]:
        client = Client(url, options=Options(**{**FAST, **options}))
        reader = Reader(client)
        await within("session", client.__aenter__())
        if client.default_room is not None:
            reader.read(client.default_room)
        try:
            yield reader
        finally:
            await within("close", client.close())
            await reader.stop()

    async def test_unknown_frames_and_nonsense_are_ignored(self) -> None:
        async def play(script: Script) -> None:
            noise = ["", "nonsense", "[]", '{"type":7}', '{"type":"future","x":1}', "[" * 9999]
            await script.say(*noise, {**WELCOME, "more": 1}, *noise, message(1, future=True))
            await script.ws.send(b"bytes")
            await script.say({"type": "ok", "ref": 99}, {"type": "error"} | {"code": "x"})
            await script.say(message(2))
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url) as reader:
            await until("messages", lambda: reader.contents("lobby") == [1, 2])
            self.assertEqual(len(reader.of(Connected)), 1)

    async def test_frames_without_sense_end_the_connection_and_not_the_client(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"type": "message", "room": "lobby", "seq": "1"},
            message(-1),
            message(2**64),
            {"type": "gap", "room": "lobby", "from": 1},
            {"type": "epoch", "room": "lobby", "epoch": 3, "seq": 1},
            {"type": "direct", "seq": 1},
            {"type": "matched", "room": 1},
            {"type": "joined", "room": "lobby"},
        ]
        for frame in wrong:

            async def play(script: Script, frame: dict[str, Any] = frame) -> None:
                await script.say(WELCOME, frame)
                await script.ws.wait_closed()

            async def well(script: Script) -> None:
                await script.say({**WELCOME, "client_id": "me too"})
                command = await script.hear("resume")
                await script.say({"type": "error", "ref": command["ref"], "code": "unrecoverable"})
                while True:
                    command = json.loads(await script.ws.recv())
                    place = {"room": "lobby", "epoch": "e", "seq": 0, "recovered": True}
                    await script.say({"type": "ok", "ref": command["ref"], **place})

            with self.subTest(frame=frame):
                async with self.served(play, well) as url, self.entered(url) as reader:
                    await until("session", lambda: len(reader.of(Connected)) == 2)
                    self.assertIn("misbehaved", reader.of(Disconnected)[0].end.reason)

    async def test_a_room_that_an_overloaded_server_does_not_take_up_is_joined_again(self) -> None:
        async def first(script: Script) -> None:
            await script.say(WELCOME, message(1))
            await script.ws.close(1011)

        async def next_one(script: Script) -> None:
            await script.say({**WELCOME, "client_id": "me too"})
            resumed = {"client_id": "me", "session": "secret", "patterns": []}
            rooms = [{"room": "lobby", "error": "overloaded"}]
            await script.answer("resume", **resumed, rooms=rooms, direct={"seq": 0, "recovered": True})
            command = await script.hear("join")
            assert command["since"] == {"epoch": "e", "seq": 1}, command
            place = {"room": "lobby", "epoch": "e", "seq": 2, "recovered": True, "messages": [message(2)]}
            await script.say({"type": "ok", "ref": command["ref"], **place})
            await script.ws.wait_closed()

        async with self.served(first, next_one) as url, self.entered(url) as reader:
            await until("messages", lambda: reader.contents("lobby") == [1, 2])
            self.assertEqual(reader.of(Dropped), [])

    async def test_repeats_are_not_yielded_again(self) -> None:
        async def play(script: Script) -> None:
            direct = [message(seq) | {"type": "direct"} for seq in (1, 1, 2, 1)]
            await script.say(WELCOME, *direct)
            await script.say(*[message(seq) for seq in (1, 2, 1, 2, 3, 2, 4)])
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url) as reader:
            await until("messages", lambda: 4 in reader.contents("lobby"))
            self.assertEqual(reader.contents("lobby"), [1, 2, 3, 4])
            self.assertEqual([event.seq for event in reader.of(Direct)], [1, 2])

    async def test_frames_before_the_answer_to_resume_are_ignored(self) -> None:
        async def first(script: Script) -> None:
            await script.say(WELCOME, message(1))
            await script.ws.close(1011)

        async def second(script: Script) -> None:
            await script.say({**WELCOME, "client_id": "new", "seq": 3}, message(2), message(3))
            await script.say(message(1) | {"type": "direct"})
            command = await script.hear("resume")
            self.assertEqual(command["rooms"], [{"room": "lobby", "epoch": "e", "seq": 1}])
            place = {"room": "lobby", "epoch": "e", "seq": 3, "recovered": True}
            missed = [message(2, content="two"), message(3, client_id="me")]
            answer = {"client_id": "me", "session": "secret", "patterns": [], "direct": {"seq": 0}}
            rooms = [{**place, "messages": missed}]
            await script.say({"type": "ok", "ref": command["ref"], **answer, "rooms": rooms})
            await script.say(message(4))
            await script.ws.wait_closed()

        async with self.served(first, second) as url, self.entered(url) as reader:
            await until("messages", lambda: 4 in reader.contents("lobby"))
            self.assertEqual((reader.contents("lobby"), reader.of(Direct)), ([1, "two", 4], []))

    async def test_the_number_of_a_publish_from_before_a_new_epoch_does_not_count(self) -> None:
        async def play(script: Script) -> None:
            await script.say(WELCOME)
            command = await script.hear("publish")
            await script.say({"type": "epoch", "room": "lobby", "epoch": "f", "seq": 0})
            await script.say({"type": "ok", "ref": command["ref"], "room": "lobby", "seq": 3})
            await script.say(*[message(seq) for seq in (1, 2, 3, 4)])
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url) as reader:
            self.assertEqual((await reader.client.publish("lobby", "old")).seq, 3)
            await until("messages", lambda: 4 in reader.contents("lobby"))
            self.assertEqual(reader.contents("lobby"), [1, 2, 3, 4])

    async def test_pages_that_never_end_do_not_hang_the_client(self) -> None:
        async def play(script: Script) -> None:
            await script.say(WELCOME, {"type": "gap", "room": "lobby", "from": 1, "to": 3})
            await script.say(message(4))
            # Always the first message, whatever was asked for.
            for _ in range(3):
                page = {"epoch": "e", "seq": 4, "messages": [message(1)]}
                await script.answer("history", room="lobby", **page)
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url) as reader:
            await until("messages", lambda: 4 in reader.contents("lobby"))
            self.assertEqual(reader.contents("lobby"), [1, 4])

    async def test_an_answer_without_sense_fails_who_asked(self) -> None:
        async def play(script: Script) -> None:
            await script.say(WELCOME)
            await script.answer("publish", room="lobby", seq="one")
            await script.answer("history", room="lobby", messages=7)
            await script.answer("join", room="tea")
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url) as reader:
            for call in (
                reader.client.publish("lobby", 1),
                reader.client.history("lobby"),
                reader.client.join("tea"),
            ):
                with self.assertRaisesRegex(RustySocksError, "misbehaved"):
                    await within("answer", call)

    async def test_events_that_nobody_reads_are_bounded(self) -> None:
        async def play(script: Script) -> None:
            await script.say(WELCOME)
            for seq in range(1, 51):
                direct = message(seq) | {"type": "direct"}
                await script.say(direct)
            await script.say(message(1))
            await script.ws.wait_closed()

        async with self.served(play) as url:
            client = Client(url, options=Options(**{**FAST, "events_max": 10}))
            async with client:
                room = client.default_room
                assert room is not None
                await within("message", room.__anext__())
                told = []
                async for event in client.events():
                    told.append(event)
                    if len(told) == 11:
                        break
        self.assertEqual(told[0], Overrun(41))
        self.assertEqual([each.seq for each in told if isinstance(each, Direct)][-1], 50)

    async def test_rooms_without_number_are_refused(self) -> None:
        async def play(script: Script) -> None:
            await script.say(WELCOME)
            await script.answer("join", room="p.*", rooms=[])
            for number in range(20):
                name = f"p.{number}"
                await script.say(
                    {"type": "matched", "pattern": "p.*", "room": name, "epoch": "e", "seq": 0}
                )
            await script.ws.wait_closed()

        async with self.served(play) as url, self.entered(url, rooms_max=10) as reader:
            await reader.client.join_pattern("p.*")
            await until("end", lambda: reader.of(Disconnected))
            self.assertIn("10 rooms", reader.of(Disconnected)[0].end.reason)
            self.assertLessEqual(len(reader.client.rooms), 10)

    async def test_a_redirect_is_not_followed(self) -> None:
        asked: list[str] = []

        def redirect(ws: ServerConnection, request: Request) -> Response:
            asked.append(request.path)
            response = ws.respond(302, "elsewhere")
            response.headers["Location"] = "/other"
            return response

        async def handle(ws: ServerConnection) -> None:
            raise AssertionError("a connection")

        async with serve(handle, "127.0.0.1", 0, process_request=redirect) as server:
            url = f"ws://127.0.0.1:{port_of(server)}/ws"
            client = Client(url, token="secret", options=Options(**FAST))
            with self.assertRaisesRegex(RustySocksError, "HTTP status 302"):
                await within("end", client.__aenter__())
        self.assertEqual(asked, ["/ws"])

    async def test_a_server_that_says_nothing_is_given_up(self) -> None:
        async def silent(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        options = Options(**{**FAST, "open_timeout_s": 0.1, "attempts_max": 1})
        with self.assertRaisesRegex(RustySocksError, "stopped"):
            await within("end", Client(url, options=options).__aenter__())
        server.close()


def port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


if __name__ == "__main__":
    unittest.main()
