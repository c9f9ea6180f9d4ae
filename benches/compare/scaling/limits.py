"""What breaks, at which number, what one sees of it, and what moves it. What is said of the server is in its source;
each bound has its row in ARCHITECTURE.md."""

from dataclasses import dataclass

from bounds import constant, default, most
from model import PING_S, US
from table import table
from words import count, rough, size, time

PAGE = 4096
BACKLOG = constant("src/server/mod.rs", "BACKLOG")
HANDOFF_MAX = constant("src/pool/acceptor.rs", "HANDOFF_MAX")
# A sweep takes so many, once a second.
SWEEP_ROOMS_A_S = constant("src/hub/rooms.rs", "SWEEP_ROOMS_MAX")
# src/hub/mailbox.rs: a connection's slot has 24 bits in the word that says who speaks for a session.
SLOTS_A_WORKER = 1 << 24
MAX_CONN, MAX_CONN_MOST = default("max_conn"), most("max_conn")
MAX_QUEUED_TASKS, MAX_PENDING_HEADS = default("max_queued_tasks"), default("max_pending_heads")
MAX_AWAY_SESSIONS = default("max_away_sessions")
MAX_ROOMS, MAX_ROOMS_MOST = default("max_rooms"), most("max_rooms")
BUFFER, BUFFER_BYTES, HISTORY_BYTES = default("buffer"), default("buffer_bytes"), default("history_bytes")
MAILBOX, WORKERS_MAX = default("mailbox"), most("thread_pool_size")
# The listener, the log, the signals; two for each worker come on top.
OTHER_FILES = 16
# How long most clients wait for a connection before they call it failed.
PATIENCE_S = 10
# A turn that takes longer than this is felt by everyone else on that worker.
LONG_TURN_S = 0.01


@dataclass
class Limit:
    # What they are ranked by.
    at: float
    shown: str
    what: str
    seen: str
    moved: str


def rendered(limits, what):
    rows = [
        [limit.shown, limit.what, limit.seen, limit.moved] for limit in sorted(limits, key=lambda limit: limit.at)
    ]
    return table([what, "what breaks", "what one sees", "what moves it"], rows)


