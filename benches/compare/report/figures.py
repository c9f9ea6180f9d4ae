"""The measurements: what was measured in which work, and what all slices of it say together."""

import json
from dataclasses import dataclass, field
from math import comb
from statistics import median, quantiles

from page import number

# How each server is called on the page, in the order of its tables.
SERVERS = {
    "rusty": "Rusty Socks",
    "tokio": "tokio-tungstenite",
    "tokio-forward": "tokio-tungstenite, forward",
    "tokio-tuned": "tokio-tungstenite, tuned",
    "fastwebsockets": "fastwebsockets",
    "axum": "axum",
    "ws": "ws (Node)",
    "uwebsockets": "uWebSockets (Node)",
    "floor": "floor (TCP, no protocol)",
    "rusty-raw": "Rusty Socks, no chat protocol",
    "rusty-2": "Rusty Socks, 2 workers",
    "tokio-2": "tokio-tungstenite, 2 threads",
}
OURS = "rusty"
FLOOR = "floor"
# Who is no competitor: the floor has no protocol, and the others are the same servers again.
NO_PEERS = {OURS, FLOOR, "rusty-raw", "rusty-2", "tokio-2"}
# What is compared in a section of its own.
TWO_THREADS = {"rusty-2": "rusty", "tokio-2": "tokio"}
# Less than this between two servers is not worth a word, however sure it is.
WORTH_TELLING = 1.05
# A server less busy than this waited for the driver, or for another program.
SATURATED = 0.85


@dataclass(frozen=True)
class Metric:
    """A figure in the driver's report. `path` has a dot where it is nested."""

    path: str
    label: str
    unit: str = ""
    more_is_better: bool = False
    # In the summary, and drawn.
    headline: bool = False
    plotted: bool = False

    @property
    def named(self):
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def shown(self, value):
        if self.unit == "µs" and value >= 1e4:
            return f"{number(value / 1e3)} ms"
        return f"{number(value)} {self.unit}".rstrip()


def latencies(where="latency", what="latency"):
    return [
        Metric(f"{where}.p50_us", f"{what} p50", "µs"),
        Metric(f"{where}.p99_us", f"{what} p99", "µs", headline=where == "latency", plotted=True),
        Metric(f"{where}.p999_us", f"{what} p99.9", "µs"),
    ]


def cpu(path, label):
    return Metric(path, label, "µs", headline=True, plotted=True)


def rate(path, label):
    return Metric(path, label, more_is_better=True, headline=True, plotted=True)


METRICS = {
    "echo": [cpu("cpu_us_per_message", "CPU per message"), rate("messages_per_s", "messages/s"), *latencies()],
    "rooms": [
        cpu("cpu_us_per_publish", "CPU per publish"),
        Metric("cpu_us_per_delivery", "CPU per delivery", "µs"),
        rate("deliveries_per_s", "deliveries/s"),
        *latencies(),
    ],
    "fanout": [
        cpu("cpu_us_per_delivery", "CPU per delivery"),
        rate("deliveries_per_s", "deliveries/s"),
        *latencies(),
        Metric("last_member.p50_us", "last member p50", "µs"),
    ],
    "idle": [
        Metric("kib_per_connection", "RSS per connection", "KiB", headline=True, plotted=True),
        rate("connects_per_s", "connects/s"),
        cpu("cpu_us_per_connect", "CPU per connect"),
        *latencies("opening", "opening")[:2],
    ],
    "presence": [
        Metric(f"{side}.{path}", f"{side}: {label}", unit)
        for side in ("join", "leave")
        for path, label, unit in (
            ("per_s", "a second", ""),
            ("cpu_us_each", "CPU each", "µs"),
            ("cpu_us_per_notice", "CPU per notice", "µs"),
            ("latency.p99_us", "answer p99", "µs"),
            ("notices_missing", "notices missing", ""),
        )
    ],
    "hold": [
        Metric("opening_s", "opened in", "s"),
        Metric("ended", "ended by the server"),
        *(
            Metric(f"health_while_{when}.{path}", f"health while {when}, {label}", "ms")
            for when in ("opening", "held")
            for path, label in (("p50_ms", "p50"), ("p99_ms", "p99"), ("max_ms", "max"))
        ),
    ],
}
METRICS["chat-idle"] = METRICS["idle"]
# The throughput is what was asked for.
METRICS["paced"] = [metric for metric in METRICS["rooms"] if metric.path != "deliveries_per_s"]


