"""What breaks, at which number, what one sees of it, and what moves it. ARCHITECTURE.md has a row
for each bound of the server."""

from bounds import constant, default, most
from model import PING_S, US
from page import Missing, count, known, rough, size, table, time

PAGE = 4096
BACKLOG = constant("src/server/mod.rs", "BACKLOG")
HANDOFF_MAX = constant("src/pool/acceptor.rs", "HANDOFF_MAX")
# A sweep takes so many, once a second.
SWEEP_ROOMS_A_S = constant("src/hub/rooms.rs", "SWEEP_ROOMS_MAX")
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


def ranked(what, *makers):
    """A table of limits. Each maker returns what a limit is ranked by, and its row as one text with
    `|` between the cells. A limit is left out where its figure was not measured, or where the
    kernel does not have it."""
    limits = sorted(known(*makers), key=lambda limit: limit[0])
    rows = [[cell.strip() for cell in " ".join(text.split()).split(" | ")] for _, text in limits]
    return table([what, "what breaks", "what one sees", "what moves it"], rows)


def of_connections(laws, about):
    """Ranked by how many connections there are."""
    files, memory = about["files_max"], about["memory_gib"] * (1 << 30)

    def sysctl(name, index=0):
        if name not in about["kernel_limits"]:
            raise Missing(f"this kernel has no {name}")
        return about["kernel_limits"][name][index]

    def backlog():
        bound = sysctl("net.core.somaxconn")
        return min(BACKLOG, bound) + 0.5, f"""{count(min(BACKLOG, bound))} at once
            | at the same moment: the kernel's queue of connections that were not accepted yet
            | nothing in `/stats`; clients time out or come a second late; `nstat` counts
              `TcpExtListenOverflows`
            | the smaller of `net.core.somaxconn` ({count(bound)} here) and the server's own
              {count(BACKLOG)}, which is no setting; `net.ipv4.tcp_max_syn_backlog` for those before"""

    def ports():
        ports = sysctl("net.ipv4.ip_local_port_range", 1) - sysctl("net.ipv4.ip_local_port_range") + 1
        return ports, f"""{count(ports)} from one address
            | local ports of one client address to one address and port of the server: a proxy's
              limit, or a load test's
            | nothing at the server; the client's `connect` fails with `EADDRNOTAVAIL`, and becomes
              slow once every other port is taken
            | more addresses on either side (each of 127/8 is one more on loopback), or
              `net.ipv4.ip_local_port_range` of the client"""

    def tracked():
        most = sysctl("net.netfilter.nf_conntrack_max")
        return most, f"""{count(most)} | connections that the kernel's packet filter tracks, if one
            does
            | nothing at the server; `nf_conntrack: table full, dropping packet` in `dmesg`, new
              clients time out
            | `net.netfilter.nf_conntrack_max`, or a `notrack` rule for the port"""

    def accepting():
        rate = 1 / (laws.acceptor * US)
        return rate * PATIENCE_S, f"""{rough(rate * PATIENCE_S)} within {PATIENCE_S} s
            | everyone comes back after a restart, and a client waits {PATIENCE_S} s for its
              connection: there is one accepting thread, {rough(rate)} a second on a core of its own
            | `sockets_total` grows by no more a second while `sockets` is low; that thread takes a
              whole core
            | no setting: let clients come back at random times (the `reconnect_after_ms` of a drain
              does), or run several servers"""

    def idle():
        each = laws.connection_bytes
        return memory / each, f"""{rough(memory / each)}
            | memory for idle chat sessions, {size(each)} each with the kernel's part, of
              {about["memory_gib"]} GiB
            | the kernel's OOM killer; before that `MemAvailable`
            | more memory, or `RUSTY_SOCKS_MAX_CONN` below it"""

    def unsent():
        pages, largest = sysctl("net.ipv4.tcp_mem", 2) * PAGE, sysctl("net.ipv4.tcp_wmem", 2)
        return pages / largest, f"""{rough(pages / largest)} of them slow
            | the kernel's memory for data in sockets, {size(pages)} for the whole machine, where
              each of them has as much as one may hold unsent ({size(largest)})
            | `TCP: out of memory` in `dmesg`; everyone's segments are dropped and come late
            | the third number of `net.ipv4.tcp_mem`, that of `net.ipv4.tcp_wmem`; of data that is
              not on the wire yet, the server lets the kernel have 128 KiB a connection"""

    def pings():
        most = PING_S / (laws.ping * US)
        return most, f"""{rough(most)} a core
            | one core is busy with pings alone, at {laws.ping:.1f} µs each and one every {PING_S} s
            | the workers' CPU time, with nobody talking
            | `RUSTY_SOCKS_PING` (with `RUSTY_SOCKS_TIMEOUT` above it),
              `RUSTY_SOCKS_THREAD_POOL_SIZE`"""

    above = "".join(known(lambda: f"above {count(sysctl('fs.nr_open'))} also `fs.nr_open`; "))
    return ranked(
        "connections",
        lambda: (MAX_CONN, f"""{count(MAX_CONN)} | the sessions served, as shipped
            | the next {count(MAX_QUEUED_TASKS)} wait in line for at most 10 s (`queued`), then 503:
              `rejected.full`, `rejected.queue_timeout`, the log's `refused: …`
            | `RUSTY_SOCKS_MAX_CONN` (up to {count(MAX_CONN_MOST)}), `RUSTY_SOCKS_MAX_QUEUED_TASKS`"""),
        lambda: (MAX_PENDING_HEADS, f"""{count(MAX_PENDING_HEADS)} at once
            | at the same moment: sockets whose request has not come; {count(HANDOFF_MAX)} of them
              for each worker may be on their way from the acceptor
            | 503 from the acceptor: `rejected.pending_heads`, `pending_heads`
            | `RUSTY_SOCKS_MAX_PENDING_HEADS`, `RUSTY_SOCKS_HANDSHAKE_TIMEOUT`; more cores, so that
              heads are read sooner"""),
        backlog,
        lambda: (MAX_AWAY_SESSIONS, f"""{count(MAX_AWAY_SESSIONS)} lost at once
            | chat clients that lose their connections within one `RUSTY_SOCKS_RESUME_WINDOW` (60
              s): a switch that restarts
            | `sessions_evicted` grows, and when those clients come back, `resume` is answered with
              `unrecoverable`
            | `RUSTY_SOCKS_MAX_AWAY_SESSIONS`, paid for with the memory of a session each"""),
        lambda: (files - OTHER_FILES, f"""{count(files - OTHER_FILES)}
            | file descriptors of the process, one a connection
            | at start, the log's `the limit of open files (…) is below max_conn +
              max_queued_tasks`; then `cannot accept, will keep trying: Too many open files`,
              `accept_backoffs_total`; new connections wait in the kernel's queue
            | the hard `ulimit -n` (`LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker), which
              the server raises its own to; {above}`fs.file-max` for the whole machine"""),
        ports,
        tracked,
        accepting,
        idle,
        lambda: (memory / BUFFER_BYTES, f"""{rough(memory / BUFFER_BYTES)} of them slow
            | memory for clients that read nothing and are sent much: each may have its outbox full
            | `read_pauses`, then `closed.4102` and `dropped`, or `missed` and `gaps` where the room
              has another policy
            | `RUSTY_SOCKS_BUFFER_BYTES`, `RUSTY_SOCKS_BUFFER`, `RUSTY_SOCKS_OVERFLOW`"""),
        unsent,
        pings,
    )  # fmt: skip


