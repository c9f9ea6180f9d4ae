"""What an attack works with: a server, quiet clients beside it, crowds, and the phases of the
measurement."""

import contextlib
import os
import select
import time

from . import wire
from .core_wait import CoreWait
from .crowd import Crowd
from .probe import Probe
from .server import Server, kernel_mb

# How long an attack's aftermath is waited for; until then the attack is not over.
CALM_S_MAX = {False: 60.0, True: 8.0}
CALM_POLL_S, CALM_POLLS = 0.1, 5
QUIET_S = {False: 3.0, True: 1.0}


def cores():
    """The server's core and that of everyone else; none where there is but one."""
    known = sorted(os.sched_getaffinity(0))
    return (known[0], known[1]) if len(known) > 1 else (None, None)


class Scene:
    """One attack from its set-up to its figures."""

    def __init__(self, attack, binary, short, settings=None):
        self.attack, self.short, self.binary = attack, short, binary
        self.server_core, self.core = cores()
        self.facts, self.socks, self.crowds = {}, [], []
        self.figures = {"before": {}, "during": {}, "after": {}}
        start = attack.own_server or Server
        self.settings = attack.settings | (attack.short_settings if short else {})
        self.settings |= settings or {}
        self.server = start(binary, self.settings, self.server_core)
        self.probe = self.quiet = self.core_wait = None

    @property
    def address(self):
        return self.server.address

    def begin(self):
        """Lets the quiet clients in, and only then makes everything else less urgent than they."""
        self.probe = Probe(self.address, self.core)
        self.core_wait = CoreWait(self.server.pid, self.core)
        if self.core is not None:
            os.sched_setaffinity(0, {self.core})
        os.nice(5)

    def scale(self, full, short):
        """A number for the whole attack, or for its short form."""
        return short if self.short else full

    def fact(self, name, value):
        """Notes something besides the waits."""
        self.facts[name] = value

    def crowd(self, count, first=b"", **how):
        """Honest clients, all of which read: they must not be closed."""
        crowd = Crowd(self.address, self.core, count, first, **how)
        self.crowds.append(crowd)
        return crowd

    def stranger(self, *commands, **how):
        """A WebSocket of the attacker's, which has sent these commands."""
        sock, _ = wire.upgrade(self.address, **how)
        sock.sendall(b"".join(commands))
        self.socks.append(sock)
        return sock

    def dial(self, **how):
        """A socket of the attacker's that has said nothing yet."""
        sock = wire.dial(self.address, **how)
        self.socks.append(sock)
        return sock

    def client(self, source="127.3.0.1", timeout=10.0):
        """A client of its own, to look closely."""
        client = wire.Client(self.address, source, timeout)
        self.socks.append(client.sock)
        return client

    @contextlib.contextmanager
    def measured(self):
        """Times the quiet clients before, while what is within runs and until it is over, and
        after."""
        # Until the crowd has arrived and is shown in presence, nothing is quiet.
        time.sleep(1.2)
        self.wait_for_calm(10)
        self.server.forget_peak()
        self.note("before")
        self.probe.begin("before")
        time.sleep(QUIET_S[self.short])
        self.probe.begin("during")
        started = time.monotonic()
        try:
            yield
        finally:
            self.fact("attack_s", round(time.monotonic() - started, 1))
            self.figures["during"]["kernel_mb"] = kernel_mb()
            self.wait_for_calm(CALM_S_MAX[self.short])
            self.fact("over_s", round(time.monotonic() - started, 1))
            rss, peak = self.server.memory_mb()
            self.figures["during"].update(rss_mb=rss, peak_mb=peak)
            for sock in self.socks:
                sock.close()
            self.wait_for_calm(CALM_S_MAX[self.short] / 4)
            self.probe.begin("after")
            time.sleep(QUIET_S[self.short])
            self.note("after")
            self.figures["after"]["core_wait_max_ms"] = self.core_wait.finish()
            # What the attack does from here on is none of theirs.
            self.quiet = self.probe.finish()

    def wait_for_calm(self, limit):
        """Waits until the quiet clients have been answered promptly for a while."""
        deadline, calm = time.monotonic() + limit, 0
        while calm < CALM_POLLS and time.monotonic() < deadline:
            time.sleep(CALM_POLL_S)
            calm = calm + 1 if self.probe.is_calm() else 0

    def note(self, phase):
        """Notes memory and counters."""
        stats = self.server.stats(5 if self.short else 30) or {}
        rss, _ = self.server.memory_mb()
        turn = stats.get("turn_us") or {}
        self.figures[phase] |= {
            "rss_mb": rss,
            "memory": {key: value for key, value in stats.items() if key.startswith("memory_")},
            "kernel_mb": kernel_mb(),
            "turn_max_ms": (turn.get("max") or 0) / 1000,
            "stats": {
                key: stats.get(key)
                for key in ("closed", "rejected", "messages_in", "deliveries", "pressure_pauses")
            },
        }

    def result(self):
        """All figures, when everything is over."""
        quiet = self.quiet
        for phase, waits in quiet["waits"].items():
            if phase not in self.figures:
                continue
            figures = self.figures[phase]
            for kind, waited in waits.items():
                seconds = [wait for _, wait in waited]
                # A worker that stands still is not seen in the middle of four.
                of_client = {}
                for client, wait in waited:
                    of_client.setdefault(client, []).append(wait)
                worst = max(quantile(one, 0.5) for one in of_client.values())
                figures[f"{kind}_worst_p50_ms"] = round(worst * 1000, 2)
                for name, share in (("p50", 0.5), ("p99", 0.99)):
                    figures[f"{kind}_{name}_ms"] = round(quantile(seconds, share) * 1000, 2)
            figures["unanswered"] = quiet["unanswered"].get(phase, 0)
            figures["refused"] = quiet["refused"].get(phase, 0)
        ended = sum(crowd.ended()[0] for crowd in self.crowds)
        before = self.figures["before"].pop("stats", {})
        after = self.figures["after"].pop("stats", {})
        return {
            "name": self.attack.name,
            "line": self.attack.line,
            "settings": self.settings,
            "short": self.short,
            "phases": self.figures,
            "insiders_closed": len(quiet["closed"]) + ended,
            "closed": grown(before.get("closed"), after.get("closed")),
            "refused": grown(before.get("rejected"), after.get("rejected")),
            "deliveries": (after.get("deliveries") or 0) - (before.get("deliveries") or 0),
            "facts": self.facts,
        }

    def close(self):
        """Ends everything that was begun."""
        for crowd in self.crowds:
            crowd.close()
        if self.probe:
            self.probe.kill()
        if self.core_wait:
            self.core_wait.kill()
        self.server.stop()


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def grown(before, after):
    """The counters that have grown, and by how much."""
    before, after = before or {}, after or {}
    return {
        key: value - before.get(key, 0)
        for key, value in after.items()
        if value > before.get(key, 0)
    }


