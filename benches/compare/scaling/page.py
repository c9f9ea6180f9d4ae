"""docs/scaling.md: what was measured, the laws it follows, and what they predict."""

import limits
from chart import Plot, Series
from measured import kernel_bytes, medians, per_publish, rss_bytes
from model import PING_S, US, laws as find_laws, workers_with_members
from plot import number
from table import spread, table
from words import count, paragraphs, rough, size, time, us

FAR = (100_000, 1_000_000)
CORES = (1, 16, 64)
# Above this a line is not what the points do, and the reader is told.
ERROR_TOLD = 0.25


def render(results, about):
    """The text, and the plots by the name of their file."""
    laws, plots = find_laws(results), {}
    text = paragraphs(
        "# Scale on paper",
        "What a connection, a message and a room cost as there are more and more of them, and what that says about numbers "
        "that nobody has tried on the machine at hand. Written by `scripts/scaling.sh`, not by hand; how the driver measures: "
        "[benches/compare/README.md](../benches/compare/README.md).",
        facts(results, about),
        caution(results, about),
        "## In short",
        in_short(laws, about),
        "## A connection",
        memory(results, laws, plots),
        connects(results, laws, plots),
        pings(results, laws, plots),
        "## A message",
        echo(results, laws, plots),
        members(results, laws, plots),
        rooms(results, laws, plots),
        one_room(results),
        "## A room",
        history(results, plots),
        "## More workers",
        workers(results, laws, plots),
        "## 100,000 and 1,000,000 connections",
        far(laws, about),
        "## 16 and 64 cores",
        cores(laws, plots),
        "## What breaks first",
        breaks(results, laws, about),
        "## The limits by name",
        by_name(about),
        "## What is measured, and what is taken for granted",
        taken_for_granted(),
        "## Commands",
        commands(results),
    )
    return text + "\n", plots


def picture(plots, name, plot):
    plots[name] = plot
    return f"![{plot.title}](scaling/{name}.svg)"