def of_traffic(laws):
    """Ranked by the rate that is asked of one worker or one room."""
    cores = "`RUSTY_SOCKS_THREAD_POOL_SIZE`, as many as there are cores"

    def turn():
        members = LONG_TURN_S / (laws.publish.each * US)
        return 1 / LONG_TURN_S, f"""one publish to {rough(members)} members of one worker
            | takes its worker {time(LONG_TURN_S)}, in which nobody else there is served
            | `turn_us.p99` and `turn_us.max` | {cores}; smaller rooms"""

    def thousand():
        rate = 1 / (laws.publish.at(1000) * US)
        return rate, f"""{rough(rate)} publishes a second to 1,000 members
            | one worker is busy all the time, and latency grows without end
            | `turn_us`; `messages_out` stops growing with what is asked for; `read_pauses` and 4102
              when clients lag too
            | {cores}; `RUSTY_SOCKS_RATE_MESSAGES` for those who publish"""

    def deliveries():
        return laws.deliveries_per_s, f"""{rough(laws.deliveries_per_s)} deliveries a second
            | the same, however they are divided into rooms | `deliveries`, `turn_us` | {cores}"""

    def lock():
        rate = 1 / (laws.one_room * US)
        return rate, f"""{rough(rate)} publishes a second into one room
            | its lock is held for one publish at a time. This is what one core does with one other
              member there, parsing and delivery included; what is under the lock is less, but with
              many workers has all their letters in it
            | several workers are busy and the rate does not grow; nothing counts the wait for a
              lock
            | more rooms: no setting divides one"""

    def letters():
        rate = 1 / (laws.one_room * US)
        return rate + 0.5, f"""{count(MAILBOX)} letters that wait for one worker:
            {time(MAILBOX / rate)} of such publishes
            | at half of them the workers stop reading from those who publish; at the bound
              `publish` is answered `overloaded` and nobody gets it
            | `workers[].mailbox`, `pressure_pauses`, `workers[].mailbox_refused`
            | `RUSTY_SOCKS_MAILBOX`, `RUSTY_SOCKS_MAILBOX_BYTES`"""

    def behind():
        rate = 1 / (laws.one_room * US)
        return rate + 0.6, f"""{count(BUFFER)} messages behind: a client that stops reading for
              {time(BUFFER / rate)} at that rate, beyond what the kernel takes
            | it is closed with 4102, or told what it missed | `read_pauses`, `closed.4102`,
              `dropped`, `missed`, `gaps`
            | `RUSTY_SOCKS_BUFFER`, `RUSTY_SOCKS_BUFFER_BYTES`, `RUSTY_SOCKS_OVERFLOW`"""

    return ranked("traffic", turn, thousand, deliveries, lock, letters, behind)