# From so many measurements on, their middle half is their spread; of fewer all are.
QUARTERS_FROM = 8
# How sure a win or a loss is, at least.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """One figure over all slices."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        if not values:
            return None
        if len(values) < QUARTERS_FROM:
            return cls(median(values), min(values), max(values))
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    def times(self, factor):
        return Summary(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Ratio:
    """How many times better the one server is than the other: above 1 it is ahead, below 1 behind.

    Slice by slice, because what disturbs a slice lasts longer than that and falls on both. The
    median lies between `low` and `high` with CONFIDENCE, by the sign test, where there are slices
    enough for that; else they are the least and the most.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, metric, ours, theirs):
        mine, others = ours.values(metric.path), theirs.values(metric.path)
        pairs = [(mine[key], others[key]) for key in mine.keys() & others.keys()]
        ratios = sorted(
            one / other if metric.more_is_better else other / one for one, other in pairs if one > 0 and other > 0
        )
        if not ratios:
            return None
        skip = skipped(len(ratios))
        return cls(median(ratios), ratios[skip], ratios[-1 - skip])

    @property
    def is_told(self):
        is_sure = self.low > 1 or self.high < 1
        return is_sure and max(self.median, 1 / self.median) >= WORTH_TELLING


def skipped(count):
    """How many of `count` sorted values may be left out at each end of an interval for the median."""
    skip, outside = 0, 0.0
    while skip < count // 2:
        outside += 2 * comb(count, skip) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        skip += 1
    # One less than are unlikely to lie beyond it, and none at all where nothing is unlikely.
    return max(skip - 1, 0)


@dataclass
class Server:
    name: str
    # By slice.
    reports: dict = field(default_factory=dict)
    failures: int = 0
    server_command: str = ""
    driver_command: str = ""

    @property
    def title(self):
        return SERVERS.get(self.name, self.name)

    def values(self, path):
        found = ((key, dig(report, path)) for key, report in self.reports.items())
        return {key: value for key, value in found if value is not None}

    def summary(self, path):
        return Summary.of(list(self.values(path).values()))


@dataclass
class Work:
    """`spec` is as in WORKS of the script, such as `echo:128:1:64`."""

    spec: str
    servers: dict = field(default_factory=dict)

    @property
    def kind(self):
        return self.spec.split(":")[0]

    @property
    def name(self):
        """That of its drawing."""
        return self.spec.replace(":", "-")

    @property
    def metrics(self):
        return METRICS[self.kind]

    @property
    def title(self):
        return self.titles()[0]

    @property
    def short(self):
        return self.titles()[1] or self.title

    def titles(self):
        """The whole title, and a short one for works that are in the summary."""
        match self.spec.split(":"):
            case ["echo", size, depth, n]:
                each = f"{depth} in flight on each of {n} connections"
                return f"Echo of {bytes_(size)}, {each}", f"echo {bytes_(size)}, {depth} × {n}"
            case ["rooms", rooms, members, window]:
                where = f"{rooms} rooms of {members} members"
                return f"{where}, {window} publish on its way in each", f"rooms {rooms} × {members}"
            case ["paced", rooms, members, pace]:
                short = f"rooms {rooms} × {members}, {thousands(pace)}/s"
                return f"{rooms} rooms of {members} members, {thousands(pace)} publishes a second", short
            case ["fanout", n]:
                return f"Fan-out of 128 B to {thousands(n)} members", f"fan-out to {thousands(n)}"
            case ["fanout", n, size, window, *apart]:
                title = f"Fan-out of {bytes_(size)} to {thousands(n)} members, {window} publishes in flight"
                title += ", each in a write of its own" * bool(apart)
                return title, f"fan-out of {bytes_(size)} to {thousands(n)}, {window} in flight" + " apart" * bool(apart)
            case ["idle", n]:
                short = f"{thousands(n)} connections"
                return f"{short}, opened and left idle", short
            case ["chat-idle", n]:
                return f"{thousands(n)} connections in the chat, opened and left idle", ""
            case ["presence", n]:
                return f"{thousands(n)} members of one room who see each other come and go", ""
            case ["hold", n]:
                return f"{thousands(n)} connections held on four workers", ""
        return self.spec, ""

    def peers(self):
        return [server for server in self.in_order() if server.name not in NO_PEERS]

    def in_order(self):
        order = list(SERVERS)
        return sorted(self.servers.values(), key=lambda server: order.index(server.name))


def dig(report, path):
    for key in path.split("."):
        report = report.get(key) if isinstance(report, dict) else None
    return report


def bytes_(text):
    size = int(text)
    return f"{size // 1024} KiB" if size >= 1024 and size % 1024 == 0 else f"{size} B"


def thousands(text):
    return f"{int(text):,}"


def read(path):
    """The works in the order in which they were done."""
    works = {}
    with open(path) as lines:
        for line in lines:
            entry = json.loads(line)
            work = works.setdefault(entry["work"], Work(entry["work"]))
            server = work.servers.setdefault(entry["server"], Server(entry["server"]))
            if entry.get("failed"):
                server.failures += 1
                continue
            server.reports[entry["slice"]] = entry["report"]
            server.server_command = entry["server_command"]
            server.driver_command = entry["driver_command"]
    return list(works.values())
