"""docs/scaling.md: what was measured, the laws that it follows, and what they predict."""

import limits
import page
from chart import Plot, Series
from figures import Summary
from model import PING_S, US, Laws, Results, workers_with_members
from model import kept_bytes, kernel_bytes, rss_bytes, values
from page import Missing, count, known, number, prose, rough, size, spread, table, time, us

FAR = (100_000, 1_000_000)
CORES = (1, 16, 64)
# Above this a line is not what the points do, and the reader is told.
ERROR_TOLD = 0.25


def write(works, about, out):
    parts, plots = render(works, about)
    page.write(out, "scaling", parts, {name: plot.draw() for name, plot in plots.items()})


def render(works, about):
    """The parts of the page, and its plots by the name of their file. What needs a figure that was
    not measured is left out."""
    results, plots = Results(works), {}
    laws = Laws(results)

    def section(make, *rest):
        def parts():
            return "\n\n".join(part for part in make(results, laws, *rest) if part)

        return "".join(known(parts))

    def picture(name, *plot, **options):
        plots[name] = Plot(*plot, **options)
        return f"![{plot[0]}](scaling/{name}.svg)"

    failed = [f"{name} ({work.failures}×)" for name, work in results.works.items() if work.failures]
    few = results.rounds < 3 and f"Only {results.rounds} of 3 rounds: there is no spread to judge by."
    rounds = f"{results.rounds}, every other one backwards; medians, in brackets the least and the most"
    return [
        "# Scale on paper",
        prose("""What a connection, a message and a room cost as there are more and more of them,
            and what that says about numbers that nobody has tried on this machine. Written by
            `scripts/scaling.sh`, not by hand;
            [benches/compare/README.md](../benches/compare/README.md) says how the driver measures."""),
        page.facts(about, ("open files", count(about["files_max"])), ("rounds", rounds)),
        page.caution(about, few, failed),
        "## In short",
        in_short(laws, about),
        "## A connection",
        section(memory, picture),
        section(connects, picture),
        section(pings, picture),
        "## A message",
        section(echo, picture),
        section(members, picture),
        section(rooms, picture),
        section(one_room),
        "## A room",
        section(history, picture),
        "## More workers",
        section(workers, picture),
        "## 100,000 and 1,000,000 connections",
        section(far, about),
        "## 16 and 64 cores",
        section(cores, picture),
        "## What breaks first",
        breaks(laws, about),
        "## What is measured, and what is taken for granted",
        TAKEN_FOR_GRANTED,
        "## Commands",
        commands(results),
    ], plots  # fmt: skip


def in_short(laws, about):
    memory, files = about["memory_gib"], about["files_max"]
    return prose("\n".join(known(
        lambda: f"""- **An idle chat session takes {size(laws.rss_chat.each)} of the server and
            {size(laws.kernel)} of the kernel.** A million take {size(laws.connection_bytes * 1e6)};
            the {memory} GiB here are enough for
            {rough(memory * (1 << 30) / laws.connection_bytes)}.""",
        lambda: f"""- **A message costs {us(laws.echo_all.at(100))} among 100 talking connections
            and {us(laws.echo_all.at(laws.connections_most))} among
            {count(laws.connections_most)}.** Among idle neighbours it costs
            {us(laws.echo_few.at(100))} and {us(laws.echo_few.at(laws.connections_most))}.""",
        lambda: f"""- **A publish to *m* members costs {us(laws.publish.fixed)} + *m* ×
            {us(laws.publish.each)}**, so a core delivers {rough(laws.deliveries_per_s)} messages a
            second.""",
        lambda: f"""- **Each further worker with members in the room costs a publish
            {us(laws.letter_us)}.** On 64 cores rooms of 1,000 members keep
            {laws.efficiency(1000, 64):.0%} of 64 times the throughput, rooms of 10 members
            {laws.efficiency(10, 64):.0%}.""",
        lambda: f"""- **What breaks first** is the default of {limits.MAX_CONN} sessions, then the
            {count(files)} open files that a process may have here. Both are settings; [the whole
            list](#what-breaks-first) follows.""",
    )))  # fmt: skip