def facts(results, about):
    pins = ", ".join(f"{what}: core {core}" for what, core in about["pins"].items())
    rows = [
        ["when", about["date"]],
        ["commit", f"`{about['commit']}`"],
        ["processor", f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB"],
        ["kernel", about["kernel"]],
        ["pinned to", pins],
        ["open files", count(about["files_max"])],
        ["rounds", f"{results.rounds}, every other one backwards; medians, in brackets the least and the most"],
    ]
    return table(["", ""], rows)


def caution(results, about):
    said = []
    if results.rounds < 3:
        said.append(f"Only {results.rounds} round{'s' * (results.rounds != 1)}: there is no spread to judge by.")
    if about["busy_at_start"] > 0.1:
        said.append(
            f"The machine was not quiet: {about['busy_at_start']:.1f} of its cores were busy when this began. Latencies are "
            "those of a busy machine, and CPU times count more waking up."
        )
    failed = [f"{name} ({work.failures}×)" for name, work in results.works.items() if work.failures]
    if failed:
        said.append("Failed: " + ", ".join(failed) + ".")
    return "\n".join(["> **Caution.**", *(f"> {line}" for line in said)]) if said else ""


def in_short(laws, about):
    lines = []
    each = laws.connection_bytes()
    if each:
        lines.append(
            f"- **An idle chat session takes {size(laws.rss_chat.each)} of the server and {size(laws.kernel)} of the "
            f"kernel.** A million are {size(each * 1e6)}; these {about['memory_gib']} GiB would do for "
            f"{rough(about['memory_gib'] * (1 << 30) / each)}."
        )
    if laws.echo_all and laws.echo_few:
        near, far = 100, laws.connections_most or 1000
        lines.append(
            f"- **A message costs {us(laws.echo_all.at(near))} among {count(near)} talking connections and "
            f"{us(laws.echo_all.at(far))} among {count(far)}.** Idle neighbours make it {us(laws.echo_few.at(near))} and "
            f"{us(laws.echo_few.at(far))}."
        )
    if laws.publish:
        lines.append(
            f"- **A publish to *m* members costs {us(laws.publish.fixed)} + *m* × {us(laws.publish.each)}**, so a core "
            f"delivers {rough(laws.deliveries_per_s())} messages a second."
        )
    if laws.publish and laws.letter:
        lines.append(
            f"- **Each further worker with members in the room costs a publish {us(laws.letter_us)}.** On 64 cores rooms of "
            f"1,000 members keep {laws.efficiency(1000, 64):.0%} of 64 times the throughput, rooms of 10 members "
            f"{laws.efficiency(10, 64):.0%}."
        )
    files = about["files_max"]
    lines.append(
        f"- **What breaks first** is the default of {limits.MAX_CONN} sessions, then the {count(files)} open files that a "
        "process may have here. Both are settings; [the whole list](#what-breaks-first) follows."
    )
    return "\n".join(lines)


def law(line, of, unit=us, name="connections"):
    """A fitted line in words, with how far it is from the points."""
    if line is None:
        return ""
    sign = "−" if line.each < 0 else "+"
    x = f"log₁₀({name})" if line.logarithmic else name
    doubt = ""
    if line.error > ERROR_TOLD:
        doubt = f" The points are up to {line.error:.0%} away from it, so it is a rough guide."
    return f"{of} ≈ **{unit(line.fixed)} {sign} {unit(abs(line.each))} × {x}**.{doubt}"


# ---- A connection ----


def memory(results, laws, plots):
    echo = results.ladder("memory-echo", rss_bytes)
    chat = results.ladder("memory-chat", rss_bytes)
    kernel = results.ladder("memory-chat", kernel_bytes)
    if not chat:
        return ""

    def each(points):
        return [(x, scaled(one, 1 / x / 1024)) for x, one in points]

    def line(of):
        return (lambda x: of.at(x) / x / 1024) if of else None

    plot = Plot(
        "Memory per idle connection",
        "connections, logarithmic",
        "KiB, logarithmic",
        [
            Series("server, chat session", each(chat), line(laws.rss_chat)),
            Series("server, echo", each(echo), line(laws.rss_echo)),
            Series("kernel, the server's end", [(x, scaled(one, 1 / 1024)) for x, one in kernel]),
        ],
        log_y=True,
    )
    by_echo, by_kernel = dict(echo), dict(kernel)
    rows = [
        [
            count(x),
            spread(scaled(one, 1 / x), size),
            spread(scaled(by_echo[x], 1 / x), size) if x in by_echo else "–",
            spread(by_kernel[x], size) if x in by_kernel else "–",
        ]
        for x, one in chat
    ]
    idle = results.ladder("memory-chat", "idle.cpu_ms_per_s")
    tcp = results.ladder("memory-chat", "kernel.tcp_pages")
    notes = [
        law(laws.rss_chat, "All chat sessions together take", size),
        law(laws.rss_echo, "Connections to `/echo`, which have no session,", size),
    ]
    kinds = kernel_kinds(results)
    if kinds:
        notes.append(f"What the kernel keeps for one end of a connection: {kinds}.")
    if tcp:
        notes.append(
            f"Of the memory that `tcp_mem` bounds, the {count(tcp[-1][0])} idle connections held "
            f"{count(max(tcp[-1][1].median, 0))} pages: it is for data on its way, and there is none."
        )
    if idle:
        notes.append(
            f"While all {count(idle[-1][0])} said nothing, and before the first ping, the server used "
            f"{number(idle[-1][1].median)} ms of CPU time a second."
        )
    return paragraphs(
        "### Memory",
        picture(plots, "memory", plot),
        table(["connections", "server, each, chat", "server, each, echo", "kernel, each"], rows),
        "The server's is the growth of VmRSS since before the first connection, so the first hundreds also pay for what is "
        "made once. The kernel's is the growth of its slabs, halved, because both ends are on this machine; the first "
        "connections find slabs that are half empty.",
        " ".join(note for note in notes if note),
    )


def scaled(one, factor):
    return type(one)(one.median * factor, one.low * factor, one.high * factor)


def kernel_kinds(results):
    """The largest caches at the top of the ladder. Their names are the kernel's, and some share theirs."""
    names = ("TCP", "sock_inode_cache", "eventpoll_epi", "filp")
    said = []
    for name in names:
        points = results.ladder("memory-chat", f"kernel.caches.{name}")
        if points:
            connections, one = points[-1]
            said.append(f"`{name}` {size(one.median / connections / 2)}")
    return ", ".join(said)


def connects(results, laws, plots):
    whole = results.ladder("memory-chat", "connect.cpu_us_each")
    acceptor = results.ladder("memory-chat", "connect.acceptor_cpu_us_each")
    if not whole or not acceptor:
        return ""
    plot = Plot(
        "CPU time of one more connection",
        "connections open by then, logarithmic",
        "µs",
        [
            Series("all threads", whole, lambda _: laws.connect),
            Series("of it the accepting thread", acceptor, lambda _: laws.acceptor),
        ],
    )
    return paragraphs(
        "### Letting it in",
        picture(plots, "connects", plot),
        f"From `accept` to the `welcome` of the chat: {us(laws.connect)}, the middle of all rungs. {growth(whole)} {us(laws.acceptor)} of "
        f"it is the accepting thread's, of which there is one: {rough(1 / (laws.acceptor * US))} connections a second are the most that a server "
        f"lets in, on however many cores. One core that does all of it lets in {rough(laws.connects_per_s(1))} a second.",
    )


def growth(points):
    """Whether it matters how many are open already."""
    (first, low), (last, high) = points[0], points[-1]
    change = high.median / low.median
    what = f"{us(low.median)} each for the first {count(first)}, {us(high.median)} for those up to {count(last)}"
    if change > 1.25:
        return f"It grows: {what}."
    return f"It does not grow with what is open already: {what}."


def pings(results, laws, plots):
    points = results.ladder("pings", "idle.cpu_us_per_ping")
    if not points:
        return ""
    plot = Plot("CPU time of a ping and its pong", "connections, logarithmic", "µs", [Series("server", points)])
    most = points[-1][0]
    return paragraphs(
        "### Keeping it",
        picture(plots, "pings", plot),
        f"Measured with a ping a second. Many together share the waking up: {us(laws.ping)} each with {count(most)} connections. With "
        f"`RUSTY_SOCKS_PING={PING_S}`, which is the default, a connection that says nothing costs {us(laws.ping / PING_S)} a second, and "
        f"{rough(PING_S / (laws.ping * US))} of them a core. There is nothing else that an idle connection costs: no thread and no "
        "timer goes through all of them.",
    )


# ---- A message ----


def echo(results, laws, plots):
    few = results.ladder("echo", "few.cpu_us_per_message")
    everyone = results.ladder("echo", "all.cpu_us_per_message")
    if not everyone or not laws.echo_all or not laws.echo_few:
        return ""
    plot = Plot(
        "CPU time of an echo of 128 B",
        "connections, logarithmic",
        "µs",
        [
            Series("all of them talk", everyone, laws.echo_all.at),
            Series("64 talk, the others are idle", few, laws.echo_few.at),
        ],
    )
    by_few = dict(few)
    latency = dict(results.ladder("echo", "all.latency.p50_us"))
    busy = dict(results.ladder("echo", "all.server_busy"))
    rows = [
        [count(x), spread(one), spread(by_few[x]), time(latency[x].median * US), number(busy[x].median)]
        for x, one in everyone
    ]
    return paragraphs(
        "### Among its neighbours",
        picture(plots, "echo", plot),
        table(
            ["connections", "all talk, µs", "64 of them talk, µs", "all talk: latency p50", "server busy"],
            rows,
        ),
        "One message is in flight on each connection that talks. Nothing in a turn goes through connections that have no event, so "
        "what can grow is the cost of memory that is no longer in the processor's caches, the server's and the kernel's. "
        + (
            "Here it grew."
            if laws.echo_all.each > 0.05 * laws.echo_all.at(100)
            else "Here it did not, or less than the noise."
        ),
        law(laws.echo_all, "Where all talk, an echo costs")
        + " "
        + law(laws.echo_few, "Among idle neighbours it costs"),
        "The latency is that of a queue: all have a message there at once, and the last waits for all the others.",
    )


def members(results, laws, plots):
    points = results.sweep("members", per_publish)
    if not points or not laws.publish:
        return ""
    plot = Plot(
        "CPU time of a publish",
        "members that get it, logarithmic",
        "µs, logarithmic",
        [Series("measured, and the line through it", points, laws.publish.at)],
        log_y=True,
    )
    each = dict(results.sweep("members", "cpu_us_per_delivery"))
    last = dict(results.sweep("members", "last_member.p50_us"))
    busy = dict(results.sweep("members", "server_busy"))
    rows = [
        [
            count(x),
            spread(one),
            number(laws.publish.at(x)),
            number(each[x].median) if x in each else "–",
            time(last[x].median * US) if x in last else "–",
            number(busy[x].median) if x in busy else "–",
        ]
        for x, one in points
    ]
    return paragraphs(
        "### To the members of one room",
        picture(plots, "members", plot),
        table(
            ["members", "CPU per publish, µs", "the line, µs", "per delivery, µs", "last member has it, p50", "server busy"],
            rows,
        ),
        law(laws.publish, "A publish costs", name="members")
        + " The first part is one turn: waking up, reading, parsing, numbering, keeping. The second is one write to a socket for each "
        "member, nearly all of it the kernel's. One publish is on its way at a time, so with few members the server waits for "
        "the driver; many publishes at once share a turn and cost less.",
    )


def rooms(results, laws, plots):
    points = results.sweep("rooms", "cpu_us_per_delivery")
    if not points:
        return ""
    plot = Plot(
        "CPU time of a delivery, rooms of 10 members",
        "rooms, all of them talking, logarithmic",
        "µs",
        [Series("measured", points)],
    )
    publish = dict(results.sweep("rooms", "cpu_us_per_publish"))
    rate = dict(results.sweep("rooms", "publishes_per_s"))
    p99 = dict(results.sweep("rooms", "latency.p99_us"))
    busy = dict(results.sweep("rooms", "server_busy"))
    rows = [
        [
            count(x),
            spread(one),
            number(publish[x].median),
            rough(rate[x].median),
            time(p99[x].median * US),
            number(busy[x].median),
        ]
        for x, one in points
    ]
    return paragraphs(
        "### In many rooms",
        picture(plots, "rooms", plot),
        table(
            ["rooms", "per delivery, µs", "per publish, µs", "publishes a second", "delivery p99", "server busy"],
            rows,
        ),
        "In each room one publish is on its way at a time. Rooms know nothing of each other: a publish takes its own room's lock and no "
        "other, and finds the room without the directory, through the connection that is in it.",
    )


def one_room(results):
    rate = results.summary("one-room", "publishes_per_s")
    cost = results.summary("one-room", "cpu_us_per_publish")
    keep = results.summary("keep:100:128", "cpu_us_per_publish")
    if not rate or not cost:
        return ""
    said = (
        f"Two members, 64 publishes on their way: **{us(cost.median)} each, so {rough(1e6 / cost.median)} publishes a second of one core**. "
        f"(There were {rough(rate.median)}, with the server busy for {results.summary('one-room', 'server_busy').median:.0%} of the time.) "
        "A room's lock is held from numbering to the "
        "last mailbox, so two publishes to one room never overlap."
    )
    if keep:
        said += (
            f" Without anyone to deliver to, a publish and its answer cost {us(keep.median)}, parsing included; what is under the lock is "
            "less than that, and a letter for each worker on top."
        )
    return paragraphs("### One room's ceiling", said)


# ---- A room ----


def history(results, plots):
    rows, points = [], []
    empty = results.summary("keep:0:1", lambda r: (r["rss_empty_kib"] - r["rss_before_kib"]) * 1024 / r["rooms"])
    for name in results.works:
        kind, _, rest = name.partition(":")
        messages, _, bytes_ = rest.partition(":")
        if kind != "keep" or messages == "0":
            continue
        told = results.summary(name, lambda r: r["history_bytes"] / r["rooms"])
        found = results.summary(name, lambda r: (r["rss_kept_kib"] - r["rss_empty_kib"]) * 1024 / r["rooms"])
        if not told or not found:
            continue
        points.append((told.median, found))
        rows.append(
            [
                f"{messages} × {count(int(bytes_))} B",
                size(told.median),
                spread(found, size),
                f"{found.median / told.median:.2f}",
            ]
        )
    if not points:
        return ""
    plot = Plot(
        "Memory of a room's messages",
        "bytes that /stats counts, logarithmic",
        "bytes of VmRSS, logarithmic",
        [Series("measured", sorted(points)), Series("as /stats counts", line=lambda x: x, dashed=True)],
        log_y=True,
    )
    small = results.summary("keep:100:128", lambda r: r["rss_kept_kib"] * 1024 / r["rooms"] - r["rss_before_kib"] * 1024 / r["rooms"])
    said = [
        f"An empty room with one member takes {size(empty.median)}." if empty else "",
        f"A history has at most `RUSTY_SOCKS_HISTORY` (100) messages and `RUSTY_SOCKS_HISTORY_BYTES` ({size(limits.HISTORY_BYTES)}) of them: "
        "the last line was 100 publishes of 4 KiB, and fewer are kept.",
        f"So {count(limits.MAX_ROOMS)} rooms, as many as there may be by default, take {size(small.median * limits.MAX_ROOMS)} with 100 messages "
        "of 128 B each."
        if small
        else "",
    ]
    return paragraphs(
        "### What it keeps",
        picture(plots, "history", plot),
        table(["published in each room", "messages, each room", "memory, each room", "ratio"], rows),
        " ".join(part for part in said if part),
    )


def ratio_of_history(results):
    told = results.summary("keep:100:4096", "history_bytes")
    found = results.summary("keep:100:4096", lambda r: (r["rss_kept_kib"] - r["rss_empty_kib"]) * 1024)
    empty = results.summary("keep:0:1", lambda r: (r["rss_empty_kib"] - r["rss_before_kib"]) * 1024 / r["rooms"])
    if not told or not found or not empty:
        return None, None
    return empty.median, found.median / told.median


# ---- More workers ----


def workers(results, laws, plots):
    points = results.sweep("workers", per_publish)
    if not points or not laws.letter:
        return ""
    plot = Plot(
        "CPU time of a publish to 64 members",
        "workers, all on one core, with members in each, logarithmic",
        "µs",
        [Series("measured, and the line through it", points, laws.letter.at)],
    )
    noise = "" if laws.letter.each > 0 else " Here it drowned in noise, and is taken for nothing below."
    rows = []
    for what, kind, figure in (
        ("echo of 128 B, 64 connections, CPU per message", "pair-echo", "cpu_us_per_message"),
        ("100 rooms of 10, CPU per publish", "pair-rooms", "cpu_us_per_publish"),
        ("one member, CPU per publish", "hop", per_publish),
        ("one member, from the publish to the delivery, p50", "hop", "latency.p50_us"),
        ("the same, p99", "hop", "latency.p99_us"),
    ):
        one, two, apart = (results.summary(f"{kind}:{where}", figure) for where in ("1", "2", "2-apart"))
        if one and two:
            rows.append([what, spread(one), spread(two), f"{two.median / one.median:.2f}", spread(apart)])
    return paragraphs(
        "A message to a room crosses from the publisher's worker to each other worker with members as one letter, however many members "
        "that worker has. To see what a letter costs, one core runs more and more workers:",
        picture(plots, "workers", plot),
        law(laws.letter, "A publish to 64 members costs", name="workers")
        + " What a worker more adds is a letter: a place in its mailbox, a wake-up, a turn of its own. "
        + f"{us(laws.posting_us)} of it are the sender's: by the threads' own books, the publishing worker's time grows by so much."
        + noise
        + " On one core each of those turns is also a switch between threads, which a worker with a core of its own and something to do does "
        "not have, so this is the most that a letter costs.",
        table(["µs", "1 worker", "2 workers, same core", "ratio", "2 workers, two cores"], rows) if rows else "",
        "In the rows with one member it is the other worker's, so every delivery crosses. Two workers on one core have nothing to gain; what "
        "is seen is their price. The last column is empty where there is no core to spare from the driver (`TWO_CORES`).",
    )


# ---- What follows from it ----


def far(laws, about):
    if not laws.rss_chat or not laws.kernel:
        return ""
    columns = (laws.connections_most, *FAR)
    memory = about["memory_gib"] * (1 << 30)
    rows = [
        ["server's memory", *(size(laws.rss_chat.at(n)) for n in columns)],
        ["kernel's memory for the sockets", *(size(laws.kernel * n) for n in columns)],
        [
            f"together, of {about['memory_gib']} GiB here",
            *(f"{(laws.rss_chat.at(n) + laws.kernel * n) / memory:.1%}" for n in columns),
        ],
        ["`ulimit -n` at least", *(count(n + limits.OTHER_FILES) for n in columns)],
    ]
    if laws.ping:
        rows.append(
            [
                f"pings every {PING_S} s: a second, and cores for them",
                *(f"{rough(n / PING_S)}, {n / PING_S * laws.ping * US:.2f}" for n in columns),
            ]
        )
    if laws.connect and laws.acceptor:
        rows.append(["all come back: on one core", *(time(n / laws.connects_per_s(1)) for n in columns)])
        rows.append(["… on 16 cores", *(time(n / laws.connects_per_s(16)) for n in columns)])
    if laws.echo_all:
        rows.append(["CPU time of an echo, all talk", *(us(laws.echo_at(n)) for n in columns)])
        rows.append(
            [
                "each says something every 10 s: cores for the answers",
                *(f"{n / 10 * laws.echo_at(n) * US:.2f}" for n in columns),
            ]
        )
    if laws.publish and laws.letter:
        for cores in CORES:
            rows.append(
                [
                    f"one publish to all of them, {cores} core{'s' * (cores > 1)}: until the last is sent it",
                    *(time(laws.last_member_s(n, cores)) for n in columns),
                ]
            )
    rows.append(["every outbox full, by the bound", *(size(n * limits.BUFFER_BYTES) for n in columns)])
    return paragraphs(
        table(["chat sessions", *(count(n) for n in columns)], rows),
        f"The first column is where the measurements end; the others follow the lines above. The echo's line is drawn furthest beyond its points, "
        f"from {count(laws.connections_most)} to a million. What `RUSTY_SOCKS_BUFFER_BYTES` allows in the last line is what nobody should let happen: "
        "for that many clients, set it to what a slow one may cost.",
    )


def cores(laws, plots):
    if not laws.publish or not laws.letter or laws.keep is None:
        return ""
    rows = []
    if laws.echo_all:
        rows.append(
            [
                "messages a second, answered one by one, 100,000 connections",
                *(rough(n / (laws.echo_at(100_000) * US)) for n in CORES),
            ]
        )
    if laws.connect and laws.acceptor:
        rows.append(["connections let in, a second", *(rough(laws.connects_per_s(n)) for n in CORES)])
    sizes = (10, 100, 1000, 10_000)
    for members in sizes:
        rows.append(
            [
                f"publishes a second, many rooms of {count(members)}",
                *(f"{rough(laws.publishes_per_s(members, n))} ({laws.efficiency(members, n):.0%})" for n in CORES),
            ]
        )
    for members in sizes:
        rows.append(
            [
                f"publishes a second, one room of {count(members)}",
                *(rough(laws.one_room_per_s(members, n)) for n in CORES),
            ]
        )
    plot = Plot(
        "Publishes a second by the model, many rooms",
        "cores, each with a worker, logarithmic",
        "publishes a second, logarithmic",
        [
            Series(
                f"{count(members)} members",
                line=lambda n, members=members: laws.publishes_per_s(members, n),
                dashed=True,
            )
            for members in sizes
        ],
        log_y=True,
        x_range=(1, 64),
    )
    a, b, l = laws.publish.fixed, laws.publish.each, laws.letter_us
    return paragraphs(
        "**A model, not a measurement**: the machine at hand has no such number of cores.",
        picture(plots, "cores", plot),
        table(["", *(f"{n} core{'s' * (n > 1)}" for n in CORES)], rows),
        "In brackets: the part of so many times one core's throughput that is left. All of these are lone publishes, each of which pays for a "
        "turn of its own; where many share a turn, one core alone does more, as [one room's ceiling](#one-rooms-ceiling) shows.",
        f"- **Measured**: a publish's own cost ({us(a)}), a delivery's ({us(b)}), a letter's ({us(l)}, {us(laws.posting_us)} of it the sender's), a connection's, and the accepting "
        "thread's part of it.\n"
        "- **Taken for granted**: work that is not a letter divides evenly among the cores. There is no lock that all workers take for a "
        "message: an echo takes none, a publish its room's. Memory bandwidth, the kernel's own locks and the network card are not in the model, "
        "and of those one is usually next.\n"
        "- **In many rooms** of *m* members each, spread over *W* workers at random, a publish reaches *k* = *W* (1 − (1 − 1/*W*)ᵐ) of them "
        f"({rough(workers_with_members(10, 64))} of 64 with 10 members) and costs {number(a)} + {number(b)} *m* + {number(l)} (*k* − 1) µs in all. "
        "*W* cores do *W* of those at once. What is lost depends on how many deliveries a letter carries: *m* / *k*.\n"
        "- **In one room**, where all its members publish, the work divides as in many, but its lock lets one publish through at a time. The model "
        f"takes all that a publish without deliveries costs ({us(laws.keep)}) and the sender's part of every letter for time under the lock. Much of "
        "both is not: parsing, the answer, the bells. So where the lock is what bounds it, with small rooms on many cores, the truth is better."
        + letting_in(laws),
    )


def letting_in(laws):
    if not laws.connect or not laws.acceptor:
        return ""
    return f"\n- **Letting in** ends where the accepting thread has a core for itself alone, at {rough(laws.connects_per_s(64))} a second."


def breaks(results, laws, about):
    return paragraphs(
        "Ranked, with the settings as shipped and the kernel of this machine. `/stats` has the counters; where a number depends on a cost, the "
        "cost is the one measured above.",
        "### As connections grow",
        limits.of_connections(laws, about),
        "### As traffic grows",
        "By rate, on one worker. A lone publish pays for its own turn; under load many share one, so a loaded server does more.",
        limits.of_traffic(laws),
        "### As rooms grow",
        limits.of_rooms(about, *ratio_of_history(results)),
        "### Locks that all workers share",
        locks(laws),
    )


def locks(laws):
    most = ""
    if laws.connect and laws.acceptor:
        worker = laws.connect - laws.acceptor
        most = (
            f" All of what a worker does for a new connection is {us(worker)}, so even if every bit of it were under one lock, "
            f"{rough(1 / (worker * US))} a second would come through."
        )
    return "\n".join(
        [
            "- **Admission** (permits and the line): one decision for each upgrade, one for each end. **The table of sessions**: one change for each "
            "begin and end, one look-up for each `direct` and `resume`." + most,
            "- **The directory of rooms**: one look-up for each join and for what is asked of a room that one is not in; a `join` of a pattern walks "
            "the rooms that match it, up to `RUSTY_SOCKS_MAX_ROOMS_PER_CONN`, and a `resume` with patterns all that match; a sweep takes it for 1,000 names a second. A publish does not touch it.",
            "- **A room's lock**: one publish, join, leave or page of history at a time, in that room.",
            "- **A mailbox** is no lock: letters go into a queue, and a counter says whether there is a place.",
        ]
    )


def by_name(about):
    rows = [
        [f"`{name}`", " ".join(count(value) if value < 1 << 62 else "no limit" for value in values), KERNEL[name]]
        for name, values in about["kernel_limits"].items()
    ]
    rows.insert(0, ["`ulimit -Hn`", count(about["files_max"]), "open files of one process; the server raises its own to it"])
    fixed = [
        ["`RUSTY_SOCKS_THREAD_POOL_SIZE`", f"1 to {limits.WORKERS_MAX}", "the hub has a set of workers in 256 bits"],
        ["workers' polls", "one each", "a worker waits in its `epoll` and nowhere else; 1,024 events are taken at a time"],
        ["accepting threads", "1", "no setting"],
        ["backlog of the listener", count(limits.BACKLOG), "no setting; `net.core.somaxconn` bounds it too"],
        ["sockets on their way to a worker", count(limits.HANDOFF_MAX), "no setting; then the next worker, then a 503"],
        ["new sockets in one turn", "256", "no setting: a storm of them must not delay those inside"],
        ["`RUSTY_SOCKS_MAX_CONN`", f"1 to {count(limits.MAX_CONN_MOST)}", "sessions"],
        ["names of connections", f"{count(limits.SLOTS_A_WORKER)} a worker", "32 bits, of which a session keeps 24"],
        ["members that a room counts", "4,294,967,295 a worker", "32 bits"],
        ["`RUSTY_SOCKS_MAX_ROOMS`", f"1 to {count(limits.MAX_ROOMS_MOST)}", "rooms"],
    ]
    return paragraphs(
        "Of this kernel:",
        table(["sysctl", "here", "what it bounds"], rows),
        "Of one process, beside the [settings](../README.md#configuration):",
        table(["", "bound", ""], fixed),
    )


KERNEL = {
    "fs.nr_open": "what `ulimit -n` may be raised to",
    "fs.file-max": "open files of the whole machine",
    "fs.epoll.max_user_watches": "sockets that one user's polls watch",
    "net.core.somaxconn": "connections that wait to be accepted, of one listener",
    "net.ipv4.ip_local_port_range": "ports that a client's `connect` is given, for each address of its own and of the server",
    "net.ipv4.tcp_max_syn_backlog": "connections half open, of one listener",
    "net.ipv4.tcp_mem": "pages of data in all TCP sockets: no pressure, pressure, no more",
    "net.ipv4.tcp_rmem": "bytes of receive buffer: what a socket has even under pressure, begins with, grows to",
    "net.ipv4.tcp_wmem": "the same for sending",
    "net.netfilter.nf_conntrack_max": "connections that a packet filter follows; loopback is often left out of it",
    "kernel.threads-max": "threads of the whole machine; the server has one for each worker and a few more",
}


def taken_for_granted():
    return "\n".join(
        [
            "- **Measured**: all points of the plots, on one core for the server and one for the driver. **Fitted**: the lines through them, by least "
            "squares, each point by its distance as a part of its own height. **Predicted**: every number beyond the last point, and all of 16 and 64 cores.",
            "- Both ends are on one machine: sending on loopback does some of the receiver's work, no network card or its interrupts are in it, and no "
            "packet is lost. On a network a socket also holds what is on the wire.",
            "- Nobody compresses, nobody has TLS (a proxy in front has, at its own price), and messages are small.",
            "- Memory is measured while nothing waits. What may wait is bounded: the table in [Limits](../README.md#limits).",
            "- CPU time is that of all the server's threads, from the scheduler's books. Where the server is far from busy, it counts more "
            "waking up for fewer messages than a busy one would.",
        ]
    )


def commands(results):
    """Each server's settings once, with all that was asked of such servers."""
    servers = {}
    for work in results.works.values():
        if work.reports:
            servers.setdefault(work.server_command, []).append(work.driver_command)
    lines = ["`scripts/scaling.sh` ran these, each driver with a server, a port and a process of its own:", "", "```sh"]
    for server, drivers in servers.items():
        lines += [f"{server} &", *dict.fromkeys(drivers), ""]
    return "\n".join([*lines[:-1], "```"])
