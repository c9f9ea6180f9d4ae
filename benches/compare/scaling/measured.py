"""What was measured: the reports of all rounds, and what several of them say together."""

import json
from dataclasses import dataclass, field

from figures import Summary, dig


@dataclass
class Work:
    reports: list = field(default_factory=list)
    failures: int = 0
    server_command: str = ""
    driver_command: str = ""


@dataclass
class Results:
    works: dict

    @classmethod
    def read(cls, path):
        works = {}
        with open(path) as lines:
            for line in lines:
                entry = json.loads(line)
                work = works.setdefault(entry["work"], Work())
                if entry.get("failed"):
                    work.failures += 1
                    continue
                work.reports.append(entry["report"])
                work.server_command = entry["server_command"]
                work.driver_command = entry["driver_command"]
        return cls(works)

    @property
    def rounds(self):
        return max((len(work.reports) for work in self.works.values()), default=0)

    def summary(self, name, figure):
        """Over the rounds. `figure` is a path in the report, or a function of it."""
        work = self.works.get(name)
        take = figure if callable(figure) else lambda report: dig(report, figure)
        values = [value for report in work.reports if (value := take(report)) is not None] if work else []
        return Summary.of(values)

    def sweep(self, kind, figure):
        """The works `kind:X`, as X and summary, in the order of X."""
        found = []
        for name in self.works:
            before, _, at = name.partition(":")
            if before == kind and at.isdigit() and (summary := self.summary(name, figure)):
                found.append((int(at), summary))
        return sorted(found, key=lambda point: point[0])

    def ladder(self, name, figure):
        """The rungs of a ladder, as connections and summary. `figure` may be a function of rung and report."""
        work = self.works.get(name)
        values = {}
        for report in work.reports if work else []:
            for rung in report["rungs"]:
                value = figure(rung, report) if callable(figure) else dig(rung, figure)
                if value is not None:
                    values.setdefault(rung["connections"], []).append(value)
        return [(connections, Summary.of(of)) for connections, of in sorted(values.items())]


def medians(points):
    return [(x, summary.median) for x, summary in points]


def per_publish(report):
    """CPU time of a publish, in µs, where the driver says what a delivery costs."""
    each = report["cpu_us_per_delivery"]
    return each * report["deliveries"] / report["messages"] if each is not None else None


def kernel_bytes(rung, _report):
    """What the kernel keeps for one end of one connection.

    What it can give back and what it cannot are counted apart: a socket's inode and its directory entry are among
    the former, with every file that anyone has looked at. So these two are taken by name, and of the entries no
    more than one for each end."""
    kernel, connections = rung["kernel"], rung["connections"]
    if kernel["unreclaimable_kib"] is None:
        return None
    entries = min(kernel["caches"].get("dentry", 0), 2 * 192 * connections)
    inodes = kernel["caches"].get("sock_inode_cache", 0)
    both_ends = kernel["unreclaimable_kib"] * 1024 + inodes + entries
    return both_ends / connections / 2


def rss_bytes(rung, report):
    return (rung["rss_kib"] - report["rss_before_kib"]) * 1024