def pump(socks, blob, seconds, reads=True, bytes_max=None):
    """Sends `blob` over and over on every socket, as fast as the server takes it, and throws the
    answers away. Returns the bytes sent."""
    poller, view, sent = select.epoll(), memoryview(blob), 0
    by_number, offsets = {}, {}
    for sock in socks:
        sock.setblocking(False)
        by_number[sock.fileno()], offsets[sock.fileno()] = sock, 0
        poller.register(sock.fileno(), select.EPOLLOUT | (select.EPOLLIN if reads else 0))
    waste = bytearray(1 << 20)
    deadline = time.monotonic() + seconds
    while by_number and (left := deadline - time.monotonic()) > 0:
        if bytes_max and sent >= bytes_max:
            break
        for number, event in poller.poll(min(left, 0.5)):
            sock = by_number.get(number)
            if sock is None:
                continue
            try:
                if event & select.EPOLLIN and sock.recv_into(waste, 0, wire.DISCARD) == 0:
                    raise ConnectionResetError
                if event & select.EPOLLOUT:
                    size = sock.send(view[offsets[number] :])
                    sent += size
                    offsets[number] = (offsets[number] + size) % len(blob)
            except BlockingIOError:
                pass
            except OSError:
                poller.unregister(number)
                del by_number[number]
    poller.close()
    return sent