def line(fitted, what, unit=us, name="connections"):
    """A fitted line in words, with how far it is from the points."""
    sign = "−" if fitted.each < 0 else "+"
    x = f"log₁₀({name})" if fitted.logarithmic else name
    doubt = ""
    if fitted.error > ERROR_TOLD:
        doubt = f" The points are up to {fitted.error:.0%} away from it, so it is a rough guide."
    return f"{what} ≈ **{unit(fitted.fixed)} {sign} {unit(abs(fitted.each))} × {x}**.{doubt}"


def by_x(x, points, *columns):
    """A table with a row for each x. A column is a header, what shows a cell, and its cells by x."""
    rows = [[count(at), *(show(of[at]) if at in of else "–" for _, show, of in columns)] for at in points]
    return table([x, *(header for header, _, _ in columns)], rows)


def median(show, factor=1):
    return lambda one: show(one.median * factor)


def sizes(one):
    return spread(one, size)


# ---- A connection ----


def memory(results, laws, picture):
    def each(points, unit=1):
        return {x: one.times(1 / x / unit) for x, one in points.items()}

    echo = results.ladder("memory-echo", rss_bytes) if "memory-echo" in results.works else {}
    chat = results.ladder("memory-chat", rss_bytes)
    kernel = results.ladder("memory-chat", kernel_bytes)
    plot = picture(
        "memory",
        "Memory per idle connection",
        "connections, logarithmic",
        "KiB, logarithmic",
        [
            Series("server, chat session", each(chat, 1024), lambda x: laws.rss_chat.at(x) / x / 1024),
            Series("server, echo", each(echo, 1024), (lambda x: laws.rss_echo.at(x) / x / 1024) if echo else None),
            Series("kernel, the server's end", {x: one.times(1 / 1024) for x, one in kernel.items()}),
        ],
        log_y=True,
    )
    most = max(chat)

    def at_most(figure):
        return results.ladder("memory-chat", figure)[most].median

    def cache(name):
        return lambda: f"`{name}` {size(at_most(f'kernel.caches.{name}') / most / 2)}"

    # The names of the caches are the kernel's, and some share theirs.
    caches = known(*map(cache, ("TCP", "sock_inode_cache", "eventpoll_epi", "filp")))
    notes = known(
        lambda: line(laws.rss_chat, "All chat sessions together take", size),
        lambda: line(laws.rss_echo, "Connections to `/echo`, which have no session, take", size),
        lambda: caches and f"What the kernel keeps for one end of a connection: {', '.join(caches)}.",
        lambda: f"""Of the memory that `tcp_mem` bounds, the {count(most)} idle connections held
            {count(max(at_most("kernel.tcp_pages"), 0))} pages: it is for data on its way, and there
            is none.""",
        lambda: f"""While all {count(most)} said nothing, and before the first ping, the server used
            {number(at_most("idle.cpu_ms_per_s"))} ms of CPU time a second.""",
    )
    yield "### Memory"
    yield plot
    yield by_x(
        "connections",
        chat,
        ("server, each, chat", sizes, each(chat)),
        ("server, each, echo", sizes, each(echo)),
        ("kernel, each", sizes, kernel),
    )
    yield prose("""The server's share is the growth of VmRSS since before the first connection, so
        the first hundreds also pay for what is made once. The kernel's share is half the growth of
        its slabs, because both ends are on this machine; the first connections find slabs that are
        half empty.""")
    yield prose(" ".join(note for note in notes if note))


def connects(results, laws, picture):
    whole = results.ladder("memory-chat", "connect.cpu_us_each")
    acceptor = results.ladder("memory-chat", "connect.acceptor_cpu_us_each")
    plot = picture(
        "connects",
        "CPU time of one more connection",
        "connections open by then, logarithmic",
        "µs",
        [
            Series("all threads", whole, lambda _: laws.connect),
            Series("the accepting thread's part", acceptor, lambda _: laws.acceptor),
        ],
    )
    first, most = min(whole), max(whole)
    low, high = whole[first].median, whole[most].median
    grows = "It grows" if high > 1.25 * low else "It does not grow with what is open already"
    yield "### Letting it in"
    yield plot
    yield prose(f"""
        From `accept` to the `welcome` of the chat: {us(laws.connect)}, the middle of all rungs.
        {grows}: {us(low)} each for the first {count(first)}, {us(high)} for those up to
        {count(most)}. The accepting thread, of which there is one, takes {us(laws.acceptor)} of it.
        So a server lets in at most {rough(1 / (laws.acceptor * US))} connections a second, on
        however many cores. One core that does all of it lets in {rough(laws.connects_per_s(1))} a
        second.""")


