"""The laws that the measurements follow, and what they predict where nobody has measured."""

from dataclasses import dataclass

import fit
from bounds import default
from measured import kernel_bytes, medians, per_publish, rss_bytes

US = 1e-6
PING_S = default("ping")
# Publishes before those that the driver counts, as in run.py.
WARMUP = 20


@dataclass
class Laws:
    """Times in µs, memory in bytes. What was not measured is None."""

    # The server's memory, by connections.
    rss_echo: fit.Line | None
    rss_chat: fit.Line | None
    # The kernel's, for the server's end of one connection.
    kernel: float | None
    connections_most: int
    # Of one more connection, in all threads and in the accepting one.
    connect: float | None
    acceptor: float | None
    ping: float | None
    # Of an echo, by connections.
    echo_all: fit.Line | None
    echo_few: fit.Line | None
    # Of a publish, by members.
    publish: fit.Line | None
    members_most: int
    # Of a delivery in the largest room, whose members are in no cache any more.
    delivery_far: float | None
    # Of a publish, by workers that have members in the room, and the publishing worker's part of it.
    letter: fit.Line | None
    posting: fit.Line | None
    # Of a publish that nobody is sent, and of one to one member in a busy room.
    keep: float | None
    one_room: float | None

    @property
    def letter_us(self):
        """A worker more cannot make a publish cheaper: less than nothing is noise."""
        return max(self.letter.each, 0) if self.letter else None

    @property
    def posting_us(self):
        """The part of a letter that its sender pays, with the bell that wakes its reader."""
        return min(max(self.posting.each, 0), self.letter_us) if self.posting else self.letter_us

    def connection_bytes(self):
        return self.rss_chat.each + self.kernel if self.rss_chat and self.kernel else None

    def echo_at(self, connections):
        """Beyond the points an echo does not get cheaper, whatever the noise says."""
        return max(self.echo_all.at(connections), self.echo_all.at(self.connections_most))

    def deliveries_per_s(self):
        return 1 / (self.publish.each * US) if self.publish else None

    # ---- What several cores give. Only the letters are known to be lost; the rest is taken to divide. ----

    def publish_cpu(self, members, workers):
        """All CPU time of one publish, in all workers together."""
        return self.publish.at(members) + self.letter_us * (workers_with_members(members, workers) - 1)

    def publishes_per_s(self, members, cores):
        """Into many rooms, all cores busy."""
        return cores / (self.publish_cpu(members, cores) * US)

    def efficiency(self, members, cores):
        return self.publish.at(members) / self.publish_cpu(members, cores)

    def one_room_per_s(self, members, cores):
        """Into one room: its lock is held for one publish at a time, and each worker must keep up with its part."""
        work = self.publish_cpu(members, cores) / cores
        return 1 / (max(self.locked(members, cores), work) * US)

    def locked(self, members, cores):
        """For how long a publish has the room to itself, at most: as long as all that one costs to which nobody
        listens, and as all that the sender of its letters pays."""
        return self.keep + self.posting_us * (workers_with_members(members, cores) - 1)

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


def posting(results, publish):
    """What the publishing worker pays for a publish, less the deliveries to its own members, by workers. One
    connection publishes, and so its worker is the one that has most to do."""

    def own_part(report):
        workers, each = report.get("workers_us"), publish.each if publish else 0
        if not workers:
            return None
        # The few publishes of the warm-up are in both.
        deliveries = report["members"] / len(workers) * each
        return max(max(workers) / (report["messages"] + WARMUP) - deliveries, 0.001)

    return medians(results.sweep("workers", own_part))


def laws(results):
    def ladder(name, figure):
        return medians(results.ladder(name, figure))

    def at_most(points):
        return points[-1][1] if points else None

    def middle(points):
        values = sorted(value for _, value in points)
        return values[len(values) // 2] if values else None

    members = medians(results.sweep("members", per_publish))
    each_delivery = medians(results.sweep("members", "cpu_us_per_delivery"))
    kept = results.summary("keep:100:128", "cpu_us_per_publish")
    one_room = results.summary("one-room", "cpu_us_per_publish")
    chat_rungs = ladder("memory-chat", rss_bytes)
    return Laws(
        rss_echo=fit.line(ladder("memory-echo", rss_bytes)),
        rss_chat=fit.line(chat_rungs),
        kernel=at_most(ladder("memory-chat", kernel_bytes)),
        connections_most=chat_rungs[-1][0] if chat_rungs else 0,
        connect=middle(ladder("memory-chat", "connect.cpu_us_each")),
        acceptor=middle(ladder("memory-chat", "connect.acceptor_cpu_us_each")),
        ping=at_most(ladder("pings", "idle.cpu_us_per_ping")),
        echo_all=fit.line(ladder("echo", "all.cpu_us_per_message"), logarithmic=True),
        echo_few=fit.line(ladder("echo", "few.cpu_us_per_message"), logarithmic=True),
        publish=fit.line(members),
        members_most=members[-1][0] if members else 0,
        delivery_far=each_delivery[-1][1] if each_delivery else None,
        posting=fit.line(posting(results, fit.line(members))),
        letter=fit.line(medians(results.sweep("workers", per_publish))),
        keep=kept.median if kept else None,
        one_room=one_room.median if one_room else None,
    )
