"""Connections that come, go, and take places."""

import time

from .. import wire
from . import attack


@attack(
    "resets",
    "10,200 connects and resets from one address, while clients are away",
    short={"MAX_AWAY_SESSIONS": 1000},
)
def resets(scene):
    count, away = scene.scale(10_200, 1200), []
    for nth in range(20):
        client = wire.Client(scene.address, f"127.3.0.{nth + 1}")
        session = client.wait_for(type="welcome")["session"]
        client.ask(type="join", room="theirs")
        client.reset()
        away.append(session)
    with scene.measured():
        deadline = time.monotonic() + 50
        made = 0
        while made < count and time.monotonic() < deadline:
            try:
                sock, _ = wire.upgrade(scene.address)
            except (OSError, wire.Closed):
                continue
            wire.reset(sock)
            made += 1
        resumed = 0
        for nth, session in enumerate(away):
            client = wire.Client(scene.address, f"127.3.1.{nth + 1}")
            resumed += client.ask(type="resume", session=session)["type"] == "ok"
            client.close()
    scene.fact("resets", made)
    scene.fact("away_sessions", len(away))
    scene.fact("sessions_lost", len(away) - resumed)
    scene.fact("sessions_evicted", (scene.server.stats() or {}).get("sessions_evicted"))


@attack("squat", "1,200 connections from one address", LIMITED_ADDRESSES="all")
def squat(scene):
    opening = wire.UPGRADE.format(extra="").encode()
    with scene.measured():
        for _ in range(1200):
            sock = scene.dial()
            sock.sendall(opening)
        outcomes = [newcomer(scene, nth) for nth in range(scene.scale(4, 2))]
        scene.fact("newcomers", len(outcomes))
        scene.fact("newcomers_refused", sum(outcome != "in" for outcome in outcomes))
        scene.fact("outcomes", sorted(set(outcomes)))


def newcomer(scene, nth):
    """What becomes of somebody else who wants to come in."""
    try:
        sock, _ = wire.upgrade(scene.address, f"127.3.2.{nth + 1}", timeout=3)
    except wire.Closed as closed:
        return str(closed)
    except TimeoutError:
        return "waits in line"
    except OSError as error:
        return str(error)
    sock.close()
    return "in"