def pings(results, laws, picture):
    points = results.ladder("pings", "idle.cpu_us_per_ping")
    yield "### Keeping it"
    yield picture("pings", "CPU time of a ping and its pong", "connections, logarithmic", "µs", [Series("server", points)])
    yield prose(f"""
        Measured with a ping a second. Many together share the waking up: {us(laws.ping)} each with
        {count(max(points))} connections. With `RUSTY_SOCKS_PING={PING_S}`, the default, a
        connection that says nothing costs {us(laws.ping / PING_S)} a second, and a core keeps
        {rough(PING_S / (laws.ping * US))} of them. An idle connection costs nothing else: no thread
        and no timer goes through all of them.""")


# ---- A message ----


def echo(results, laws, picture):
    everyone = results.ladder("echo", "all.cpu_us_per_message")
    few = results.ladder("echo", "few.cpu_us_per_message")
    plot = picture(
        "echo",
        "CPU time of an echo of 128 B",
        "connections, logarithmic",
        "µs",
        [
            Series("all of them talk", everyone, laws.echo_all.at),
            Series("64 talk, the others are idle", few, laws.echo_few.at),
        ],
    )
    grew = laws.echo_all.each > 0.05 * laws.echo_all.at(100)
    yield "### Among its neighbours"
    yield plot
    yield by_x(
        "connections",
        everyone,
        ("all talk, µs", spread, everyone),
        ("64 of them talk, µs", spread, few),
        ("all talk: latency p50", median(time, US), results.ladder("echo", "all.latency.p50_us")),
        ("server busy", median(number), results.ladder("echo", "all.server_busy")),
    )
    yield prose(f"""
        One message is in flight on each connection that talks. Nothing in a turn goes through
        connections that have no event. What can grow is the cost of memory that is no longer in the
        processor's caches, the server's and the kernel's.
        {"Here it grew." if grew else "Here it did not, or less than the noise."}

        {line(laws.echo_all, "Where all talk, an echo costs")}
        {line(laws.echo_few, "Among idle neighbours it costs")} The latency is that of a queue: all
        have a message there at once, and the last waits for all the others.""")


def members(results, laws, picture):
    points = results.sweep("members", "cpu_us_per_publish")
    plot = picture(
        "members",
        "CPU time of a publish",
        "members that get it, logarithmic",
        "µs, logarithmic",
        [Series("measured, and the line through it", points, laws.publish.at)],
        log_y=True,
    )
    yield "### To the members of one room"
    yield plot
    yield by_x(
        "members",
        points,
        ("CPU per publish, µs", spread, points),
        ("the line, µs", number, {x: laws.publish.at(x) for x in points}),
        ("per delivery, µs", median(number), results.sweep("members", "cpu_us_per_delivery")),
        ("last member has it, p50", median(time, US), results.sweep("members", "last_member.p50_us")),
        ("server busy", median(number), results.sweep("members", "server_busy")),
    )
    yield prose(f"""
        {line(laws.publish, "A publish costs", name="members")} The first part is one turn: waking
        up, reading, parsing, numbering, keeping. The second is one write to a socket for each
        member, nearly all of it the kernel's. One publish is on its way at a time, so with few
        members the server waits for the driver; many publishes at once share a turn and cost less.""")


def rooms(results, laws, picture):
    points = results.sweep("rooms", "cpu_us_per_delivery")
    yield "### In many rooms"
    yield picture(
        "rooms",
        "CPU time of a delivery, rooms of 10 members",
        "rooms, all of them talking, logarithmic",
        "µs",
        [Series("measured", points)],
    )
    yield by_x(
        "rooms",
        points,
        ("per delivery, µs", spread, points),
        ("per publish, µs", median(number), results.sweep("rooms", "cpu_us_per_publish")),
        ("publishes a second", median(rough), results.sweep("rooms", "publishes_per_s")),
        ("delivery p99", median(time, US), results.sweep("rooms", "latency.p99_us")),
        ("server busy", median(number), results.sweep("rooms", "server_busy")),
    )
    yield prose("""
        In each room one publish is on its way at a time. Rooms know nothing of each other: a
        publish takes its own room's lock and no other, and finds the room without the directory,
        through the connection that is in it.""")


