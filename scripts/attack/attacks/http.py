"""What can be asked before there is a WebSocket."""

import subprocess
import threading
import time

from ..scene import pump
from . import attack

PIPELINE_S, PIPELINE_SHORT_S = 10, 2


def request(line):
    return f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def pipeline(scene, line, connections):
    socks = [scene.dial() for _ in range(connections)]
    with scene.measured():
        pump(socks, request(line) * 1000, scene.scale(PIPELINE_S, PIPELINE_SHORT_S))


@attack("http-stats-100", "pipelines `HEAD /stats` on 100 connections")
def http_stats(scene):
    pipeline(scene, "HEAD /stats", 100)


@attack("http-stats-10", "pipelines `HEAD /stats` on 10 connections")
def http_stats_10(scene):
    pipeline(scene, "HEAD /stats", 10)


@attack("http-health", "pipelines `GET /health` on 100 connections")
def http_health(scene):
    pipeline(scene, "GET /health", 100)


@attack("http-unread", "1,000 HTTP sockets that pipeline and never read")
def http_unread(scene):
    socks = [scene.dial(receive_bytes=4096) for _ in range(scene.scale(1000, 200))]
    with scene.measured():
        seconds, answers = scene.scale(15, 3), []
        # Half-way through, as an operator would who looks what is wrong.
        ask = lambda: answers.append(scene.server.stats(5) is not None)
        asker = threading.Timer(seconds / 2, ask)
        asker.start()
        pump(socks, request("GET /stats") * 1000, seconds, reads=False)
        asker.join()
        scene.fact("stats_answer", answers[0])


@attack("health-squat", "4,096 keep-alive sockets that ask `/health` now and then")
def health_squat(scene):
    asked = request("GET /health")
    socks = []
    with scene.measured():
        deadline = time.monotonic() + scene.scale(12, 4)
        while len(socks) < 4096 and time.monotonic() < deadline:
            sock = scene.dial()
            sock.sendall(asked)
            sock.setblocking(False)
            socks.append(sock)
        answers = []
        while time.monotonic() < deadline:
            for sock in socks:
                try:
                    sock.recv(1 << 16)
                    sock.send(asked)
                except OSError:
                    pass
            answers.append(health(scene))
            # Often enough to be kept, as the head of the next request is due in 5 s.
            time.sleep(1)
        scene.fact("sockets", len(socks))
        scene.fact("health_checks", len(answers))
        scene.fact("health_checks_failed", sum(code != 0 for code in answers))


def health(scene):
    """The exit code of the program that an orchestrator runs."""
    url = "http://{}:{}".format(*scene.address)
    checked = subprocess.run(
        [scene.binary, "health", "--url", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    return checked.returncode
