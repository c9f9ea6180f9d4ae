"""docs/benchmarks.md."""

from figures import (
    FLOOR,
    OURS,
    SATURATED,
    SERVERS,
    TWO_THREADS,
    Ratio,
    bytes_,
    thousands,
)
from plot import draw, number
from table import spread, table

BUSY = ("echo", "rooms", "fanout")


def render(works, about):
    slices = max((len(server.reports) for work in works for server in work.servers.values()), default=0)
    parts = [
        "# Benchmarks",
        "Written by `scripts/compare.sh`, not by hand. How the figures are made, and what they do not say: "
        "[benches/compare/README.md](../benches/compare/README.md).",
        facts(about, slices),
        caution(works, about, slices),
        "## In short",
        summary(works),
        "## Where Rusty Socks loses",
        "× says how many times better the other one is, and between what it lies with 95 % (of fewer than 6 "
        "measurements: all).",
        verdicts(works, lost=True),
        "## Where Rusty Socks wins",
        "× says how many times better Rusty Socks is.",
        verdicts(works, lost=False),
        "## Each work",
        *(section(work) for work in works if any(server.reports for server in work.servers.values())),
        two_threads(works),
        "## Commands",
        commands(works),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plot_name(work):
    return work.spec.replace(":", "-") + ".svg"


def facts(about, slices):
    rows = [
        ("when", about["date"]),
        ("commit", f"`{about['commit']}`"),
        ("processor", f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB"),
        ("kernel", about["kernel"]),
        ("pinned to", ", ".join(f"{what}: core {core}" for what, core in about["pins"].items())),
        (
            "slices",
            f"up to {slices} of each server, taking turns; figures are medians, in brackets the middle half "
            "(of fewer than 8: all)",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ]
    return table(["", ""], [[name, value] for name, value in rows])


def caution(works, about, slices):
    """What a reader must know before believing any of it."""
    said = []
    if slices < 6:
        said.append(f"Only {slices} slice{'s' * (slices != 1)}: there is little to judge a difference by.")
    if about["busy_at_start"] > 0.1:
        said.append(
            f"The machine was not quiet: {about['busy_at_start']:.1f} of its cores were busy when this began. "
            "Wall-clock figures and latencies are those of a busy machine."
        )
    failed = [
        f"{server.title} in *{work.title}* ({server.failures}×)"
        for work in works
        for server in work.in_order()
        if server.failures
    ]
    if failed:
        said.append("Failed: " + "; ".join(failed) + ".")
    if not said:
        return ""
    return "\n".join(["> **Caution.**", *(f"> {line}" for line in said)])


def summary(works):
    present = {server.name for work in works for server in work.peers() if server.reports}
    names = [name for name in SERVERS if name in present]
    if any(work.servers.get(FLOOR) for work in works):
        names.append(FLOOR)
    rows = []
    for work in works:
        ours = work.servers.get(OURS)
        if ours is None or not work.peers():
            continue
        for metric in work.metrics:
            mine = ours.summary(metric.path)
            if not metric.headline or mine is None:
                continue
            cells = [cell(work, metric, ours, name) for name in names]
            rows.append([short(work), metric.label, with_unit(mine.median, metric), *cells])
    if not rows or not names:
        return "There is nobody to compare with."
    explained = (
        "Each cell says how many times better Rusty Socks is than that peer: **above 1 it is ahead, below 1 it is "
        "behind** (bold). It is the median of the slices' ratios. In brackets: it is not 95 % sure on which side of 1 "
        "it lies, or it is within 5 %, so nothing is claimed. The floor is TCP without a protocol and no peer: "
        "it says how much there is left to gain."
    )
    header = ["work", "figure", "Rusty Socks", *(SERVERS[name] for name in names)]
    return explained + "\n\n" + table(header, rows)


def cell(work, metric, ours, name):
    ratio = Ratio.of(metric, ours, work.servers[name]) if name in work.servers else None
    if ratio is None:
        return "–"
    text = f"{ratio.median:.2f}" if ratio.median < 9.95 else f"{ratio.median:.0f}"
    if not ratio.is_told:
        return f"({text})"
    return f"**{text}**" if ratio.median < 1 and name != FLOOR else text


def verdicts(works, lost):
    """What is clear, work by work: against whom, and by how much."""
    lines = []
    for work in works:
        ours = work.servers.get(OURS)
        if ours is None:
            continue
        for metric in work.metrics:
            # A loss is told in every figure. A win has the summary, and here its numbers.
            if not lost and not metric.headline:
                continue
            mine = ours.summary(metric.path)
            against = []
            for peer in work.peers():
                ratio = Ratio.of(metric, ours, peer)
                if ratio and ratio.is_told and (ratio.median < 1) == lost:
                    times = sorted((one if ratio.median > 1 else 1 / one) for one in (ratio.low, ratio.median, ratio.high))
                    against.append(f"{peer.title} ×{times[1]:.2f} ({times[0]:.2f}–{times[2]:.2f})")
            if against:
                lines.append(
                    f"- {short(work)}, {metric.label}, {with_unit(mine.median, metric)}: " + ", ".join(against)
                )
    if lines:
        return "\n".join(lines)
    if lost:
        return "Nowhere, as far as these slices can tell."
    return "Nowhere that these slices are sure of."


def section(work):
    parts = [f"### {work.title}"]
    if draw(work):
        parts.append(f"![{work.title}: bars for each server](benchmarks/{plot_name(work)})")
    servers = [server for server in work.in_order() if server.name not in TWO_THREADS]
    if not any(server.reports for server in servers):
        return ""
    metrics = [m for m in work.metrics if any(server.summary(m.path) for server in servers)]
    if len(servers) == 1:
        # One server and many figures read better downwards.
        rows = [[named(m), spread(servers[0].summary(m.path))] for m in metrics]
        return "\n\n".join([*parts, table(["", servers[0].title], rows)])
    rows = []
    for server in servers:
        row = [f"**{server.title}**" if server.name == OURS else server.title]
        row += [spread(server.summary(m.path)) for m in metrics]
        if work.kind in BUSY:
            row.append(busy(server))
        rows.append(row)
    header = ["server", *(named(m) for m in metrics)]
    if work.kind in BUSY:
        header.append("busy: server, driver")
    parts.append(table(header, rows))
    notes = delivered(work, servers)
    if work.kind in BUSY and any("†" in row[-1] for row in rows):
        notes.append(
            "† The server was not saturated: the driver was the slower side, or another program took the core. "
            "Its throughput is not its limit, and its CPU time counts more wake-ups than at full load."
        )
    return "\n\n".join([*parts, *notes])


def busy(server):
    theirs, drivers = server.summary("server_busy"), server.summary("driver_busy")
    if theirs is None or drivers is None:
        return "–"
    return f"{theirs.median:.2f}, {drivers.median:.2f}" + (" †" if theirs.median < SATURATED else "")


def delivered(work, servers):
    """Who sends more bytes than it was given does more work, and a reader must know."""
    sizes = {}
    for server in servers:
        size = server.summary("delivered_bytes")
        if size:
            sizes.setdefault(round(size.median), []).append(server.title)
    if len(sizes) < 2:
        return []
    listed = "; ".join(f"{size} B from {', '.join(titles)}" for size, titles in sorted(sizes.items()))
    return [f"A delivery has {listed}."]


def two_threads(works):
    rows = []
    for work in works:
        metric = next((m for m in work.metrics if m.headline), None)
        if metric is None:
            continue
        for double, single in TWO_THREADS.items():
            both = [work.servers.get(name) for name in (single, double)]
            ratio = Ratio.of(metric, *both) if None not in both else None
            if ratio is None:
                continue
            rows.append(
                [SERVERS[single], short(work), metric.label]
                + [with_unit(server.summary(metric.path).median, metric) for server in both]
                + [f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"]
            )
    if not rows:
        return ""
    text = (
        "### One thread against two\n\nThe same work with two workers or runtime threads, pinned as the table at the "
        "top says. On one core the second thread has nothing to gain, and what is seen is its price: letters between "
        "the workers, and smaller batches in each."
    )
    return text + "\n\n" + table(["server", "work", "figure", "one", "two", "ratio"], rows)


def commands(works):
    """Every command, as it was run; PORT and PID differ each time."""
    lines = ["`scripts/compare.sh` ran these, each server with a port of its own, and its driver again and again:", "", "```sh"]
    for work in works:
        lines.append(f"# {work.title}")
        for server in work.in_order():
            if server.reports:
                lines += [f"{server.server_command} &", f"{server.driver_command}"]
        lines.append("")
    lines[-1] = "```"
    return "\n".join(lines)


def short(work):
    match work.spec.split(":"):
        case ["echo", size, depth, count]:
            return f"echo {bytes_(size)}, {depth} × {count}"
        case ["rooms", rooms, members, _]:
            return f"rooms {rooms} × {members}"
        case ["paced", rooms, members, pace]:
            return f"rooms {rooms} × {members}, {thousands(pace)}/s"
        case ["fanout", members]:
            return f"fan-out to {thousands(members)}"
        case ["idle", count]:
            return f"{thousands(count)} connections"
    return work.title


def named(metric):
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def with_unit(value, metric):
    if metric.unit == "µs" and value >= 1e4:
        return f"{number(value / 1e3)} ms"
    return number(value) + (f" {metric.unit}" if metric.unit else "")
