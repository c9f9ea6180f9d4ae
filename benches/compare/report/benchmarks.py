"""docs/benchmarks.md: Rusty Socks beside its peers, and the bars of each work."""

import page
from chart import Panel, bars
from figures import FLOOR, NO_PEERS, OURS, SATURATED, SERVERS, TWO_THREADS, Ratio
from page import prose, spread, table

BUSY = ("echo", "rooms", "fanout")

# The picture at the top: of the first work of a kind one figure, which less is better of.
OPENING = (
    ("echo", "cpu_us_per_message"),
    ("fanout", "cpu_us_per_delivery"),
    ("idle", "kib_per_connection"),
    ("idle", "cpu_us_per_connect"),
)


# Tables that programs of their own have measured, in the order of the page.
ASIDES = {
    "tls": (
        "With TLS",
        """Each server with TLS and without, in the same minutes (`benches/compare/tls.py`): CPU time
        of an echo, of a delivery to one of 1,000, and of a connection that is opened; the memory of
        an idle session; and the p99 of the round trips of those inside, when nobody and when 500 a
        second connect. In brackets what TLS multiplies.""",
    ),
    "nodes": (
        "Several servers on one Redis",
        """One server without Redis, and 1, 2 and 3 that share one (`benches/compare/nodes.py`), on
        one core together, with one worker each; Redis and the load tool have the other. *Wrong* is
        what was lost or came twice.""",
    ),
}


def write(works, about, out, tables):
    drawings = {work.name: drawing for work in works if (drawing := draw(work))}
    if drawing := draw_opening(works):
        drawings["opening"] = drawing
    page.write(out, "benchmarks", render(works, about, tables), drawings)


def render(works, about, tables):
    """The parts of the page."""
    slices = max((len(one.reports) for work in works for one in work.servers.values()), default=0)
    measured = (
        f"up to {slices} of each server, taking turns; figures are medians, in brackets the middle "
        "half (of fewer than 8: all)"
    )
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    few = slices < 6 and f"Only {slices} slices: there is little to judge a difference by."
    failed = [
        f"{server.title} in *{work.title}* ({server.failures}×)"
        for work in works
        for server in work.in_order()
        if server.failures
    ]
    return [
        "# Benchmarks",
        prose("""Written by `scripts/compare.sh`, not by hand.
            [benches/compare/README.md](../benches/compare/README.md) says how the figures are made,
            and what they do not say."""),
        draw_opening(works) and f"![{OPENING_TITLE}](benchmarks/opening.svg)",
        page.caution(about, few, failed),
        "## Where Rusty Socks loses",
        prose("""× says how many times better the other server is. The brackets hold the interval
            that has the true ratio in it with 95 % (of fewer than 6 measurements: all of them)."""),
        verdicts(works, lost=True),
        "## In short",
        summary(works),
        "## Where Rusty Socks wins",
        "× says how many times better Rusty Socks is.",
        verdicts(works, lost=False),
        "## How it was measured",
        page.facts(about, ("slices", measured), ("versions", versions)),
        "## Each work",
        *(section(work) for work in works),
        two_threads(works),
        *(aside(name, tables[name]) for name in ASIDES if name in tables),
        "## Commands",
        page.commands("scripts/compare.sh", [commands(work) for work in works]),
    ]


OPENING_TITLE = "What a message, a delivery and a connection cost: less is better"


def draw_opening(works):
    """One picture of what everybody costs. Nothing, where there is nobody to compare with."""
    panels, shown = [], set()
    for kind, path in OPENING:
        work = next((work for work in works if work.kind == kind and work.peers()), None)
        metric = work and next((metric for metric in work.metrics if metric.path == path), None)
        if metric:
            panels.append((work, metric))
            shown |= {name for name, one in work.servers.items() if one.summary(path)}
    names = [name for name in SERVERS if name in shown and (name == OURS or name not in NO_PEERS)]
    if not panels or len(names) < 2:
        return None
    rows = [(SERVERS[name], "ours" if name == OURS else "peer") for name in names]
    drawn = [
        Panel(
            metric.named,
            work.short,
            [one.summary(metric.path) if (one := work.servers.get(name)) else None for name in names],
        )
        for work, metric in panels
    ]
    return bars(OPENING_TITLE, rows, drawn)


def summary(works):
    present = {server.name for work in works for server in work.peers() if server.reports}
    names = [name for name in SERVERS if name in present]
    if any(work.servers.get(FLOOR) for work in works):
        names.append(FLOOR)
    rows = []
    for work, metric, ours, mine in headlines(works):
        if work.peers():
            cells = [cell(work, metric, ours, name) for name in names]
            rows.append([work.short, metric.label, metric.shown(mine.median), *cells])
    if not rows or not names:
        return "There is nobody to compare with."
    explained = prose("""
        Each cell says how many times better Rusty Socks is than that peer: **above 1 it is ahead,
        below 1 it is behind** (bold). It is the median of the slices' ratios. In brackets: it is
        less than 95 % sure on which side of 1 the ratio lies, or the ratio is within 5 % of 1, so
        nothing is claimed. The floor is TCP without a protocol and no peer: it says how much there
        is left to gain.""")
    header = ["work", "figure", "Rusty Socks", *(SERVERS[name] for name in names)]
    return explained + "\n\n" + table(header, rows)


