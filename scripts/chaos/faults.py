#!/usr/bin/env python3
"""Does faults to real servers under load, and says for each what clients and operator see, and what
is lost."""

import argparse
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

from ..attack import wire
from .clients import short
from .stage import BINARY, Stage, all_well, equal, wait_for

# What each stage has, unless its fault asks for something else; and what has a short form of it.
LOAD = {"clients": 40, "roomSize": 10, "everyMs": 250}
SHORT = ("kill", "stop", "cut", "stall", "log-disk", "files", "restart", "snapshot-disk")
SHORT_LOAD = {"clients": 10, "roomSize": 5, "everyMs": 200}
# As many messages are there before anything goes wrong.
BEFORE, SHORT_BEFORE = 200, 40
# Beyond this something hangs.
FAULT_S_MAX = 90
SMALL_DISK_KIB = 256
PASSERS_BY = 2500
FAULTS = {}


def fault(name):
    """Adds a fault by the name that the command line knows."""

    def add(run):
        FAULTS[name] = run
        return run

    return add


class Scene:
    """A stage with clients that publish."""

    def __init__(self, stage, plan=None, **start):
        self.stage = stage
        stage.start(**start)
        self.clients = stage.clients(**(LOAD | (plan or {})))
        self.count = self.clients.plan["clients"]
        self.clients.order("go")
        self.wait_for_more(BEFORE)

    def wait_for_more(self, count):
        so_far = self.clients.seen()["published"]
        return self.clients.wait_until(
            f"{count} further messages", lambda seen: seen["published"] >= so_far + count, 30
        )

    def back(self, **figures):
        """Waits until all are connected, with at least these figures."""

        def holds(seen):
            is_enough = all(seen[name] >= least for name, least in figures.items())
            return is_enough and seen["open"] == self.count

        return self.clients.wait_until(f"return of all, with {figures}", holds, 40)

    def after_a_loss(self):
        """What was lost with the server is told, whatever was published since comes once. Returns
        the figures."""
        settled = self.clients.order("settle", withinMs=30_000)
        seen = self.clients.seen()
        wrong = settled | {
            key: seen[key] for key in ("disordered", "unannounced", "failed", "ended")
        }
        assert not any(wrong.values()), f"{wrong}: {short(seen)}"
        # What was published and not answered when the server ended is published again.
        assert seen["doubled"] <= self.count * self.clients.plan["roomSize"], short(seen)
        return seen


def loss(seen):
    announced, doubled = seen["announced"], seen["doubled"]
    return f"rooms and sessions; {announced} deliveries, all told; {doubled} came twice"


def told(clients, operator, lost):
    return f"clients: {clients}; operator: {operator}; lost: {lost}"


@fault("kill")
def kill(stage):
    """kill -9, and the next server on the same socket"""
    stage.settings["SNAPSHOT"] = stage.dir / "state"
    scene = Scene(stage)
    stage.server.signal(signal.SIGKILL)
    equal(stage.ends(), -9, "exit status")
    stage.start()
    line = stage.log_line("there is no")
    scene.back(anew=scene.count)
    scene.wait_for_more(BEFORE)
    seen = scene.after_a_loss()
    equal(seen["closes"], {"1006": scene.count}, "closes")
    equal(seen["resumed"], 0, "resumed sessions")
    return told(
        f"{scene.count} closed 1006, all back in new sessions, told of lost messages",
        f"exit status -9; {line!r}",
        loss(seen),
    )


@fault("stop")
def stop(stage):
    """SIGSTOP for 4 s with a TIMEOUT of 3 s, then SIGCONT"""
    stage.settings |= {"TIMEOUT": 3, "PING": 1}
    scene = Scene(stage)
    stage.server.signal(signal.SIGSTOP)
    time.sleep(4)
    stage.server.signal(signal.SIGCONT)
    scene.wait_for_more(BEFORE)
    seen = all_well(scene.clients)
    equal(seen["closes"], {}, "closes")
    stats = stage.stats()
    assert stats["stalls"] >= 1, f"stalls is {stats['stalls']}"
    return told("a pause of 4 s", f"stalls {stats['stalls']}", "nothing")


@fault("cut")
def cut(stage):
    """links that are cut, by FIN and by reset"""
    scene = Scene(stage, {"proxied": 1})
    for nth, how in enumerate(("cut", "reset", "cut", "reset")):
        scene.clients.order(how)
        scene.back(resumed=scene.count * (nth + 1))
    scene.wait_for_more(BEFORE)
    seen = all_well(scene.clients)
    equal(seen["anew"], 0, "new sessions")
    equal(seen["resumed"], 4 * scene.count, "resumed sessions")
    stats = stage.stats()
    return told(
        f"each lost its connection 4 times, {seen['resumed']} resumes",
        f"sessions_resumed {stats['sessions_resumed']}, closed {stats['closed']}",
        "nothing",
    )