def of_connections(laws, about):
    """Ranked by how many connections there are."""
    kernel, found = about["kernel_limits"], []

    def add(at, what, seen, moved, shown=None):
        found.append(Limit(at, shown or count(at), what, seen, moved))

    def sysctl(name, index=0):
        return kernel[name][index] if name in kernel else None

    add(
        MAX_CONN,
        "the sessions served, as shipped",
        f"the next {count(MAX_QUEUED_TASKS)} wait in line for at most 10 s (`queued`), then 503: `rejected.full`, "
        "`rejected.queue_timeout`, the log's `refused: …`",
        f"`RUSTY_SOCKS_MAX_CONN` (up to {count(MAX_CONN_MOST)}), `RUSTY_SOCKS_MAX_QUEUED_TASKS`",
    )
    add(
        MAX_PENDING_HEADS,
        f"at the same moment: sockets whose request has not come; {count(HANDOFF_MAX)} of them for each worker may be on "
        "their way from the acceptor",
        "503 from the acceptor: `rejected.pending_heads`, `pending_heads`",
        "`RUSTY_SOCKS_MAX_PENDING_HEADS`, `RUSTY_SOCKS_HANDSHAKE_TIMEOUT`; more cores, so that heads are read sooner",
        shown=f"{count(MAX_PENDING_HEADS)} at once",
    )
    somaxconn = sysctl("net.core.somaxconn")
    if somaxconn:
        add(
            min(BACKLOG, somaxconn) + 0.5,
            "at the same moment: the kernel's queue of connections that were not accepted yet",
            "nothing in `/stats`; clients time out or come a second late; `nstat` counts `TcpExtListenOverflows`",
            f"the smaller of `net.core.somaxconn` ({count(somaxconn)} here) and the server's own {count(BACKLOG)}, "
            "which is no setting; `net.ipv4.tcp_max_syn_backlog` for those before",
            shown=f"{count(min(BACKLOG, somaxconn))} at once",
        )
    add(
        MAX_AWAY_SESSIONS,
        "chat clients that lose their connections within one `RUSTY_SOCKS_RESUME_WINDOW` (60 s): a switch that restarts",
        "`sessions_evicted` grows, and when those clients come back, `resume` is answered with `unrecoverable`",
        "`RUSTY_SOCKS_MAX_AWAY_SESSIONS`, paid for with the memory of a session each",
        shown=f"{count(MAX_AWAY_SESSIONS)} lost at once",
    )
    files = about["files_max"]
    nr_open = sysctl("fs.nr_open")
    add(
        files - OTHER_FILES,
        "file descriptors of the process, one a connection",
        "at start, the log's `the limit of open files (…) is below max_conn + max_queued_tasks`; then `cannot accept, "
        "will keep trying: Too many open files`, `accept_backoffs_total`; new connections wait in the kernel's queue",
        "the hard `ulimit -n` (`LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker), which the server raises its own to; "
        + (f"above {count(nr_open)} also `fs.nr_open`; " if nr_open else "")
        + "`fs.file-max` for the whole machine",
    )
    ports = kernel.get("net.ipv4.ip_local_port_range")
    if ports:
        add(
            ports[1] - ports[0] + 1,
            "local ports of one client address to one address and port of the server: a proxy's limit, or a load test's",
            "nothing at the server; the client's `connect` fails with `EADDRNOTAVAIL`, and once every other port is taken it "
            "already searches so long that the client becomes slow",
            "more addresses on either side, or `net.ipv4.ip_local_port_range` of the client; each address of 127/8 is one "
            "more on loopback",
            shown=f"{count(ports[1] - ports[0] + 1)} from one address",
        )
    tracked = sysctl("net.netfilter.nf_conntrack_max")
    if tracked:
        add(
            tracked,
            "connections that the kernel's packet filter tracks, if one does",
            "nothing at the server; `nf_conntrack: table full, dropping packet` in `dmesg`, new clients time out",
            "`net.netfilter.nf_conntrack_max`, or a `notrack` rule for the port",
        )
    if laws.acceptor:
        rate = 1 / (laws.acceptor * US)
        add(
            rate * PATIENCE_S,
            f"everyone comes back after a restart, and a client waits {PATIENCE_S} s for its connection: there is one "
            f"accepting thread, {rough(rate)} a second on a core of its own",
            "`sockets_total` grows by no more a second while `sockets` is low; that thread takes a whole core",
            "no setting: let clients come back at random times (the `reconnect_after_ms` of a drain does), or run several "
            "servers",
            shown=f"{rough(rate * PATIENCE_S)} within {PATIENCE_S} s",
        )
    memory = about["memory_gib"] * (1 << 30)
    each = laws.connection_bytes()
    if each:
        add(
            memory / each,
            f"memory for idle chat sessions, {size(each)} each with the kernel's part, of {about['memory_gib']} GiB",
            "the kernel's OOM killer; before that `MemAvailable`",
            "more memory, or `RUSTY_SOCKS_MAX_CONN` below it",
            shown=rough(memory / each),
        )
        add(
            memory / BUFFER_BYTES,
            "memory for clients that read nothing and are sent much: each may have its outbox full",
            "`read_pauses`, then `closed.4102` and `dropped`, or `missed` and `gaps` where the room has another policy",
            "`RUSTY_SOCKS_BUFFER_BYTES`, `RUSTY_SOCKS_BUFFER`, `RUSTY_SOCKS_OVERFLOW`",
            shown=f"{rough(memory / BUFFER_BYTES)} of them slow",
        )
    pages, largest = sysctl("net.ipv4.tcp_mem", 2), sysctl("net.ipv4.tcp_wmem", 2)
    if pages and largest:
        add(
            pages * PAGE / largest,
            f"the kernel's memory for data in sockets, {size(pages * PAGE)} for the whole machine, where each of them has "
            f"as much as one may hold unsent ({size(largest)})",
            "`TCP: out of memory` in `dmesg`; everyone's segments are dropped and come late",
            "the third number of `net.ipv4.tcp_mem`, that of `net.ipv4.tcp_wmem`; of data that is not on the wire yet, "
            "the server lets the kernel have 128 KiB a connection",
            shown=f"{rough(pages * PAGE / largest)} of them slow",
        )
    if laws.ping:
        add(
            PING_S / (laws.ping * US),
            f"one core is busy with pings alone, at {laws.ping:.1f} µs each and one every {PING_S} s",
            "the workers' CPU time, with nobody talking",
            "`RUSTY_SOCKS_PING` (with `RUSTY_SOCKS_TIMEOUT` above it), `RUSTY_SOCKS_THREAD_POOL_SIZE`",
            shown=f"{rough(PING_S / (laws.ping * US))} a core",
        )
    watches = sysctl("fs.epoll.max_user_watches")
    if watches:
        add(
            watches,
            "sockets that the user's polls may watch",
            "the log's `cannot watch the socket of …`; the connection is closed at once",
            "`fs.epoll.max_user_watches`",
        )
    add(
        MAX_CONN_MOST,
        "what `max_conn` may be set to",
        "an error at start",
        f"nothing; by then a worker's names for connections (24 bits, {count(SLOTS_A_WORKER)}) would come next",
    )
    return rendered(found, "connections")