def one_room(results, laws):
    rate = results.summary("one-room", "publishes_per_s").median
    busy = results.summary("one-room", "server_busy").median
    yield "### One room's ceiling"
    yield prose(f"""
        Two members, 64 publishes on their way: **{us(laws.one_room)} each, so
        {rough(1e6 / laws.one_room)} publishes a second of one core**. (There were {rough(rate)},
        with the server busy for {busy:.0%} of the time.) A room's lock is held from numbering to
        the last mailbox, so two publishes to one room never overlap. Without anyone to deliver to,
        a publish and its answer cost {us(laws.keep)}, parsing included; what is under the lock is
        less than that, and a letter for each worker on top.""")


# ---- A room ----


def history(results, laws, picture):
    rows, points = [], {}
    for name in results.works:
        kind, _, published = name.partition(":")
        if kind != "keep" or published.startswith("0:"):
            continue
        messages, bytes_ = published.split(":")
        told = results.summary(name, lambda report: report["history_bytes"] / report["rooms"]).median
        found = points[told] = results.summary(name, kept_bytes("kept", "empty"))
        ratio = f"{found.median / told:.2f}"
        rows.append([f"{messages} × {count(int(bytes_))} B", size(told), spread(found, size), ratio])
    if not rows:
        raise Missing("no history was measured")
    small = results.summary("keep:100:128", kept_bytes("kept", "before")).median
    yield "### What it keeps"
    yield picture(
        "history",
        "Memory of a room's messages",
        "bytes that /stats counts, logarithmic",
        "bytes of VmRSS, logarithmic",
        [
            Series("measured", dict(sorted(points.items()))),
            Series("as /stats counts", line=lambda x: x, dashed=True),
        ],
        log_y=True,
    )
    yield table(["published in each room", "messages, each room", "memory, each room", "ratio"], rows)
    yield prose(f"""
        An empty room with one member takes {size(laws.room_bytes)}. A history has at most
        `RUSTY_SOCKS_HISTORY` (100) messages and `RUSTY_SOCKS_HISTORY_BYTES`
        ({size(limits.HISTORY_BYTES)}) of them: the last line was 100 publishes of 4 KiB, and fewer
        are kept. So {count(limits.MAX_ROOMS)} rooms, as many as there may be by default, take
        {size(small * limits.MAX_ROOMS)} with 100 messages of 128 B each.""")


# ---- More workers ----


def workers(results, laws, picture):
    plot = picture(
        "workers",
        "CPU time of a publish to 64 members",
        "workers, all on one core, with members in each, logarithmic",
        "µs",
        [Series("measured, and the line through it", results.sweep("workers", "cpu_us_per_publish"), laws.letter.at)],
    )
    rows = []
    for what, kind, figure in (
        ("echo of 128 B, 64 connections, CPU per message", "pair-echo", "cpu_us_per_message"),
        ("100 rooms of 10, CPU per publish", "pair-rooms", "cpu_us_per_publish"),
        ("one member, CPU per publish", "hop", "cpu_us_per_publish"),
        ("one member, from the publish to the delivery, p50", "hop", "latency.p50_us"),
        ("the same, p99", "hop", "latency.p99_us"),
    ):
        places = (values(results.reports(f"{kind}:{place}"), figure) for place in ("1", "2", "2-apart"))
        one, two, apart = map(Summary.of, places)
        if one and two:
            ratio = f"{two.median / one.median:.2f}"
            rows.append([what, spread(one), spread(two), ratio, spread(apart)])
    noise = "" if laws.letter.each > 0 else "Here it drowned in noise, and counts as nothing below."
    yield prose("""
        A message to a room crosses from the publisher's worker to each other worker with members as
        one letter, however many members that worker has. To show what a letter costs, one core runs
        more and more workers:""")
    yield plot
    yield prose(f"""
        {line(laws.letter, "A publish to 64 members costs", name="workers")} Each further worker
        adds a letter: a place in its mailbox, a wake-up, a turn of its own. The sender pays
        {us(laws.posting_us)} of it: by the threads' own books, the publishing worker's time grows
        by so much. {noise} On one core each of those turns is also a switch between threads, which
        a worker with a core of its own and something to do does not have, so this is the most that
        a letter costs.""")
    if rows:
        yield table(["µs", "1 worker", "2 workers, same core", "ratio", "2 workers, two cores"], rows)
        yield prose("""
            In the rows with one member it is the other worker's, so every delivery crosses. Two
            workers on one core have nothing to gain; the ratio shows their price. The last column
            is empty where there is no core to spare from the driver (`TWO_CORES`).""")


