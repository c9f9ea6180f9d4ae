"""docs/scaling.md: what was measured, the laws that it follows, and what they predict. The text is in
scaling.md beside this file; here is what its braces name."""

from pathlib import Path

import page
from bounds import constant, default, most
from chart import Plot, Series
from figures import Summary
from model import PING_S, US, Laws, Results, workers_with_members
from model import kept_bytes, kernel_bytes, missing, rss_bytes, values
from page import count, known, number, rough, size, spread, table, time, us

CORES = (1, 16, 64)
# Above this a line is not what the points do, and the reader is told.
ERROR_TOLD = 0.25
# The server's own bounds. A sweep takes so many rooms, once a second.
BACKLOG = constant("src/pool/listener.rs", "BACKLOG")
HANDOFF_MAX = constant("src/pool/acceptor.rs", "HANDOFF_MAX")
SWEEP_ROOMS_A_S = constant("src/hub/rooms.rs", "SWEEP_ROOMS_MAX")
MAX_CONN, MAX_CONN_MOST = default("max_conn"), most("max_conn")
MAX_QUEUED_TASKS, MAX_PENDING_HEADS = default("max_queued_tasks"), default("max_pending_heads")
MAX_AWAY_SESSIONS = default("max_away_sessions")
MAX_ROOMS, MAX_ROOMS_MOST = default("max_rooms"), most("max_rooms")
HISTORY_BYTES, HISTORY_TOTAL_BYTES = default("history_bytes"), default("history_total_bytes")
BUFFER, BUFFER_BYTES, MAILBOX = default("buffer"), default("buffer_bytes"), default("mailbox")
WORKERS_MAX = most("thread_pool_size")
# The listener, the log, the signals; two for each worker come on top.
OTHER_FILES = 48
# How long most clients wait for a connection before they call it failed.
PATIENCE_S = 10
# A turn that takes longer than this is felt by everyone else on that worker.
LONG_TURN_S = 0.01
LOG_X = "connections, logarithmic"


def write(works, about, out):
    parts, plots = render(works, about)
    page.write(out, "scaling", parts, {name: plot.draw() for name, plot in plots.items()})


def render(works, about):
    """The parts of the page, and its plots by the name of their file."""
    figures = Figures(works, about)
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    named = {name: getattr(figures, name) for name in dir(figures) if not name.startswith("_")}
    parts = list(page.fill(template, globals() | named))
    # A section that needs more than its plot may have been left out.
    shown = {name: plot for name, plot in figures.plots.items() if f"(scaling/{name}.svg)" in "".join(parts)}
    return parts, shown


def line(fitted, unit=us, name="connections"):
    """A fitted line in words, with how far it is from the points."""
    sign = "−" if fitted.each < 0 else "+"
    x = f"log₁₀({name})" if fitted.logarithmic else name
    doubt = ""
    if fitted.error > ERROR_TOLD:
        doubt = f" The points are up to {fitted.error:.0%} away from it, so it is a rough guide."
    return f"≈ **{unit(fitted.fixed)} {sign} {unit(abs(fitted.each))} × {x}**.{doubt}"


def by_x(x, columns, read=dict):
    """A table with a row for each x of the first column. A column is a header, what shows a cell, and
    its cells by x, or what `read` makes them of."""
    columns = [(header, show, read(of) if isinstance(of, str) else of) for header, show, of in columns]
    points = columns[0][2]
    rows = [[count(at), *(show(of[at]) if at in of else "–" for _, show, of in columns)] for at in points]
    return table([x, *(header for header, _, _ in columns)], rows)


def median(show, factor=1):
    return lambda one: show(one.median * factor)


def sizes(one):
    return spread(one, size)


def each(points, unit=1):
    return {x: one.times(1 / x / unit) for x, one in points.items()}


