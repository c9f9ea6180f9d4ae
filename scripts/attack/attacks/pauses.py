"""The server's own bad luck: pauses, logs that nobody takes, descriptors that are gone."""

import fcntl
import os
import re
import select
import signal
import subprocess
import threading
import time

from .. import wire
from ..server import Server
from . import attack


class Answering(threading.Thread):
    """Clients that answer the server's pings and say nothing else, as browsers do."""

    def __init__(self, scene, count):
        super().__init__(daemon=True)
        self.clients = {}
        for nth in range(count):
            sock, rest = wire.upgrade(scene.address, f"127.4.0.{nth + 1}")
            self.clients[sock.fileno()] = (sock, wire.Frames(rest))
        self.codes, self.ending = [], False

    def run(self):
        poller = select.poll()
        for number in self.clients:
            poller.register(number, select.POLLIN)
        while not self.ending:
            for number, _ in poller.poll(100):
                if code := self.answer(*self.clients[number]):
                    self.codes.append(code)
                    poller.unregister(number)

    def answer(self, sock, frames):
        """Returns the code of a close, or 1006 where the connection is lost."""
        try:
            data = sock.recv(1 << 16)
            frames.feed(data)
            for opcode, payload in frames.take():
                if opcode == wire.CLOSE:
                    return int.from_bytes(payload[:2], "big") or 1005
                if opcode == wire.PING:
                    sock.sendall(wire.frame(payload, wire.PONG))
        except OSError:
            return 1006
        return 0 if data else 1006


@attack(
    "stopped",
    "(no attack) a process that stood still for 5 s, at `TIMEOUT=3` and `PING=1`",
    TIMEOUT=3,
    PING=1,
)
def stopped(scene):
    clients = Answering(scene, 90)
    clients.start()
    with scene.measured():
        scene.server.signal(signal.SIGSTOP)
        time.sleep(5)
        scene.server.signal(signal.SIGCONT)
        time.sleep(2)
        scene.fact("clients_closed", len(clients.codes))
        scene.fact("codes", sorted(set(clients.codes)))
    clients.ending = True
    clients.join()


def with_unread_log(binary, settings, core):
    """A server whose standard error is a small pipe, of which only the first lines are read."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    server = Server(binary, settings, core, stderr=writing)
    os.close(writing)
    said, deadline = b"", time.monotonic() + 10
    while time.monotonic() < deadline:
        if select.select([reading], [], [], 0.2)[0]:
            said += os.read(reading, 4096)
        if found := re.search(rb"listens on 127\.0\.0\.1:(\d+)", said):
            server.address = ("127.0.0.1", int(found[1]))
            server.unread = reading
            return server
    server.stop()
    raise RuntimeError("the server does not listen")


@attack(
    "log-pipe",
    "(no attack) standard error is a pipe that nobody reads",
    own_server=with_unread_log,
    LOG="debug",
)
def log_pipe(scene):
    with scene.measured():
        deadline = time.monotonic() + scene.scale(6, 3)
        while time.monotonic() < deadline:
            try:
                sock, _ = wire.upgrade(scene.address, timeout=0.2)
                sock.close()
            except (OSError, wire.Closed):
                time.sleep(0.05)
    scene.server.signal(signal.SIGTERM)
    time.sleep(0.5)
    scene.server.signal(signal.SIGTERM)
    scene.fact("second_signal_ends_it", ends_within(scene.server, 3))


def ends_within(server, seconds):
    try:
        server.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@attack("log-tokens", "(no attack) `LOG=trace`", LOG="trace")
def log_tokens(scene):
    client = scene.client()
    token = client.wait_for(type="welcome")["session"].encode()
    whole = b'{"type":"resume","ref":"asked","session":"' + token + b'"}'
    frame, half = wire.frame(whole), len(whole) // 2
    with scene.measured():
        # In one piece, in two reads, and as two fragments: each is another way through the decoder.
        ways = [
            [frame],
            [frame[:half], frame[half:]],
            [wire.frame(whole[:half], first=0), wire.frame(whole[half:], opcode=0)],
        ]
        for pieces in ways:
            again = scene.client()
            for piece in pieces:
                again.sock.sendall(piece)
                time.sleep(0.1)
            again.wait_for(ref="asked", type="ok")
    log = scene.server.log_text()
    # A frame is logged in hexadecimal by some libraries.
    scene.fact("token_in_log", log.count(token) + log.count(token.hex().encode()))
    scene.fact("log_lines", log.count(b"\n"))


# A file each for the standard streams and the library's own, and then clients.
FILES_MAX = 64
# Of these the server leaves a quarter to the rest of the process.
FOR_CLIENTS = FILES_MAX - FILES_MAX // 4


def with_few_files(binary, settings, core):
    return Server(binary, settings, core, files_max=FILES_MAX)


@attack(
    "sigterm-files",
    "(no attack) SIGTERM while clients have all descriptors that they can get",
    own_server=with_few_files,
)
def sigterm_files(scene):
    insider = wire.Client(scene.address, "127.3.0.1")
    insider.wait_for(type="welcome")
    held = []
    with scene.measured():
        for _ in range(FILES_MAX):
            scene.dial()
        time.sleep(0.5)
    # The quiet clients have gone. The one that is left is what the acceptor waits with.
    deadline = time.monotonic() + 10
    while files_of(scene.server.pid) < FOR_CLIENTS - 1 and time.monotonic() < deadline:
        held.append(wire.Client(scene.address))
        held[-1].wait_for(type="welcome")
        time.sleep(0.05)
    scene.fact("files_left", FILES_MAX - files_of(scene.server.pid))
    scene.server.signal(signal.SIGTERM)
    started = time.monotonic()
    insider.sock.settimeout(5)
    try:
        insider.wait_for(type="closing")
        scene.fact("told_after_s", round(time.monotonic() - started, 2))
    except (OSError, wire.Closed) as error:
        scene.fact("told_after_s", f"not within 5 s ({error})")
    for client in [insider, *held]:
        client.close()


def files_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