# ---- What follows from it ----


def far(_results, laws, about):
    sessions = (laws.connections_most, *FAR)
    memory = about["memory_gib"] * (1 << 30)

    def row(what, show):
        return lambda: [what, *(show(n) for n in sessions)]

    def publish_to_all(cores):
        what = f"one publish to all of them, {cores} core{'s' * (cores > 1)}: until the last is sent it"
        return row(what, lambda n: time(laws.last_member_s(n, cores)))

    rows = known(
        row("server's memory", lambda n: size(laws.rss_chat.at(n))),
        row("kernel's memory for the sockets", lambda n: size(laws.kernel * n)),
        row(
            f"together, of {about['memory_gib']} GiB here",
            lambda n: f"{(laws.rss_chat.at(n) + laws.kernel * n) / memory:.1%}",
        ),
        row("`ulimit -n` at least", lambda n: count(n + limits.OTHER_FILES)),
        row(
            f"pings every {PING_S} s: a second, and cores for them",
            lambda n: f"{rough(n / PING_S)}, {n / PING_S * laws.ping * US:.2f}",
        ),
        row("all come back: on one core", lambda n: time(n / laws.connects_per_s(1))),
        row("… on 16 cores", lambda n: time(n / laws.connects_per_s(16))),
        row("CPU time of an echo, all talk", lambda n: us(laws.echo_at(n))),
        row(
            "each says something every 10 s: cores for the answers",
            lambda n: f"{n / 10 * laws.echo_at(n) * US:.2f}",
        ),
        *map(publish_to_all, CORES),
        row("every outbox full, by the bound", lambda n: size(n * limits.BUFFER_BYTES)),
    )
    yield table(["chat sessions", *map(count, sessions)], rows)
    yield prose(f"""
        The first column is where the measurements end; the others follow the lines above. The
        echo's line is drawn furthest beyond its points, from {count(laws.connections_most)} to a
        million. Nobody should let the last line happen: for that many clients, set
        `RUSTY_SOCKS_BUFFER_BYTES` to what a slow one may cost.""")