@fault("slow")
def slow(stage):
    """links with 300 ms more in each direction"""
    scene = Scene(stage, {"proxied": 0.5, "everyMs": 500})
    scene.clients.order("delay", ms=300)
    scene.wait_for_more(2 * BEFORE)
    seen = all_well(scene.clients)
    equal(seen["closes"], {}, "closes")
    return told("later messages", "nothing", "nothing")


@fault("stall")
def stall(stage):
    """links through which nothing comes any more, while others publish 1 MB a second"""
    stage.settings |= {"BUFFER": 16, "HISTORY": 5000, "HISTORY_BYTES": "128MiB"}
    plan = {"clients": 6, "roomSize": 6, "everyMs": 100, "bytes": [16_000], "proxied": 0.3}
    scene = Scene(stage, plan)
    scene.clients.order("deafen")
    stats = stage.wait_for_stats("slow clients", lambda stats: stats["slow_consumers"] >= 3)
    others = scene.clients.seen()
    equal(others["closes"], {}, "closes of those who read")
    scene.clients.order("release")
    scene.back(resumed=3)
    seen = all_well(scene.clients)
    assert sum(seen["closes"].values()) == 3, seen["closes"]
    return told(
        f"3 that do not read: {', '.join(seen['closes'])}, and they resume; the others: nothing",
        f"slow_consumers {stats['slow_consumers']}, dropped {stats['dropped']}",
        "nothing: it is in the history",
    )


def fill(place):
    """Fills a disk, and returns the file that does."""
    filler = place / "filler"
    with open(filler, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), b"x" * 512)
    return filler


def pass_by(stage, count):
    """Clients that come and go, each of which leaves some 600 bytes in the log."""
    for _ in range(count):
        sock, _ = wire.upgrade(("127.0.0.1", stage.port))
        sock.close()


@fault("log-disk")
def log_disk(stage):
    """a full disk under the log"""
    disk = stage.small_disk(SMALL_DISK_KIB)
    log = open(disk / "log", "ab") if disk else open("/dev/full", "wb")
    with log:
        stage.settings |= {"LOG": "trace", "ACCESS_LOG": "true"}
        scene = Scene(stage, stderr=log)
        filler = fill(disk) if disk else None
        pass_by(stage, 50)
        scene.wait_for_more(BEFORE)
        words = "nothing as long as it is full (/dev/full stays full)"
        if disk:
            filler.unlink()
            pass_by(stage, 1)

            def line():
                with open(disk / "log", errors="replace") as file:
                    return next((line for line in file if "log lines were dropped" in line), None)

            words = repr(wait_for("line about dropped lines", line).split("] ", 1)[-1].strip())
        seen = all_well(scene.clients)
        equal(seen["closes"], {}, "closes")
    return told("nothing", f"once there is space: {words}", "log lines")


@fault("log-pipe")
def log_pipe(stage):
    """standard error is a pipe that nobody reads"""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    stage.kept.callback(os.close, reading)
    stage.settings |= {"LOG": "trace", "ACCESS_LOG": "true"}
    scene = Scene(stage, stderr=writing)
    os.close(writing)
    # 1 MiB may wait.
    pass_by(stage, PASSERS_BY)
    seen = all_well(scene.clients)
    equal(seen["closes"], {}, "closes")
    os.set_blocking(reading, False)
    said = bytearray()

    def line():
        with contextlib.suppress(BlockingIOError):
            said.extend(os.read(reading, 1 << 16))
        at = said.find(b" log lines were dropped")
        return at > 0 and bytes(said[said.rfind(b"]", 0, at) + 2 :]).split(b"\n")[0].decode()

    words = wait_for("line about dropped lines", line)
    return told("nothing", f"once it is read: {words!r}", "log lines")


@fault("files")
def files(stage):
    """no file descriptors left"""
    most = 100
    scene = Scene(stage, files_max=most)
    crowd = []
    with contextlib.ExitStack() as kept:
        for _ in range(most - scene.count):
            sock = kept.enter_context(socket.create_connection(("127.0.0.1", stage.port), 5))
            crowd.append(sock)
        line = stage.log_line("cannot accept")
        scene.wait_for_more(BEFORE)
        equal(scene.clients.seen()["closes"], {}, "closes of those inside")
    stats = stage.wait_for_stats("free descriptors", lambda stats: stats["pending_heads"] == 0)
    assert stats["accept_backoffs_total"] >= 1, "accept_backoffs_total is 0"
    # Somebody new gets in.
    stage.clients(clients=1, roomSize=1, first=1000)
    seen = all_well(scene.clients)
    equal(seen["closes"], {}, "closes")
    return told(
        "inside nothing; newcomers wait until some are free",
        f"accept_backoffs_total {stats['accept_backoffs_total']}; {line!r}",
        "nothing",
    )