def of_rooms(laws, about):
    """A list, not a table: there are few."""

    def memory():
        full = laws.room_bytes + HISTORY_BYTES * laws.history_ratio
        return f"""- **Memory**: a room that keeps its whole {size(HISTORY_BYTES)} of large messages
            takes {size(full)}, so {rough(about["memory_gib"] * (1 << 30) / full)} of them fill
            {about["memory_gib"]} GiB. `history_bytes` in `/stats` is the sum of the messages;
            `RUSTY_SOCKS_HISTORY_BYTES`, `RUSTY_SOCKS_HISTORY`, `RUSTY_SOCKS_HISTORY_AGE`."""

    return "\n".join(known(
        lambda: f"""- **{count(MAX_ROOMS)} rooms**, as shipped. One more is answered with
            `limit_exceeded`; `rooms` in `/stats`; `RUSTY_SOCKS_MAX_ROOMS`, up to
            {count(MAX_ROOMS_MOST)}.""",
        memory,
        lambda: f"""- **{count(SWEEP_ROOMS_A_S)} rooms a second** are looked at for what is too old,
            by worker 0. With {count(MAX_ROOMS)} rooms a message is forgotten up to
            {MAX_ROOMS // SWEEP_ROOMS_A_S} s after its age, with a million up to 17 minutes, and an
            empty room stays as long; no setting.""",
        lambda: f"""- **Letters**: a room has a counter of 4 B for each worker, so 1 KiB with
            {WORKERS_MAX}.""",
    ))  # fmt: skip