def of_traffic(laws):
    """Ranked by how much is asked of one worker or one room, as far as they can be compared: by the rate."""
    found = []

    def add(at, shown, what, seen, moved):
        found.append(Limit(at, shown, what, seen, moved))

    more_cores = "`RUSTY_SOCKS_THREAD_POOL_SIZE`, as many as there are cores"
    if laws.publish:
        members = LONG_TURN_S / (laws.publish.each * US)
        add(
            1 / LONG_TURN_S,
            f"one publish to {rough(members)} members of one worker",
            f"takes its worker {time(LONG_TURN_S)}, in which nobody else there is served",
            "`turn_us.p99` and `turn_us.max`",
            more_cores + "; smaller rooms",
        )
        thousand = 1 / (laws.publish.at(1000) * US)
        add(
            thousand,
            f"{rough(thousand)} publishes a second to 1,000 members",
            "one worker is busy all the time, and latency grows without end",
            "`turn_us`; `messages_out` stops growing with what is asked for; `read_pauses` and 4102 when clients lag too",
            more_cores + "; `RUSTY_SOCKS_RATE_MESSAGES` for those who publish",
        )
        add(
            laws.deliveries_per_s(),
            f"{rough(laws.deliveries_per_s())} deliveries a second",
            "the same, however they are divided into rooms",
            "`deliveries`, `turn_us`",
            more_cores,
        )
    if laws.echo_all:
        rate = 1 / (laws.echo_at(100_000) * US)
        add(
            rate,
            f"{rough(rate)} messages a second, answered one by one, on 100,000 connections",
            "the same",
            "`messages_in`, `turn_us`",
            more_cores,
        )
    if laws.one_room:
        rate = 1 / (laws.one_room * US)
        add(
            rate,
            f"{rough(rate)} publishes a second into one room",
            "its lock is held for one publish at a time. This is what one core does with one other member there, parsing "
            "and delivery included; what is under the lock is less, but with many workers has all their letters in it",
            "several workers are busy and the rate does not grow; nothing counts the wait for a lock",
            "more rooms: no setting divides one",
        )
        letters = MAILBOX / rate
        add(
            rate + 0.5,
            f"{count(MAILBOX)} letters that wait for one worker: {time(letters)} of such publishes",
            "at half of them the workers stop reading from those who publish; at the bound `publish` is answered "
            "`overloaded` and nobody gets it",
            "`workers[].mailbox`, `pressure_pauses`, `workers[].mailbox_refused`",
            "`RUSTY_SOCKS_MAILBOX`, `RUSTY_SOCKS_MAILBOX_BYTES`",
        )
        add(
            rate + 0.6,
            f"{count(BUFFER)} messages behind: a client that stops reading for {time(BUFFER / rate)} at that rate, beyond what "
            "the kernel takes",
            "it is closed with 4102, or told what it missed",
            "`read_pauses`, `closed.4102`, `dropped`, `missed`, `gaps`",
            "`RUSTY_SOCKS_BUFFER`, `RUSTY_SOCKS_BUFFER_BYTES`, `RUSTY_SOCKS_OVERFLOW`",
        )
    return rendered(found, "traffic")


def of_rooms(about, room_bytes, ratio):
    """A list, not a table: there are few."""
    lines = [
        f"- **{count(MAX_ROOMS)} rooms**, as shipped. One more is answered with `limit_exceeded`; `rooms` in `/stats`; "
        f"`RUSTY_SOCKS_MAX_ROOMS`, up to {count(MAX_ROOMS_MOST)}.",
        f"- **{count(SWEEP_ROOMS_A_S)} rooms a second** are looked at for what is too old, by worker 0. With {count(MAX_ROOMS)} "
        f"rooms a message is forgotten up to {MAX_ROOMS // SWEEP_ROOMS_A_S} s after its age, with a million up to 17 minutes, and "
        "an empty room stays as long; no setting.",
        f"- **Letters**: a room has a counter for each worker, 4 B, so 1 KiB with {WORKERS_MAX}.",
    ]
    if room_bytes and ratio:
        memory = about["memory_gib"] * (1 << 30)
        full = room_bytes + HISTORY_BYTES * ratio
        lines.insert(
            1,
            f"- **Memory**: a room that keeps its whole {size(HISTORY_BYTES)} of large messages takes {size(full)}, so "
            f"{rough(memory / full)} of them fill {about['memory_gib']} GiB. `history_bytes` in `/stats` is the sum of the messages; "
            "`RUSTY_SOCKS_HISTORY_BYTES`, `RUSTY_SOCKS_HISTORY`, `RUSTY_SOCKS_HISTORY_AGE`.",
        )
    return "\n".join(lines)
