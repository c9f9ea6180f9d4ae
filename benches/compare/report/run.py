"""Runs the server and the driver, one measurement after the other, and keeps the reports."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import machine
from figures import OURS

START_TIMEOUT = 10
# The server has said goodbye to everyone long before; this is for one that hangs.
STOP_TIMEOUT = 15
DRIVE_TIMEOUT = 180
# Descriptors that are no connections, on either side.
SPARE_FILES = 300
# How many members, rooms and workers are tried.
FULL = {
    "rungs": [100, 300, 1000, 3000, 10_000, 19_000],
    "ping_rungs": [100, 300, 1000, 3000, 10_000],
    "members": [1, 10, 100, 1000, 10_000],
    "rooms": [1, 10, 100, 1000],
    "workers": [1, 2, 4, 8, 16, 32, 64],
    "kept_rooms": 1000,
    "idle_ms": 1000,
}
QUICK = FULL | {"ping_rungs": [100, 1000], "kept_rooms": 200, "idle_ms": 500}
QUICK |= {key: FULL[key][:few] for key, few in (("rungs", 4), ("members", 4), ("rooms", 3), ("workers", 4))}
# Messages kept in each room, and their size as a publish. The last is more than a room keeps.
KEPT = [(0, 1), (10, 128), (100, 128), (100, 1024), (100, 4096)]
# Members of the room whose publishes go to all workers: so few that the letters are a good part of
# the cost, and so many that each worker has one.
SPREAD_MEMBERS = 64
ROOM_MEMBERS = 10


@dataclass
class Work:
    """One measurement: a fresh server with some settings, and the driver's work."""

    name: str
    drive: list
    path: str = "/ws"
    workers: int = 1
    settings: dict = field(default_factory=dict)
    two_cores: bool = False


def works(sizes, files_max, seconds, two_cores):
    """In the order in which they are done. The x of a sweep stands behind the colon of a name."""
    most = files_max - SPARE_FILES
    rungs = ",".join(str(rung) for rung in sizes["rungs"] if rung <= most)
    ping_rungs = ",".join(str(rung) for rung in sizes["ping_rungs"] if rung <= most)
    idle_ms = str(sizes["idle_ms"])
    yield Work("memory-echo", ["ladder", "--rungs", rungs, "--idle-ms", idle_ms], path="/echo")
    yield Work("memory-chat", ["ladder", "--rungs", rungs, "--idle-ms", idle_ms])
    # Each connection is pinged once a second, so that three seconds tell what a ping costs.
    pings = ["ladder", "--rungs", ping_rungs, "--idle-ms", str(3 * sizes["idle_ms"])]
    yield Work("pings", pings, settings={"PING": 1})
    yield Work("echo", ["ladder", "--rungs", rungs, "--echo-ms", round(seconds * 1000)], path="/echo")
    for members in (count for count in sizes["members"] if count < most):
        yield Work(f"members:{members}", fanout(members, seconds))
    for count in (count for count in sizes["rooms"] if count * ROOM_MEMBERS <= most):
        yield Work(f"rooms:{count}", rooms(count, ROOM_MEMBERS, 1, seconds))
    yield Work("one-room", rooms(1, 2, 64, seconds))
    for messages, size in KEPT:
        keep = ["keep", "--rooms", sizes["kept_rooms"], "--messages", messages, "--size", size]
        many = {"MAX_ROOMS_PER_CONN": 100_000, "MAX_ROOMS": 100_000}
        yield Work(f"keep:{messages}:{size}", keep, settings=many)
    for workers in sizes["workers"]:
        yield Work(f"workers:{workers}", fanout(SPREAD_MEMBERS, seconds), workers=workers)
    # The publisher and the only member: with two workers the acceptor gives each its own.
    places = [(1, False), (2, False)] + [(2, True)] * bool(two_cores)
    for workers, apart in places:
        where = f"{workers}{'-apart' * apart}"
        yield Work(f"hop:{where}", fanout(1, seconds), workers=workers, two_cores=apart)
        echo = ["echo", "--size", 128, "--depth", 1, "--connections", 64, "--warmup", 1, "--seconds", seconds]
        yield Work(f"pair-echo:{where}", echo, path="/echo", workers=workers, two_cores=apart)
        yield Work(f"pair-rooms:{where}", rooms(100, ROOM_MEMBERS, 1, seconds), workers=workers, two_cores=apart)


def fanout(members, seconds):
    return ["fanout", "--protocol", "chat", "--members", members, "--size", 128,
            "--warmup", 1, "--seconds", seconds]  # fmt: skip


def rooms(count, members, window, seconds):
    return ["rooms", "--rooms", count, "--members", members, "--window", window, "--size", 128,
            "--warmup", 1, "--seconds", seconds]  # fmt: skip