def cores(_results, laws, picture):
    sizes = (10, 100, 1000, 10_000)

    def row(what, show):
        return lambda: [what, *map(show, CORES)]

    def in_many(members):
        def show(n):
            return f"{rough(laws.publishes_per_s(members, n))} ({laws.efficiency(members, n):.0%})"

        return row(f"publishes a second, many rooms of {count(members)}", show)

    def in_one(members):
        return row(
            f"publishes a second, one room of {count(members)}", lambda n: rough(laws.one_room_per_s(members, n))
        )

    rows = known(
        row(
            "messages a second, answered one by one, 100,000 connections",
            lambda n: rough(n / (laws.echo_at(100_000) * US)),
        ),
        row("connections let in, a second", lambda n: rough(laws.connects_per_s(n))),
        *map(in_many, sizes),
        *map(in_one, sizes),
    )
    series = [
        Series(f"{count(m)} members", line=lambda n, m=m: laws.publishes_per_s(m, n), dashed=True) for m in sizes
    ]
    a, b, l, keep, posting = laws.publish.fixed, laws.publish.each, laws.letter_us, laws.keep, laws.posting_us
    yield "**A model, not a measurement**: this machine has no such number of cores."
    yield picture(
        "cores",
        "Publishes a second by the model, many rooms",
        "cores, each with a worker, logarithmic",
        "publishes a second, logarithmic",
        series,
        log_y=True,
        x_range=(1, 64),
    )
    yield table(["", *(f"{n} core{'s' * (n > 1)}" for n in CORES)], rows)
    yield prose(f"""
        In brackets: the part of so many times one core's throughput that is left. All of these are
        lone publishes, each of which pays for a turn of its own; where many share a turn, one core
        alone does more, as [one room's ceiling](#one-rooms-ceiling) shows.

        - **Measured**: a publish's own cost ({us(a)}), a delivery's ({us(b)}), a letter's ({us(l)},
          {us(posting)} of it the sender's), a connection's, and the accepting thread's part of it.
        - **Taken for granted**: work that is not a letter divides evenly among the cores, because no
          message takes a lock that all workers share. Memory bandwidth, the kernel's own locks and the
          network card are not in the model, and of those one is usually next.
        - **In many rooms** of *m* members each, spread over *W* workers at random, a publish
          reaches *k* = *W* (1 − (1 − 1/*W*)ᵐ) of them ({rough(workers_with_members(10, 64))} of 64
          with 10 members) and costs {number(a)} + {number(b)} *m* + {number(l)} (*k* − 1) µs in
          all. *W* cores do *W* of those at once. What is lost depends on how many deliveries a
          letter carries: *m* / *k*.
        - **In one room**, where all its members publish, the work divides as in many, but its lock
          lets one publish through at a time. The model takes all that a publish without deliveries
          costs ({us(keep)}) and the sender's part of every letter for time under the lock. Much of
          both is not: parsing, the answer, the wake-ups. So where the lock is the bound, with small
          rooms on many cores, the truth is better.
        - **Letting in** ends where the accepting thread has a core for itself alone, at
          {rough(laws.connects_per_s(64))} a second.""")


def breaks(laws, about):
    locks = """
        ### Locks that all workers share

        [ARCHITECTURE.md](../ARCHITECTURE.md#locks) has every lock. All workers share three:
        **admission**, for each upgrade and each end; **the table of sessions**, for each begin and
        end, `direct` and `resume`; and **the directory of rooms**, for each join, and for a pattern
        as long as it takes to walk the rooms that match it. A publish takes its room's lock alone,
        and a mailbox is no lock."""
    passing = known(
        lambda: f"""All that a worker does for a new connection takes
            {us(laws.connect - laws.acceptor)}, so even if all of it were under one lock,
            {rough(1 / ((laws.connect - laws.acceptor) * US))} a second would pass."""
    )
    return "\n\n".join([
        prose("""
            Ranked, with the settings as shipped and the kernel of this machine; the server's bounds
            are all in [ARCHITECTURE.md](../ARCHITECTURE.md#bounds). `/stats` has the counters;
            where a number depends on a cost, the cost is the one measured above.

            ### As connections grow"""),
        limits.of_connections(laws, about),
        prose("""
            ### As traffic grows

            By rate, on one worker. A lone publish pays for its own turn; under load many share one,
            so a loaded server does more."""),
        limits.of_traffic(laws),
        "### As rooms grow",
        prose(limits.of_rooms(laws, about)),
        prose(" ".join([locks, *passing])),
    ])  # fmt: skip


TAKEN_FOR_GRANTED = prose("""
    - **Measured**: all points of the plots, on one core for the server and one for the driver.
      **Fitted**: the lines through them, by least squares, each point by its distance as a part of
      its own height. **Predicted**: every number beyond the last point, and all of 16 and 64 cores.
    - Both ends are on one machine: sending on loopback does some of the receiver's work, no network
      card or its interrupts are in it, and no packet is lost. On a network a socket also holds what
      is on the wire.
    - Nobody compresses, nobody has TLS (a proxy in front has, at its own price), and messages are
      small.
    - Memory is measured while nothing waits. What may wait is bounded: see
      [Limits](../README.md#limits).
    - CPU time is that of all the server's threads, from the scheduler's books. Where the server is
      far from busy, it counts more waking up for fewer messages than a busy one would.""")


def commands(results):
    """Each server's settings once, with all that was asked of such servers."""
    servers = {}
    for work in results.works.values():
        if work.reports:
            servers.setdefault(work.server_command, []).append(work.driver_command)
    groups = [[f"{server} &", *dict.fromkeys(drivers)] for server, drivers in servers.items()]
    return page.commands("scripts/scaling.sh", groups)