@fault("clock")
def clock(stage):
    """a clock that jumps a day ahead, and two days back"""
    library = next((path for path in LIBFAKETIME if path.exists()), None)
    if library is None:
        return None
    now = stage.dir / "clock"
    now.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    stage.settings |= {"TIMEOUT": 3, "PING": 1}
    scene = Scene(stage, {"proxied": 0.5, "everyMs": 500}, env=env)
    for nth, by in enumerate(("+1d", "-1d")):
        now.write_text(f"{by}\n")
        scene.wait_for_more(BEFORE)
        # Whoever is away comes back, and finds what it has missed.
        scene.clients.order("reset")
        scene.back(resumed=scene.count // 2 * (nth + 1))
    seen = all_well(scene.clients)
    equal(seen["closes"], {"1006": scene.count}, "closes, those of the cuts")
    equal(seen["anew"], 0, "new sessions")
    return told("other timestamps, and nothing else", "the same in the log", "nothing")


LIBFAKETIME = [
    Path(os.environ.get("LIBFAKETIME", "/nowhere")),
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/faketime/libfaketimeMT.so.1"),
]


@fault("term")
def term(stage):
    """SIGTERM during load, without a snapshot"""
    stage.settings["DRAIN_DELAY"] = 1
    scene = Scene(stage)
    stage.terminate()
    ready = wait_for("/ready that says so", lambda: said(stage, "draining"))
    equal(stage.ends(), 0, "exit status")
    seen = begin_anew(stage, scene, "1001")
    return told(
        f"{scene.count} were told `closing` and closed 1001; new sessions, told of lost messages",
        f"/ready {ready}; exit status 0",
        loss(seen),
    )


def begin_anew(stage, scene, code):
    """Starts the next process, for which all clients were closed with `code` and have lost their
    sessions. Returns what they have seen."""
    stage.start()
    scene.back(anew=scene.count)
    scene.wait_for_more(BEFORE)
    seen = scene.after_a_loss()
    equal(seen["closes"], {code: scene.count}, "closes")
    return seen


def said(stage, word):
    status, body = stage.ask("/ready")
    return f"{status} {body}" if status == 503 and word in body else None


@fault("restart")
def restart(stage):
    """SIGTERM during load with a snapshot, and the next server on the same socket"""
    stage.settings |= {"SNAPSHOT": stage.dir / "state", "HISTORY": 1000}
    scene = Scene(stage, {"directEvery": 3})
    stage.terminate()
    equal(stage.ends(), 0, "exit status")
    wrote = stage.log_line("snapshot: wrote")
    stage.start()
    scene.back(resumed=scene.count)
    scene.wait_for_more(BEFORE)
    seen = all_well(scene.clients)
    equal(seen["closes"], {"1012": scene.count}, "closes")
    equal(seen["anew"], 0, "new sessions")
    equal(seen["refused"], {}, "refused connections")
    return told("1012 and a pause; all resume", f"exit status 0; {wrote!r}", "nothing")


@fault("snapshot-disk")
def snapshot_disk(stage):
    """a full disk under the snapshot"""
    place = stage.small_disk(SMALL_DISK_KIB)
    disk = place is not None
    if not disk:
        place = stage.dir / "gone"
        place.mkdir()
    stage.settings["SNAPSHOT"] = place / "state"
    scene = Scene(stage)
    if disk:
        filler = fill(place)
    else:
        place.rmdir()
    stage.terminate()
    equal(stage.ends(), 1, "exit status")
    line = stage.log_line("cannot write the snapshot")
    if disk:
        filler.unlink()
    else:
        place.mkdir()
    seen = begin_anew(stage, scene, "1012")
    return told(
        f"{scene.count} closed 1012; new sessions, told of lost messages",
        f"exit status 1; {line!r}",
        loss(seen),
    )


def run(name, binary):
    """Does one fault, and tells of it in a line. Returns whether all was as it should be."""
    began = time.monotonic()
    signal.alarm(FAULT_S_MAX)
    try:
        with Stage(binary) as stage:
            words = FAULTS[name](stage)
    except Exception as error:
        traceback.print_exc()
        words, verdict = f"{type(error).__name__}: {error}", "FAILED"
    else:
        verdict = "ok" if words else "!!! not tested: no libfaketime"
    finally:
        signal.alarm(0)
    what = FAULTS[name].__doc__
    print(
        f"{verdict:6} {name:14} {time.monotonic() - began:5.1f} s  {what}: {words or ''}",
        flush=True,
    )
    return verdict != "FAILED"


def hangs(*_):
    raise AssertionError(f"took longer than {FAULT_S_MAX} s")


def main():
    parser = argparse.ArgumentParser(prog="scripts/chaos.sh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help=f"of: {', '.join(FAULTS)}")
    parser.add_argument("--binary", type=Path, default=BINARY, help="default: %(default)s")
    parser.add_argument(
        "--short", action="store_true", help=f"fewer clients, and {', '.join(SHORT)} alone"
    )
    options = parser.parse_args()
    if options.short:
        global BEFORE
        LOAD.update(SHORT_LOAD)
        BEFORE = SHORT_BEFORE
    if unknown := [name for name in options.names if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    signal.signal(signal.SIGALRM, hangs)
    names = options.names or (SHORT if options.short else FAULTS)
    failed = [name for name in names if not run(name, options.binary)]
    print(f"{len(names) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
