#!/usr/bin/env python3
"""A server with everything on, under a moderate load, for as long as one likes; and whether
anything grew, or was lost, meanwhile."""

import argparse
import csv
import json
import os
import random
import re
import signal
import sys
import time
import uuid
from pathlib import Path

from . import growth, lines
from .backend import Backend
from .clients import short
from .stage import BINARY, REPOSITORY, Stage, all_well, certificate, wait_for

OUT = REPOSITORY / "target/soak"
SECRET = "a secret of the soak test that is long enough"
API_KEY = "the-key-of-the-soak-test"
CLIENTS, ROOM, EVERY_MS = 120, 10, 2000
SAMPLE_S = 5
# How often each disturbance comes, in seconds.
EVERY_S = {"publish": 0.5, "cut": 15, "deafen": 70, "reload": 45, "sample": SAMPLE_S}
# When the server is replaced, as shares of the whole time.
RESTARTS = (0.1, 0.2, 0.95)
# What a new process needs to find its level, as a share of a stretch without restarts: the
# allocator goes on for minutes to settle, by less and less. And stretches below this are not judged.
WARM_UP, STRETCH_S_MIN = 0.5, 240
STALL_S = 3
# All is still: nothing of what clients held may be left.
EMPTY = ("active_connections", "sessions", "sessions_away", "pending_heads", "lingering", "queued")
EMPTY += ("outbox_bytes", "input_bytes", "inbox_bytes", "jobs_queued", "tasks_queued", "job_bytes")
# Counters that say that a client was refused or cut off by the server.
NEVER = ("rejected_total", "rate_limited", "rate_limited_per_ip", "rate_limited_per_user")
NEVER += ("memory_waits", "memory_refused", "handler_panics", "slow_consumers", "dropped")
NEVER += ("config_reloads_failed", "tls_reloads_failed")
NEVER += ("accept_backoffs_total", "sessions_expired", "sessions_evicted", "resumes_refused")
# Processes of one machine are compared by what they use of a core.
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def settings(stage, backend):
    cert, key = certificate(stage.dir)
    config = stage.dir / "server.toml"
    config.write_text("rate_messages = 1000\n")
    return cert, {
        "CONFIG": config,
        "TLS_CERT": cert,
        "TLS_KEY": key,
        "IDENTITY": "required",
        "TOKEN_HMAC_SECRET": SECRET,
        "API_KEY": API_KEY,
        "HOOK_URL": backend.url("/"),
        "HOOK_SECRET": SECRET,
        "EVENTS_URL": backend.url("/events"),
        "EVENTS_SECRET": SECRET,
        "COMPRESSION": "shared",
        "SNAPSHOT": stage.dir / "state",
        "ACCESS_LOG": "true",
        "LOG_FORMAT": "json",
        "DEFAULT_ROOM": "",
        # What has a bound shall have reached it soon, or it grows until then.
        "HISTORY": 200,
        "INBOX": 20,
        "MAX_CONN": 1000,
    }


