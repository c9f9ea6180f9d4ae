"""The server's own bad luck: pauses, logs that nobody takes, descriptors that are gone."""

import fcntl
import os
import re
import select
import signal
import subprocess
import time

from .. import wire
from ..server import Server
from . import attack


@attack("stopped", "(no attack) a process that stood still for 5 s, at `TIMEOUT=3`", TIMEOUT=3)
def stopped(scene):
    # Each says something every second, whatever happens.
    crowd = scene.crowd(90, beat_s=1)
    with scene.measured():
        scene.server.signal(signal.SIGSTOP)
        time.sleep(5)
        scene.server.signal(signal.SIGCONT)
        time.sleep(2)
        scene.fact("clients", crowd.opened)
        scene.fact("clients_closed", crowd.ended()[0])


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
    token = client.wait_for(type="welcome")["session"]
    with scene.measured():
        client.ask(type="join", room="secret")
        client.reset()
        again = scene.client()
        again.ask(type="resume", session=token)
    scene.fact("token_in_log", scene.server.log_text().count(token.encode()))


# A file each for the standard streams and the library's own, and then clients.
FILES_MAX = 64


def with_few_files(binary, settings, core):
    return Server(binary, settings, core, files_max=FILES_MAX)


@attack(
    "sigterm-files",
    "(no attack) SIGTERM while no descriptor is left",
    own_server=with_few_files,
)
def sigterm_files(scene):
    insider = scene.client()
    insider.wait_for(type="welcome")
    with scene.measured():
        for _ in range(FILES_MAX):
            sock = scene.dial()
            sock.sendall(wire.UPGRADE.format(extra="").encode())
        time.sleep(0.5)
    # The sockets of the stranger are gone; an insider takes their places, and then the signal.
    held = [wire.dial(scene.address) for _ in range(FILES_MAX)]
    for sock in held:
        sock.sendall(wire.UPGRADE.format(extra="").encode())
    time.sleep(1)
    files = len(os.listdir(f"/proc/{scene.server.pid}/fd"))
    insider.sock.settimeout(5)
    scene.server.signal(signal.SIGTERM)
    started = time.monotonic()
    try:
        insider.wait_for(type="closing")
        scene.fact("told_after_s", round(time.monotonic() - started, 2))
    except (OSError, wire.Closed) as error:
        scene.fact("told_after_s", f"never within 5 s ({type(error).__name__})")
    scene.fact("files_open", files)
    for sock in held:
        sock.close()
