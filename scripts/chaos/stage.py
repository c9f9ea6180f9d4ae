"""What a fault is done to: a server on sockets that outlive it, and clients."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..attack.server import Server, get_json
from .clients import Clients, short

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = REPOSITORY / "target/release/rusty_socks"
sys.path.insert(0, str(REPOSITORY / "scripts/third-party"))
from checks import certificate  # noqa: E402, F401

# Longer than anything here should take.
DEADLINE_S = 30
# As many as may wait while one server has ended and the next has not begun.
BACKLOG = 4096


def wait_for(what, look, within=DEADLINE_S):
    """Calls `look` until it gives something true, and returns that. `what` is said of it otherwise; it
    may be what to call for that."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {what() if callable(what) else what} within {within} s")


def listener():
    """A socket that listens on a free port of the loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(BACKLOG)
    return listening


class Stage:
    """Two sockets that listen, the servers that were passed them, one after the other, and their
    clients. For the length of a `with`."""

    def __init__(self, binary, **settings):
        self.binary, self.settings = str(binary), settings
        self.kept = contextlib.ExitStack()
        self.dir = Path(self.kept.enter_context(tempfile.TemporaryDirectory(prefix="rusty-socks-")))
        self.sockets = [self.kept.enter_context(listener()) for _ in range(2)]
        self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kept.close()

    @property
    def port(self):
        return self.sockets[0].getsockname()[1]

    @property
    def admin(self):
        return self.sockets[1].getsockname()

    def start(self, env=None, files_max=None, stderr=None, **more):
        """Starts the next server, and waits until it is ready."""
        settings = {"DRAIN_TIMEOUT": 10} | self.settings | more
        self.server = Server(
            self.binary,
            settings,
            files_max=files_max,
            stderr=stderr,
            sockets=self.sockets,
            env=env,
        )
        self.kept.callback(self.server.stop)
        wait_for(lambda: f"ready server: {self.log()}", self.is_ready)
        return self.server

    def is_ready(self):
        if not self.server.is_running():
            raise AssertionError(f"the server has ended: {self.log()}")
        return self.ask("/ready", timeout=1)[0] == 200

    def ask(self, path, method="GET", body=None, headers=None, timeout=5):
        """Status and body of a request to the server API; `None` for both if there is no answer."""
        connection = http.client.HTTPConnection(*self.admin, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None, None
        finally:
            connection.close()

    def stats(self):
        stats = get_json(self.admin, "/stats", DEADLINE_S)
        assert stats, f"no /stats: {self.log()}"
        return stats

    def wait_for_stats(self, what, holds, within=DEADLINE_S):
        def look():
            # An answer may be 100 ms old.
            stats = self.stats()
            return stats if holds(stats) else None

        return wait_for(what, look, within)

    def log(self):
        return self.server.log_text().decode(errors="replace")

    def log_line(self, words, within=DEADLINE_S):
        """Waits for a line with these words, and returns it without its time."""
        found = wait_for(
            f"log line with {words!r}",
            lambda: next((line for line in self.log().splitlines() if words in line), None),
            within,
        )
        return re.sub(r"^\[?\S+ +(\w+) +\S+\] ", r"\1 ", found)

    def ends(self, within=DEADLINE_S):
        """Waits for the end of the server, and returns its exit status."""
        try:
            return self.server.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server does not end: {self.log()}") from None

    def terminate(self):
        self.server.signal(signal.SIGTERM)

    def clients(self, ca=None, **plan):
        """Clients that are in their rooms."""
        scheme = "wss" if ca else "ws"
        url = f"{scheme}://127.0.0.1:{self.port}/ws"
        clients = self.kept.enter_context(Clients(url, ca, **plan))
        clients.entered()
        return clients

    def small_disk(self, kib):
        """A directory with so much space; `None` where only root could make one."""
        place = self.dir / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            return None
        self.kept.callback(subprocess.run, ["umount", "-l", str(place)], capture_output=True)
        return place


def equal(got, wanted, what):
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def all_well(clients, within=60, api=None):
    """Ends the publishing; everything that was published has come to everyone, once and in order.
    Returns the figures."""
    settled = clients.order("settle", withinMs=within * 1000, api=api or {})
    seen = clients.seen()
    wrong = settled | {
        key: seen[key]
        for key in ("doubled", "disordered", "announced", "unannounced", "failed", "ended")
        + ("wrongPages",)
    }
    assert not any(wrong.values()), f"{wrong}: {short(seen)}"
    return seen
