"""The laws that the measurements follow, and what they predict where nobody has measured.

A figure that was not measured raises `Missing`, and so does all that follows from it.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from bounds import default
from figures import OURS, Summary, dig
from page import Missing

US = 1e-6
PING_S = default("ping")


class Results:
    """The reports of all rounds, and what several of them say together. A figure is a path in a
    report, or a function of it."""

    def __init__(self, works):
        self.works = {work.spec: work.servers[OURS] for work in works}

    @property
    def rounds(self):
        return max((len(work.reports) for work in self.works.values()), default=0)

    def reports(self, name):
        return self.works[name].reports.values() if name in self.works else ()

    def summary(self, name, figure):
        return Summary.of(values(self.reports(name), figure)) or missing(name)

    def sweep(self, kind, figure):
        """Of the works `kind:X`, the summaries by X."""
        xs = [name.removeprefix(f"{kind}:") for name in self.works if name.startswith(f"{kind}:")]
        xs = sorted(int(x) for x in xs if x.isdigit())
        found = {x: Summary.of(values(self.reports(f"{kind}:{x}"), figure)) for x in xs}
        return {x: one for x, one in found.items() if one} or missing(kind)

    def ladder(self, name, figure):
        """Of a ladder, the summaries by connections. A function is given rung and report."""
        of_x = {}
        for report in self.reports(name):
            for rung in report["rungs"]:
                one = figure(rung, report) if callable(figure) else dig(rung, figure)
                of_x.setdefault(rung["connections"], []).extend([one] * (one is not None))
        return {x: Summary.of(of_x[x]) for x in sorted(of_x) if of_x[x]} or missing(name)


def values(reports, figure):
    take = figure if callable(figure) else lambda report: dig(report, figure)
    return [value for report in reports if (value := take(report)) is not None]


def missing(what):
    raise Missing(f"{what} was not measured")


# ---- Figures that a report has not as one number ----


def kernel_bytes(rung, _report):
    """What the kernel keeps for one end of one connection.

    What it can give back and what it cannot are counted apart. A socket's inode and its directory
    entry are among the former, with every file that anyone has looked at. So these two are taken by
    name, and of the entries no more than one for each end."""
    kernel, connections = rung["kernel"], rung["connections"]
    if kernel["unreclaimable_kib"] is None:
        return None
    entries = min(kernel["caches"].get("dentry", 0), 2 * 192 * connections)
    inodes = kernel["caches"].get("sock_inode_cache", 0)
    return (kernel["unreclaimable_kib"] * 1024 + inodes + entries) / connections / 2


def rss_bytes(rung, report):
    return (rung["rss_kib"] - report["rss_before_kib"]) * 1024


def kept_bytes(until, since):
    """How much larger each room made the server between two readings of a `keep`."""
    until, since = f"rss_{until}_kib", f"rss_{since}_kib"
    return lambda report: (report[until] - report[since]) * 1024 / report["rooms"]


# ---- Lines through them ----


@dataclass(frozen=True)
class Line:
    """y = fixed + each × x, or with the logarithm of x to base 10."""

    fixed: float
    each: float
    logarithmic: bool
    # The largest distance of a point from the line, as a part of the point.
    error: float = 0.0

    @classmethod
    def through(cls, points, logarithmic=False):
        """Through summaries by x, by least squares. A point counts by its distance as a part of its
        height, because over several decades the largest would otherwise be all that is fitted."""
        points = [(x, one.median) for x, one in points.items() if one.median]
        if len(points) < 2:
            missing("a second point of a line")
        scaled = [(math.log10(x) if logarithmic else x, y, 1 / y**2) for x, y in points]
        weights = sum(w for _, _, w in scaled)
        mean_x = sum(w * x for x, _, w in scaled) / weights
        mean_y = sum(w * y for _, y, w in scaled) / weights
        rise = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in scaled)
        each = rise / sum(w * (x - mean_x) ** 2 for x, _, w in scaled)
        found = cls(mean_y - each * mean_x, each, logarithmic)
        return cls(found.fixed, each, logarithmic, max(abs(found.at(x) - y) / y for x, y in points))

    def at(self, x):
        return self.fixed + self.each * (math.log10(x) if self.logarithmic else x)


def law(make):
    """A figure of `Laws` that is made once, from the results."""
    return cached_property(lambda laws: make(laws.results))


def last(points):
    return list(points.values())[-1].median


def middle(points):
    return sorted(one.median for one in points.values())[len(points) // 2]


class Laws:
    """Times in µs, memory in bytes."""

    def __init__(self, results):
        self.results = results

    # The server's memory by connections, and the kernel's for the server's end of one.
    rss_echo = law(lambda r: Line.through(r.ladder("memory-echo", rss_bytes)))
    rss_chat = law(lambda r: Line.through(r.ladder("memory-chat", rss_bytes)))
    kernel = law(lambda r: last(r.ladder("memory-chat", kernel_bytes)))
    connections_most = law(lambda r: max(r.ladder("memory-chat", rss_bytes)))
    # Of one more connection, in all threads and in the accepting one.
    connect = law(lambda r: middle(r.ladder("memory-chat", "connect.cpu_us_each")))
    acceptor = law(lambda r: middle(r.ladder("memory-chat", "connect.acceptor_cpu_us_each")))
    ping = law(lambda r: last(r.ladder("pings", "idle.cpu_us_per_ping")))
    # Of an echo, by connections.
    echo_all = law(lambda r: Line.through(r.ladder("echo", "all.cpu_us_per_message"), True))
    echo_few = law(lambda r: Line.through(r.ladder("echo", "few.cpu_us_per_message"), True))
    # Of a publish, by members, and of a delivery in the largest room, which no cache holds.
    publish = law(lambda r: Line.through(r.sweep("members", "cpu_us_per_publish")))
    members_most = law(lambda r: max(r.sweep("members", "cpu_us_per_publish")))
    delivery_far = law(lambda r: last(r.sweep("members", "cpu_us_per_delivery")))
    # Of a publish, by workers that have members in the room.
    letter = law(lambda r: Line.through(r.sweep("workers", "cpu_us_per_publish")))
    # Of a publish that nobody is sent, and of one to one member in a busy room.
    keep = law(lambda r: r.summary("keep:100:128", "cpu_us_per_publish").median)
    one_room = law(lambda r: r.summary("one-room", "cpu_us_per_publish").median)
    # Of an empty room with one member, and of a full history's bytes by what `/stats` counts.
    room_bytes = law(lambda r: r.summary("keep:0:1", kept_bytes("empty", "before")).median)
    history_ratio = law(
        lambda r: r.summary("keep:100:4096", kept_bytes("kept", "empty")).median
        / r.summary("keep:100:4096", lambda one: one["history_bytes"] / one["rooms"]).median
    )

    @cached_property
    def letter_us(self):
        """A worker more cannot make a publish cheaper: less than nothing is noise."""
        return max(self.letter.each, 0)

    @cached_property
    def posting_us(self):
        """The part of a letter that its sender pays, with the bell that wakes its reader."""

        # The connection that publishes is alone in doing so, and so its worker has the most to do.
        def own_part(report):
            if not report["workers_us"]:
                return None
            busiest = max(report["workers_us"])
            deliveries = report["members"] / len(report["workers_us"]) * self.publish.each
            publishes = report["publishes"] + report["warmup_publishes"]
            return max(busiest / publishes - deliveries, 0.001)

        posting = Line.through(self.results.sweep("workers", own_part))
        return min(max(posting.each, 0), self.letter_us)

    @property
    def connection_bytes(self):
        return self.rss_chat.each + self.kernel

    def echo_at(self, connections):
        """Beyond the points an echo does not get cheaper, whatever the noise says."""
        return max(self.echo_all.at(connections), self.echo_all.at(self.connections_most))

    @property
    def deliveries_per_s(self):
        return 1 / (self.publish.each * US)

    # ---- What several cores give: the letters are lost, the rest is taken to divide. ----

    def publish_cpu(self, members, workers):
        """All CPU time of one publish, in all workers together."""
        letters = workers_with_members(members, workers) - 1
        return self.publish.at(members) + self.letter_us * letters

    def publishes_per_s(self, members, cores):
        """Into many rooms, all cores busy."""
        return cores / (self.publish_cpu(members, cores) * US)

    def efficiency(self, members, cores):
        return self.publish.at(members) / self.publish_cpu(members, cores)

    def one_room_per_s(self, members, cores):
        """Into one room. Its lock is held for one publish at a time: at most for as long as all
        that one costs to which nobody listens, and all that the sender of its letters pays. And
        each worker must keep up with its part."""
        locked = self.keep + self.posting_us * (workers_with_members(members, cores) - 1)
        return 1 / (max(locked, self.publish_cpu(members, cores) / cores) * US)

    def last_member_s(self, members, cores):
        """From a publish until the kernel has it for the last member."""
        with_members = workers_with_members(members, cores)
        posting = self.publish.fixed + self.posting_us * (with_members - 1)
        reading = self.letter_us - self.posting_us if with_members > 1 else 0
        each = self.delivery_far if members >= self.members_most else self.publish.each
        return (posting + reading + each * members / with_members) * US

    def connects_per_s(self, cores):
        if cores == 1:
            return 1 / (self.connect * US)
        # One core for the one thread that accepts, the others for what follows.
        return min(1 / (self.acceptor * US), (cores - 1) / ((self.connect - self.acceptor) * US))


def workers_with_members(members, workers):
    """How many of the workers have one of so many members, each of which may be anywhere."""
    return workers * (1 - (1 - 1 / workers) ** members)