class Soak:
    def __init__(self, stage, backend, clients, minutes):
        self.stage, self.backend, self.clients = stage, backend, clients
        self.seconds = minutes * 60
        self.began = time.monotonic()
        self.samples, self.restarts, self.logs, self.faults = [], [], [], []
        self.api = {}
        self.reloads = 0
        self.stalled_until = None
        self.counters = {}
        self.cut_by = "cut"

    def now(self):
        return time.monotonic() - self.began

    def run(self):
        due = {what: every * random.random() for what, every in EVERY_S.items()}
        restarts = [share * self.seconds for share in RESTARTS]
        while self.now() < self.seconds:
            if restarts and self.now() >= restarts[0]:
                restarts.pop(0)
                self.restart()
            for what, at in due.items():
                if self.now() >= at:
                    due[what] = max(at + EVERY_S[what], self.now() - 1)
                    getattr(self, what)()
            if self.stalled_until and self.now() >= self.stalled_until:
                self.stalled_until = None
                self.clients.order("release")
            time.sleep(0.05)

    # What happens meanwhile.

    def publish(self):
        """The backend publishes, over the API. Its ids are not in a snapshot, so it makes a pause
        when the server does."""
        room = f"room.{random.randrange(CLIENTS // ROOM)}"
        n = self.api.get(room, 0)
        body = json.dumps({"room": room, "content": {"c": "api", "n": n}, "id": str(uuid.uuid4())})
        headers = {"Authorization": f"Bearer {API_KEY}"}
        for _ in range(5):
            status, said = self.stage.ask("/v1/publish", "POST", body, headers)
            if status == 200:
                self.api[room] = n + 1
                return
            time.sleep(0.2)
        self.fault(f"the API answered {status}: {said}")

    def cut(self):
        self.clients.order(self.cut_by)
        self.cut_by = "reset" if self.cut_by == "cut" else "cut"

    def deafen(self):
        self.clients.order("deafen")
        self.stalled_until = self.now() + STALL_S

    def reload(self):
        rate = 1000 + self.reloads % 2
        (self.stage.dir / "server.toml").write_text(f"rate_messages = {rate}\n")
        if self.reloads % 2:
            self.stage.server.signal(signal.SIGHUP)
        else:
            headers = {"Authorization": f"Bearer {API_KEY}"}
            status, said = self.stage.ask("/v1/reload", "POST", "", headers)
            if status != 200:
                self.fault(f"a reload was answered {status}: {said}")
        self.reloads += 1

    def restart(self):
        print(f"{self.now():7.0f} s  restart", flush=True)
        self.keep_counters()
        self.stage.terminate()
        status = self.stage.ends()
        if status != 0:
            self.fault(f"the server ended with {status}")
        self.logs.append(self.stage.log())
        self.restarts.append(self.now())
        self.stage.start()

    def keep_counters(self):
        """Those of a process that is about to end, added to those before it."""
        stats = self.stage.stats()
        for name, value in stats.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.counters[name] = self.counters.get(name, 0) + value
        for route, figures in stats.get("handlers", {}).items():
            for name, value in figures.items():
                key = f"{route} {name}"
                self.counters[key] = self.counters.get(key, 0) + value
        self.counters["rejected"] = {**self.counters.get("rejected", {}), **stats["rejected"]}

    def sample(self):
        status, text = self.stage.ask("/metrics")
        if status != 200:
            return self.fault(f"/metrics answered {status}")
        pid = self.stage.server.pid
        row = {"s": round(self.now(), 1), "process": len(self.restarts)}
        row |= metrics(text)
        row |= {
            "rss_bytes": resident(pid),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "cpu_s server": cpu_s(pid),
            "cpu_s clients": cpu_s(self.clients.process.pid),
        }
        self.samples.append(row)
        if len(self.samples) % 12 == 0:
            self.write()

    def fault(self, words):
        print(f"{self.now():7.0f} s  {words}", flush=True)
        self.faults.append(words)

    def write(self):
        names = list(dict.fromkeys(name for row in self.samples for name in row))
        with open(OUT / "soak.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.samples)

    # What is said of it in the end.

    def judge(self):
        if self.stalled_until:
            self.clients.order("release")
        seen = self.guard(lambda: all_well(self.clients, 60, self.api)) or self.clients.seen()
        lists = self.clients.order("presence")
        if lists["wrongLists"]:
            self.fault(f"{lists['wrongLists']} lists of members are wrong")
        self.clients.order("close")
        self.guard(self.nothing_is_left)
        self.keep_counters()
        for name in NEVER:
            if self.counters.get(name):
                self.fault(f"{name} is {self.counters[name]}: {self.counters['rejected']}")
        self.judge_backend()
        self.stage.terminate()
        if status := self.stage.ends():
            self.fault(f"the server ended with {status}")
        self.logs.append(self.stage.log())
        warnings = self.judge_log()
        judged = self.judge_growth()
        self.write()
        return self.result(seen, warnings, judged)

    def guard(self, check):
        try:
            return check()
        except AssertionError as error:
            self.fault(str(error))

    def nothing_is_left(self):
        def left():
            stats = self.stage.stats()
            return {name: stats[name] for name in EMPTY if stats[name]}

        try:
            wait_for("end", lambda: not left())
        except AssertionError:
            raise AssertionError(f"without clients there is still {left()}") from None

    def judge_backend(self):
        counts = self.backend.counts
        for name in ("dropped", "not signed"):
            if counts[name]:
                self.fault(f"events or questions: {name} {counts[name]}")
        for name, value in self.counters.items():
            bad = ("failed", "timed_out", "pool_full", "circuit_open", "refused", "failed_batches")
            bad += ("events_dropped",)
            if name.startswith("/ws ") and name.endswith(bad) and value:
                self.fault(f"{name} is {value}")

    def judge_log(self):
        warnings = {}
        (OUT / "soak.log").write_text("".join(self.logs))
        for entry in "".join(self.logs).splitlines():
            said = json.loads(entry)
            if said["level"].upper() == "ERROR":
                self.fault(f"the log has: {said['message']}")
            if said["level"].upper() == "WARN":
                words = re.sub(r"\d+", "N", said["message"])
                warnings[words] = warnings.get(words, 0) + 1
        return warnings

    def judge_growth(self):
        """Figures of each stretch without a restart. Returns how many were held against it."""
        judged = 0
        for process in range(len(self.restarts) + 1):
            rows = [row for row in self.samples if row["process"] == process]
            if not rows or rows[-1]["s"] - rows[0]["s"] < STRETCH_S_MIN:
                continue
            start = rows[0]["s"] + (rows[-1]["s"] - rows[0]["s"]) * WARM_UP
            rows = [row for row in rows if row["s"] >= start]
            for name in gauges(rows[-1]):
                samples = [(row["s"], row[name]) for row in rows if name in row]
                judged += 1
                if said := growth.grows(name, samples):
                    self.fault(f"server {process + 1}: {said}")
        return judged

    def result(self, seen, warnings, judged):
        first, last = self.samples[0], self.samples[-1]
        cpu = {"server": 0.0, "clients": last["cpu_s clients"] - first["cpu_s clients"]}
        for earlier, later in zip(self.samples, self.samples[1:]):
            if earlier["process"] == later["process"]:
                cpu["server"] += later["cpu_s server"] - earlier["cpu_s server"]
        whole = last["s"] - first["s"]
        return {
            "minutes": round(self.seconds / 60, 1),
            "faults": self.faults,
            "restarts": len(self.restarts),
            "reloads": self.reloads,
            "clients": short(seen),
            "by_api": sum(self.api.values()),
            "events": dict(self.backend.counts),
            "warnings": warnings,
            "figures_judged": judged,
            "cpu_share": {who: round(s / whole, 3) for who, s in cpu.items()},
            "rss_mb": [round(pick(self.samples, "rss_bytes") / 1e6, 1) for pick in (least, most)],
            "descriptors": [pick(self.samples, "descriptors") for pick in (least, most)],
            "threads": [pick(self.samples, "threads") for pick in (least, most)],
            "late_turns": self.counters.get("late_turns", 0),
            "stalls": self.counters.get("stalls", 0),
        }


def least(samples, name):
    return min(row[name] for row in samples)


def most(samples, name):
    return max(row[name] for row in samples)


def metrics(text):
    """Gauges of an answer of `/metrics`, and the counters that the picture needs."""
    kinds, found = {}, {}
    for entry in text.splitlines():
        if entry.startswith("# TYPE "):
            _, _, name, kind = entry.split()
            kinds[name] = kind
        elif entry and not entry.startswith("#"):
            name, value = entry.rsplit(" ", 1)
            kind = kinds.get(name.split("{")[0])
            if kind == "gauge" or name == "rusty_socks_deliveries_total" or "_waiting" in name:
                found[name.removeprefix("rusty_socks_")] = float(value)
    return found


# Beside the counters and the time itself, what has a course of its own.
NO_GAUGES = ("s", "process", "cpu_s server", "cpu_s clients", "deliveries_total", "uptime_seconds")


def gauges(row):
    return [name for name in row if name not in NO_GAUGES]


def resident(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def draw(samples, restarts, title):
    def series(name, scale):
        return [(row["s"] / 60, row[name] / scale) for row in samples if name in row]

    rates = [
        (
            later["s"] / 60,
            (later["deliveries_total"] - earlier["deliveries_total"]) / (later["s"] - earlier["s"]),
        )
        for earlier, later in zip(samples, samples[1:])
        if earlier["process"] == later["process"]
    ]
    panels = [
        lines.Panel("resident memory and the server's own account of it, MB", [
            ("resident", series("rss_bytes", 1e6)),
            ("account", series("memory_bytes", 1e6)),
        ]),
        lines.Panel("descriptors and threads", [
            ("descriptors", series("descriptors", 1)),
            ("threads", series("threads", 1)),
        ]),
        lines.Panel("connections, and sessions that are away", [
            ("connections", series("active_connections", 1)),
            ("away", series("sessions_away", 1)),
        ]),
        lines.Panel("histories and sessions, kB", [
            ("histories", series("history_bytes", 1e3)),
            ("sessions", series("session_bytes", 1e3)),
        ]),
        lines.Panel("deliveries a second", [("deliveries", rates)]),
    ]  # fmt: skip
    marks = [(at / 60, "restart") for at in restarts]
    return lines.Lines(title, "minutes", panels, marks).draw()


def main():
    parser = argparse.ArgumentParser(prog="scripts/soak.sh", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=30)
    parser.add_argument("--binary", type=Path, default=BINARY, help="default: %(default)s")
    parser.add_argument(
        "--modules", type=Path, help="where `ws` is installed: its clients ask for compression"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the picture there")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    with Backend(SECRET) as backend, Stage(options.binary) as stage:
        ca, stage.settings = settings(stage, backend)
        stage.start()
        clients = stage.clients(
            ca,
            clients=CLIENTS,
            roomSize=ROOM,
            everyMs=EVERY_MS,
            proxied=0.4,
            compressed=0.3 if options.modules else 0,
            modules=str(options.modules.resolve()) if options.modules else None,
            secret=SECRET,
            directEvery=5,
            historyEvery=10,
            tickMs=5000,
        )
        soak = Soak(stage, backend, clients, options.minutes)
        clients.order("go")
        soak.run()
        result = soak.judge()
    (OUT / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    if options.plot:
        title = f"{options.minutes:g} minutes with everything on"
        options.plot.write_text(draw(soak.samples, soak.restarts, title))
    print(json.dumps(result, indent=1))
    for words in soak.faults:
        print(f"FAILED: {words}")
    if not result["figures_judged"]:
        print("growth was NOT JUDGED: the time was too short", flush=True)
    print("all good" if not soak.faults else f"{len(soak.faults)} faults")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
