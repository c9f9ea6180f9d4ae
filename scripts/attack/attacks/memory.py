"""What a stranger can have the server keep."""

import time

from .. import wire
from ..scene import pump
from . import attack
from .http import request
from .presence import compressed


@attack("rooms", "fills 9,999 rooms with 4 × 64 KiB, then leaves", short={"MAX_ROOMS": 800})
def rooms(scene):
    count = scene.scale(9_999, 799)
    # Nobody is in the default room, so it is forgotten like any other.
    stranger = scene.stranger(wire.command(type="leave", room="lobby"))
    with scene.measured():
        fill_rooms(stranger, count)
    # The stranger has gone. What is left for the others?
    newcomer = scene.client()
    welcome = newcomer.wait_for(type="welcome")
    scene.fact("newcomer_has_default_room", "room" in welcome)
    scene.fact("newcomer_can_make_a_room", newcomer.ask(type="join", room="mine")["type"] == "ok")
    stats = scene.server.stats() or {}
    scene.fact("rooms_kept", stats.get("rooms"))
    scene.fact("history_mb", round((stats.get("history_bytes") or 0) / 1e6))


def fill_rooms(stranger, count):
    """Leaves as much as may be kept in each of many rooms. Stops where the server has enough."""
    stranger.settimeout(60)
    body = "x" * 65_000
    try:
        for nth in range(count):
            room = f"squat.{nth}"
            stranger.sendall(
                wire.command(type="join", room=room)
                + wire.command(type="publish", room=room, content=body) * 4
                + wire.command(type="leave", room=room)
            )
        stranger.sendall(wire.command(type="ping", ref="all"))
        read_until(stranger, b'"ref":"all"')
    except OSError:
        pass


def read_until(sock, mark):
    data = b""
    while mark not in data:
        part = sock.recv(1 << 20)
        if not part:
            break
        data = data[-len(mark) :] + part


def fill_room(scene, room="old"):
    """A room whose history is as large as may be."""
    sock = scene.stranger(wire.command(type="join", room=room))
    sock.sendall(wire.command(type="publish", room=room, content="x" * 64_000) * 4)


@attack("history-unread", "600 sessions that ask for history and never read", MAX_CONN=1000)
def history_unread(scene):
    fill_room(scene)
    count = scene.scale(600, 100)
    join = wire.command(type="join", room="old")
    strangers = [scene.stranger(join) for _ in range(count)]
    with scene.measured():
        ask = wire.command(type="history", room="old")
        pump(strangers, ask * 100, scene.scale(15, 3), reads=False)


@attack(
    "dedicated",
    "(no attack) `dedicated` compression, one message each way",
    COMPRESSION="dedicated",
    MAX_CONN=2000,
)
def dedicated(scene):
    count = scene.scale(1000, 300)
    scene.server.stats()
    bare, _ = scene.server.memory_mb()
    # A welcome is compressed already; it is the message to the client.
    crowd = scene.crowd(count, wire.command(type="leave", room="lobby"), extra=wire.DEFLATE)
    with scene.measured():
        crowd.say(compressed(b'{"type":"ping","x":"' + b"one and another " * 30 + b'"}'))
        time.sleep(scene.scale(3, 1))
        now, _ = scene.server.memory_mb()
    scene.fact("kib_per_client", round((now - bare) * 1024 / count))


@attack("mixture", "a mixture of these for 20 s", MAX_CONN=10000, COMPRESSION="dedicated")
def mixture(scene):
    fill_room(scene)
    # Nobody is closed for being slow in the lobby: all that is asked for is one's own.
    leave = wire.command(type="leave", room="lobby")
    join = wire.command(type="join", room="old") + leave
    askers = [
        scene.stranger(join, receive_bytes=4096) for _ in range(scene.scale(2000, 200))
    ]
    inflaters = [
        scene.stranger(leave, extra=wire.DEFLATE, receive_bytes=4096)
        for _ in range(scene.scale(1500, 100))
    ]
    pages = [scene.dial(receive_bytes=4096) for _ in range(scene.scale(1200, 200))]
    filler = scene.stranger(leave)
    junk = b"ab" * 30_000
    inflated = compressed(b'{"type":"ping","ref":"' + b"r" * 120 + b'","x":"' + junk + b'"}')
    answered = wire.command(type="presence", room="old") * 2
    with scene.measured():
        seconds = scene.scale(5, 0.7)
        pump(askers, wire.command(type="history", room="old") * 100, seconds, reads=False)
        pump(pages, request("GET /stats") * 1000, seconds * 2, reads=False)
        pump(inflaters, inflated + answered, seconds, reads=False)
        fill_rooms(filler, scene.scale(8000, 300))
        scene.fact("stats_answer", scene.server.stats(5) is not None)