def headlines(works, all_figures=False):
    """Each figure of ours that is in the summary, or all: work, metric, server and summary."""
    for work in works:
        ours = work.servers.get(OURS)
        for metric in work.metrics if ours else []:
            mine = ours.summary(metric.path)
            if mine and (metric.headline or all_figures):
                yield work, metric, ours, mine


def cell(work, metric, ours, name):
    ratio = Ratio.of(metric, ours, work.servers[name]) if name in work.servers else None
    if ratio is None:
        return "–"
    text = f"{ratio.median:.2f}" if ratio.median < 9.95 else f"{ratio.median:.0f}"
    if not ratio.is_told:
        return f"({text})"
    return f"**{text}**" if ratio.median < 1 and name != FLOOR else text


def verdicts(works, lost):
    """What is clear, work by work: against whom, and how much. A loss is told in every figure."""
    lines = []
    for work, metric, ours, mine in headlines(works, all_figures=lost):
        against = []
        for peer in work.peers():
            ratio = Ratio.of(metric, ours, peer)
            if ratio and ratio.is_told and (ratio.median < 1) == lost:
                shares = (ratio.low, ratio.median, ratio.high)
                low, middle, high = sorted(1 / share if lost else share for share in shares)
                against.append(f"{peer.title} ×{middle:.2f} ({low:.2f}–{high:.2f})")
        if against:
            figure = f"{work.short}, {metric.label}, {metric.shown(mine.median)}"
            lines.append(f"- {figure}: {', '.join(against)}")
    if lines:
        return prose("\n".join(lines))
    return "Nowhere that these slices are sure of."


def measured(work):
    """The servers of a work that have a table and bars, and the metrics that any of them has."""
    servers = [one for one in work.in_order() if one.name not in TWO_THREADS and one.reports]
    return servers, [m for m in work.metrics if any(server.summary(m.path) for server in servers)]


def draw(work):
    """A panel for each plotted metric. Nothing, where there is nobody to compare with."""
    servers, metrics = measured(work)
    panels = [
        Panel(
            metric.named,
            "more is better" if metric.more_is_better else "less is better",
            [server.summary(metric.path) for server in servers],
        )
        for metric in metrics
        if metric.plotted
    ]
    styles = {OURS: "ours", FLOOR: "floor"}
    rows = [(server.title, styles.get(server.name, "peer")) for server in servers]
    return bars(work.title, rows, panels) if len(servers) > 1 and panels else None


def section(work):
    servers, metrics = measured(work)
    if not servers:
        return ""
    parts = [f"### {work.title}"]
    if draw(work):
        parts.append(f"![{work.title}: bars for each server](benchmarks/{work.name}.svg)")
    if len(servers) == 1:
        # One server and many figures read better downwards.
        rows = [[metric.named, spread(servers[0].summary(metric.path))] for metric in metrics]
        return "\n\n".join([*parts, table(["", servers[0].title], rows)])
    is_busy = work.kind in BUSY
    rows = [
        [f"**{server.title}**" if server.name == OURS else server.title]
        + [spread(server.summary(metric.path)) for metric in metrics]
        + [busy(server)] * is_busy
        for server in servers
    ]
    header = ["server", *(metric.named for metric in metrics), *["busy: server, driver"] * is_busy]
    parts += [table(header, rows), delivered(servers)]
    if is_busy and any("†" in row[-1] for row in rows):
        parts.append(prose("""
            † The server was not saturated: the driver was the slower side, or another program took
            the core. Its throughput is not its limit, and its CPU time counts more wake-ups than at
            full load."""))
    return "\n\n".join(part for part in parts if part)


def busy(server):
    theirs, drivers = server.summary("server_busy"), server.summary("driver_busy")
    if theirs is None or drivers is None:
        return "–"
    return f"{theirs.median:.2f}, {drivers.median:.2f}" + (" †" if theirs.median < SATURATED else "")


def delivered(servers):
    """A server that sends more bytes than it was given does more work, and a reader must know."""
    sizes = {}
    for server in servers:
        if size := server.summary("delivered_bytes"):
            sizes.setdefault(round(size.median), []).append(server.title)
    listed = "; ".join(f"{size} B from {', '.join(titles)}" for size, titles in sorted(sizes.items()))
    return page.wrapped(f"A delivery has {listed}.") if len(sizes) > 1 else ""


def two_threads(works):
    rows = []
    for work in works:
        metric = next((metric for metric in work.metrics if metric.headline), None)
        for double, single in TWO_THREADS.items() if metric else []:
            both = [work.servers.get(name) for name in (single, double)]
            ratio = Ratio.of(metric, *both) if None not in both else None
            if ratio is None:
                continue
            shown = [metric.shown(server.summary(metric.path).median) for server in both]
            told = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
            rows.append([SERVERS[single], work.short, metric.label, *shown, told])
    if not rows:
        return ""
    text = prose("""
        ### One thread against two

        The same work with two workers or runtime threads, pinned as the table at the top says. On
        one core the second thread has nothing to gain, and the ratio shows its price: letters
        between the workers, and smaller batches in each.""")
    return text + "\n\n" + table(["server", "work", "figure", "one", "two", "ratio"], rows)


def aside(name, measured):
    title, explained = ASIDES[name]
    return f"## {title}\n\n{prose(explained)}\n\n{measured.strip()}"


def commands(work):
    pairs = [(one.server_command + " &", one.driver_command) for one in work.in_order() if one.reports]
    return [f"# {work.title}", *(line for pair in pairs for line in pair)]