class Bench:
    def __init__(self, work_dir):
        self.server_bin = Path(os.environ["SERVER_BIN"])
        self.drive_bin = Path(os.environ["DRIVE_BIN"])
        self.server_core = os.environ.get("SERVER_CORE", "0")
        self.driver_core = os.environ.get("DRIVER_CORE", "1")
        self.two_cores = os.environ.get("TWO_CORES", "")
        self.work_dir = work_dir
        _, self.files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Below the range that clients are given, and a fresh one each time, so that no old connection
        # is in the way.
        self.port = random.randrange(20_000, 28_000)

    def command(self, work):
        """The server's command and its settings, with the port of this time."""
        settings = {
            "HOST": "127.0.0.1",
            "PORT": self.port,
            "ECHO": "true",
            "THREAD_POOL_SIZE": work.workers,
            "MAX_CONN": self.files_max - SPARE_FILES // 2,
            "MAX_QUEUED_TASKS": 0,
            # What a client may send is not what is measured.
            "RATE_MESSAGES": 0,
            "RATE_BYTES": 0,
            "LOG": "warn",
        }
        cores = self.two_cores if work.two_cores else self.server_core
        return ["taskset", "-c", cores, str(self.server_bin)], settings | work.settings

    def measure(self, work):
        """What the driver reports, and both commands as one would type them."""
        self.port += 1
        command, settings = self.command(work)
        environment = {f"RUSTY_SOCKS_{key}": str(value) for key, value in settings.items()}
        with open(self.work_dir / "server.log", "wb") as log:
            # `taskset` becomes the server, so that this is its pid.
            server = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
            try:
                self.await_server(server)
                url = f"ws://127.0.0.1:{self.port}{work.path}"
                flags = [str(flag) for flag in work.drive] + ["--url", url, "--pid", str(server.pid), "--json"]
                drive = ["taskset", "-c", self.driver_core, str(self.drive_bin), *flags]
                done = subprocess.run(drive, capture_output=True, text=True, timeout=DRIVE_TIMEOUT, check=False)
                if done.returncode != 0:
                    raise RuntimeError(done.stderr.strip() or f"the driver ended with {done.returncode}")
                report = json.loads(done.stdout) | {"workers_us": cpu_of_workers(server.pid)}
            finally:
                stop(server)
        typed = [f"{key}={value}" for key, value in environment.items()] + command
        return report, self.shown(typed, server), self.shown(drive, server)

    def await_server(self, server):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the server does not accept connections") from None
                # Nothing tells when it listens; asking again at once would only take its core.
                time.sleep(0.05)

    def shown(self, command, server):
        """No path of this machine, and no port or pid that is another one each time."""
        text = " ".join(command)
        for binary in (self.server_bin, self.drive_bin):
            text = text.replace(str(binary), binary.name)
        return text.replace(str(self.port), "PORT").replace(f"--pid {server.pid}", "--pid PID")


def cpu_of_workers(pid):
    """The CPU time of each worker since the server began, in µs, in the order of their ids."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
        # The kernel keeps 15 letters of a name.
        if (task / "comm").read_text().strip() == "rusty-socks-worker-0"[:15]:
            found.append(int((task / "schedstat").read_text().split()[0]) / 1e3)
    return found


def stop(server):
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            print(f"scaling: the server with pid {server.pid} did not end by itself", file=sys.stderr)
            server.kill()
            server.wait()


def measure(work_dir):
    quick = os.environ.get("QUICK") == "1"
    rounds = int(os.environ.get("ROUNDS") or (1 if quick else 3))
    seconds = float(os.environ.get("MEASURE_SECONDS") or 1)
    only = os.environ.get("ONLY", "").split()
    bench = Bench(work_dir)
    pins = {"server": bench.server_core, "driver": bench.driver_core}
    if bench.two_cores:
        pins["server with two workers apart"] = bench.two_cores
    about = machine.describe(pins) | {"kernel_limits": machine.kernel_limits(), "files_max": bench.files_max}
    (work_dir / "machine.json").write_text(json.dumps(about))
    todo = list(works(QUICK if quick else FULL, bench.files_max, seconds, bench.two_cores))
    todo = [work for work in todo if not only or work.name.split(":")[0] in only]
    failures = 0
    with open(work_dir / "results.jsonl", "w") as results:
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", file=sys.stderr)
            # Every other round backwards: what drifts with time then falls on all alike.
            for work in todo if number % 2 else reversed(todo):
                began = time.monotonic()
                try:
                    report, server, drive = bench.measure(work)
                    entry = {"report": report, "server_command": server, "driver_command": drive}
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as error:
                    print(f"scaling: {work.name} failed: {error}", file=sys.stderr)
                    entry = {"failed": True}
                    failures += 1
                results.write(json.dumps({"slice": number, "work": work.name, "server": OURS} | entry) + "\n")
                results.flush()
                print(f"  {work.name:16} {time.monotonic() - began:5.1f} s", file=sys.stderr)
    return failures > 0
