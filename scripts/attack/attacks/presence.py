"""What is cheap to ask and dear to answer: presence, history, patterns, inflation."""

import time
import zlib

from .. import wire
from ..scene import pump
from . import attack

ASK_S, ASK_SHORT_S = 10, 2


@attack("join-leave", "joins and leaves one room that 1,000 watch", MAX_CONN=2000)
def join_leave(scene):
    watch = wire.command(type="join", room="watched", presence=True)
    scene.crowd(scene.scale(1000, 200), watch)
    stranger = scene.stranger()
    pair = wire.command(type="join", room="watched") + wire.command(type="leave", room="watched")
    with scene.measured():
        pump([stranger], pair * 500, scene.scale(ASK_S, ASK_SHORT_S))


@attack("presence", "asks for the presence of 3,000 members, on 20 connections", MAX_CONN=4000)
def presence(scene):
    join = wire.command(type="join", room="town", sender="n" * 200)
    scene.crowd(scene.scale(3000, 300), join)
    strangers = [scene.stranger(join) for _ in range(20)]
    with scene.measured():
        ask = wire.command(type="presence", room="town")
        pump(strangers, ask * 500, scene.scale(ASK_S, ASK_SHORT_S))


@attack("history", "asks for pages of history, on 80 connections")
def history(scene):
    join = wire.command(type="join", room="old")
    strangers = [scene.stranger(join) for _ in range(80)]
    strangers[0].sendall(wire.command(type="publish", room="old", content="x" * 2400) * 100)
    with scene.measured():
        ask = wire.command(type="history", room="old", limit=100)
        pump(strangers, ask * 500, scene.scale(ASK_S, ASK_SHORT_S))


def compressed(text):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return wire.frame(body.removesuffix(b"\0\0\xff\xff"), first=0xC0)


@attack(
    "inflate",
    "compressed messages of 80 B that inflate to 64 KiB, on 20 connections",
    COMPRESSION="shared",
)
def inflate(scene):
    strangers = [scene.stranger(extra=wire.DEFLATE) for _ in range(20)]
    bomb = compressed(b'{"type":"ping","x":"' + b"a" * 65_000 + b'"}')
    scene.fact("bytes_sent_each", len(bomb))
    with scene.measured():
        pump(strangers, bomb * 500, scene.scale(ASK_S, ASK_SHORT_S))


@attack(
    "patterns",
    "1,000 subscribers with 100 nested patterns each, and 20 new rooms a second",
    MAX_CONN=2000,
)
def patterns(scene):
    subscribe = b"".join(
        wire.command(type="join", room="." * depth + ".*") for depth in range(1, 101)
    )
    scene.crowd(scene.scale(1000, 400), subscribe)
    stranger = scene.stranger()
    with scene.measured():
        deadline = time.monotonic() + scene.scale(ASK_S, ASK_SHORT_S)
        made = 0
        while time.monotonic() < deadline:
            room = "." * 104 + f"{made:06}"
            stranger.sendall(
                wire.command(type="join", room=room) + wire.command(type="leave", room=room)
            )
            made += 1
            time.sleep(0.05)
        scene.fact("rooms_made", made)