class Figures:
    """What the template names: each is a number or a text, and raises `Missing` where it rests on
    what was not measured."""

    def __init__(self, works, about):
        self.results, self.about, self.plots = Results(works), about, {}
        self.laws = Laws(self.results)
        self.files, self.memory_gib = about["files_max"], about["memory_gib"]
        self.memory = self.memory_gib * (1 << 30)

    def picture(self, name, *plot, **options):
        self.plots[name] = Plot(*plot, **options)
        return f"![{plot[0]}](scaling/{name}.svg)"

    # ---- The head and the foot ----

    def facts(self):
        rounds = f"{self.results.rounds}, every other one backwards; medians, in brackets the least and the most"
        return page.facts(self.about, ("open files", count(self.files)), ("rounds", rounds))

    def caution(self):
        rounds, works = self.results.rounds, self.results.works.items()
        failed = [f"{name} ({work.failures}×)" for name, work in works if work.failures]
        few = rounds < 3 and f"Only {rounds} of 3 rounds: there is no spread to judge by."
        return page.caution(self.about, few, failed)

    def commands(self):
        """Each server's settings once, with all that was asked of such servers."""
        servers = {}
        for work in self.results.works.values():
            if work.reports:
                servers.setdefault(work.server_command, []).append(work.driver_command)
        groups = [[f"{server} &", *dict.fromkeys(drivers)] for server, drivers in servers.items()]
        return page.commands("scripts/scaling.sh", groups)

    # ---- A connection ----

    def memory_points(self):
        echo = self.results.ladder("memory-echo", rss_bytes) if "memory-echo" in self.results.works else {}
        chat = self.results.ladder("memory-chat", rss_bytes)
        return chat, echo, self.results.ladder("memory-chat", kernel_bytes)

    def memory_plot(self):
        (chat, echo, kernel), laws = self.memory_points(), self.laws
        echo_line = (lambda x: laws.rss_echo.at(x) / x / 1024) if echo else None
        series = [
            Series("server, chat session", each(chat, 1024), lambda x: laws.rss_chat.at(x) / x / 1024),
            Series("server, echo", each(echo, 1024), echo_line),
            Series("kernel, the server's end", {x: one.times(1 / 1024) for x, one in kernel.items()}),
        ]
        return self.picture("memory", "Memory per idle connection", LOG_X, "KiB, logarithmic", series, log_y=True)

    def memory_table(self):
        chat, echo, kernel = self.memory_points()
        columns = [("server, each, chat", each(chat)), ("server, each, echo", each(echo)), ("kernel, each", kernel)]
        return by_x("connections", [(header, sizes, points) for header, points in columns])

    def at_most(self, figure):
        """A figure of the highest rung."""
        return self.results.ladder("memory-chat", figure)[self.laws.connections_most].median

    def caches(self):
        def cache(name):
            grown = self.at_most(f"kernel.caches.{name}") / self.laws.connections_most / 2
            return f"`{name}` {size(grown)}"

        # The names of the caches are the kernel's, and some share theirs.
        names = ("TCP", "sock_inode_cache", "eventpoll_epi", "filp")
        found = known(*(lambda name=name: cache(name) for name in names))
        return found and f"What the kernel keeps for one end of a connection: {', '.join(found)}." or missing("caches")

    def connects_plot(self):
        laws = self.laws
        whole, acceptor = (
            self.results.ladder("memory-chat", f"connect.{part}cpu_us_each") for part in ("", "acceptor_")
        )
        series = [
            Series("all threads", whole, lambda _: laws.connect),
            Series("the accepting thread's part", acceptor, lambda _: laws.acceptor),
        ]
        x = "connections open by then, logarithmic"
        return self.picture("connects", "CPU time of one more connection", x, "µs", series)

    def connects_grow(self):
        whole = self.results.ladder("memory-chat", "connect.cpu_us_each")
        first, most = min(whole), max(whole)
        low, high = whole[first].median, whole[most].median
        grows = "It grows" if high > 1.25 * low else "It does not grow with what is open already"
        return f"{grows}: {us(low)} each for the first {count(first)}, {us(high)} for those up to {count(most)}."

    def pings_plot(self):
        points = self.results.ladder("pings", "idle.cpu_us_per_ping")
        return self.picture("pings", "CPU time of a ping and its pong", LOG_X, "µs", [Series("server", points)])

    def pings_most(self):
        return max(self.results.ladder("pings", "idle.cpu_us_per_ping"))

    # ---- A message ----

    def echo_plot(self):
        everyone, few = (self.results.ladder("echo", f"{who}.cpu_us_per_message") for who in ("all", "few"))
        series = [
            Series("all of them talk", everyone, self.laws.echo_all.at),
            Series("64 talk, the others are idle", few, self.laws.echo_few.at),
        ]
        return self.picture("echo", "CPU time of an echo of 128 B", LOG_X, "µs", series)

    def echo_table(self):
        columns = [
            ("all talk, µs", spread, "all.cpu_us_per_message"),
            ("64 of them talk, µs", spread, "few.cpu_us_per_message"),
            ("all talk: latency p50", median(time, US), "all.latency.p50_us"),
            ("server busy", median(number), "all.server_busy"),
        ]
        return by_x("connections", columns, lambda figure: self.results.ladder("echo", figure))

    def echo_grew(self):
        grew = self.laws.echo_all.each > 0.05 * self.laws.echo_all.at(100)
        return "Here it grew." if grew else "Here it did not, or less than the noise."

    def members_plot(self):
        points = self.results.sweep("members", "cpu_us_per_publish")
        series = [Series("measured, and the line through it", points, self.laws.publish.at)]
        x = "members that get it, logarithmic"
        return self.picture("members", "CPU time of a publish", x, "µs, logarithmic", series, log_y=True)

    def members_table(self):
        fitted = {x: self.laws.publish.at(x) for x in self.results.sweep("members", "cpu_us_per_publish")}
        columns = [
            ("CPU per publish, µs", spread, "cpu_us_per_publish"),
            ("the line, µs", number, fitted),
            ("per delivery, µs", median(number), "cpu_us_per_delivery"),
            ("last member has it, p50", median(time, US), "last_member.p50_us"),
            ("server busy", median(number), "server_busy"),
        ]
        return by_x("members", columns, lambda figure: self.results.sweep("members", figure))

    def rooms_plot(self):
        series = [Series("measured", self.results.sweep("rooms", "cpu_us_per_delivery"))]
        x = "rooms, all of them talking, logarithmic"
        return self.picture("rooms", "CPU time of a delivery, rooms of 10 members", x, "µs", series)

    def rooms_table(self):
        columns = [
            ("per delivery, µs", spread, "cpu_us_per_delivery"),
            ("per publish, µs", median(number), "cpu_us_per_publish"),
            ("publishes a second", median(rough), "publishes_per_s"),
            ("delivery p99", median(time, US), "latency.p99_us"),
            ("server busy", median(number), "server_busy"),
        ]
        return by_x("rooms", columns, lambda figure: self.results.sweep("rooms", figure))

    def one_room(self, figure):
        return self.results.summary("one-room", figure).median

    # ---- A room ----

    def histories(self):
        """What was published in each room, the bytes that `/stats` told of, and how the server grew."""
        for name in self.results.works:
            match name.split(":"):
                case ["keep", messages, bytes_] if messages != "0":
                    told = self.results.summary(name, lambda report: report["history_bytes"] / report["rooms"])
                    found = self.results.summary(name, kept_bytes("kept", "empty"))
                    yield f"{messages} × {count(int(bytes_))} B", told.median, found

    def history_plot(self):
        points = {told: found for _, told, found in self.histories()} or missing("a history")
        series = [
            Series("measured", dict(sorted(points.items()))),
            Series("as /stats counts", line=lambda x: x, dashed=True),
        ]
        axes = "bytes that /stats counts, logarithmic", "bytes of VmRSS, logarithmic"
        return self.picture("history", "Memory of a room's messages", *axes, series, log_y=True)

    def history_table(self):
        rows = [
            [published, size(told), sizes(found), f"{found.median / told:.2f}"]
            for published, told, found in self.histories()
        ]
        return table(["published in each room", "messages, each room", "memory, each room", "ratio"], rows)

    def history_small(self):
        return self.results.summary("keep:100:128", kept_bytes("kept", "before")).median

    def full_room(self):
        return self.laws.room_bytes + HISTORY_BYTES * self.laws.history_ratio

    # ---- More workers ----

    def workers_plot(self):
        points = self.results.sweep("workers", "cpu_us_per_publish")
        series = [Series("measured, and the line through it", points, self.laws.letter.at)]
        x = "workers, all on one core, with members in each, logarithmic"
        return self.picture("workers", "CPU time of a publish to 64 members", x, "µs", series)

    def letter_noise(self):
        return "" if self.laws.letter.each > 0 else "Here it drowned in noise, and counts as nothing below."

    def workers_table(self):
        rows = []
        for what, kind, figure in (
            ("echo of 128 B, 64 connections, CPU per message", "pair-echo", "cpu_us_per_message"),
            ("100 rooms of 10, CPU per publish", "pair-rooms", "cpu_us_per_publish"),
            ("one member, CPU per publish", "hop", "cpu_us_per_publish"),
            ("one member, from the publish to the delivery, p50", "hop", "latency.p50_us"),
            ("the same, p99", "hop", "latency.p99_us"),
        ):
            places = (values(self.results.reports(f"{kind}:{place}"), figure) for place in ("1", "2", "2-apart"))
            one, two, apart = map(Summary.of, places)
            if one and two:
                ratio = f"{two.median / one.median:.2f}"
                rows.append([what, spread(one), spread(two), ratio, spread(apart)])
        header = ["µs", "1 worker", "2 workers, same core", "ratio", "2 workers, two cores"]
        return table(header, rows) if rows else missing("two workers")

    # ---- What follows from it ----

    def far_table(self):
        laws, sessions = self.laws, (self.laws.connections_most, 100_000, 1_000_000)

        def total(n):
            return f"{(laws.rss_chat.at(n) + laws.kernel * n) / self.memory:.1%}"

        def publish_to_all(cores):
            what = f"one publish to all of them, {cores} core{'s' * (cores > 1)}: until the last is sent it"
            return what, lambda n: time(laws.last_member_s(n, cores))

        return rows_of("chat sessions", sessions, count, [
            ("server's memory", lambda n: size(laws.rss_chat.at(n))),
            ("kernel's memory for the sockets", lambda n: size(laws.kernel * n)),
            (f"together, of {self.memory_gib} GiB here", total),
            ("`ulimit -n` at least", lambda n: count(n + OTHER_FILES)),
            (f"pings every {PING_S} s: a second, and cores for them",
             lambda n: f"{rough(n / PING_S)}, {n / PING_S * laws.ping * US:.2f}"),
            ("all come back: on one core", lambda n: time(n / laws.connects_per_s(1))),
            ("… on 16 cores", lambda n: time(n / laws.connects_per_s(16))),
            ("CPU time of an echo, all talk", lambda n: us(laws.echo_at(n))),
            ("each says something every 10 s: cores for the answers",
             lambda n: f"{n / 10 * laws.echo_at(n) * US:.2f}"),
            *map(publish_to_all, CORES),
            ("every outbox full, by the bound", lambda n: size(n * BUFFER_BYTES)),
        ])  # fmt: skip

    def cores_plot(self):
        per_s = self.laws.publishes_per_s
        series = [
            Series(f"{count(m)} members", line=lambda n, m=m: per_s(m, n), dashed=True)
            for m in (10, 100, 1000, 10_000)
        ]
        axes = "cores, each with a worker, logarithmic", "publishes a second, logarithmic"
        what, ends = "Publishes a second by the model, many rooms", (CORES[0], CORES[-1])
        return self.picture("cores", what, *axes, series, log_y=True, x_range=ends)

    def cores_table(self):
        laws, members = self.laws, (10, 100, 1000, 10_000)

        def in_many(m):
            def shown(n):
                return f"{rough(laws.publishes_per_s(m, n))} ({laws.efficiency(m, n):.0%})"

            return f"publishes a second, many rooms of {count(m)}", shown

        def in_one(m):
            return f"publishes a second, one room of {count(m)}", lambda n: rough(laws.one_room_per_s(m, n))

        return rows_of("", CORES, lambda n: f"{n} core{'s' * (n > 1)}", [
            ("messages a second, answered one by one, 100,000 connections",
             lambda n: rough(n / (laws.echo_at(100_000) * US))),
            ("connections let in, a second", lambda n: rough(laws.connects_per_s(n))),
            *map(in_many, members),
            *map(in_one, members),
        ])  # fmt: skip

    # ---- What breaks first ----

    def sysctl(self, name, index=0):
        limits = self.about["kernel_limits"]
        return limits[name][index] if name in limits else missing(name)

    def backlog(self):
        return min(BACKLOG, self.sysctl("net.core.somaxconn"))

    def above_files(self):
        return "".join(known(lambda: f"above {count(self.sysctl('fs.nr_open'))} also `fs.nr_open`; "))

    def ports(self):
        name = "net.ipv4.ip_local_port_range"
        return self.sysctl(name, 1) - self.sysctl(name) + 1

    def socket_bytes(self):
        return self.sysctl("net.ipv4.tcp_mem", 2) * 4096

    def unsent_bytes(self):
        return self.sysctl("net.ipv4.tcp_wmem", 2)


def rows_of(x, xs, shown, rows):
    """A table with a column for each of `xs`. A row is what it shows and how; one that needs what
    was not measured is left out."""
    found = known(*(lambda what=what, show=show: [what, *map(show, xs)] for what, show in rows))
    return table([x, *map(shown, xs)], found)
