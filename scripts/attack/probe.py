"""Quiet clients, in a process of their own, and how long they wait.

They send at fixed times whether the server answers or not, so that a server that stands still for
ten seconds is seen to do so by four hundred pings and not by one.
"""

import json
import multiprocessing
import os
import select
import socket
import time

from . import wire

# The acceptor gives the next socket to the worker with the fewest, so four clients are on the four
# workers that a server has by default.
CLIENTS = 4
INTERVAL_S = 0.025
# Answers within this time are those of a server that is well.
CALM_S = 0.1
ROOM = "probe.quiet"


class Probe:
    """The quiet clients as seen from the process of the attacks."""

    def __init__(self, server, core):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(server, core, theirs), daemon=True)
        self.process.start()
        theirs.close()
        if (ready := self._answer()) != "ready":
            raise RuntimeError(f"the quiet clients did not get in: {ready}")

    def _answer(self, timeout=60):
        if not self.pipe.poll(timeout):
            raise RuntimeError("the quiet clients do not answer")
        return self.pipe.recv()

    def begin(self, phase):
        """What is sent from now on belongs to this phase."""
        self.pipe.send(("begin", phase))
        self._answer()

    def is_calm(self):
        """Whether all that was asked is answered, and the last of it promptly."""
        self.pipe.send(("calm", None))
        return self._answer()

    def finish(self):
        """Ends the clients. Returns for each phase the waits, each a client and its seconds, and
        who was closed."""
        self.pipe.send(("finish", None))
        answer = self._answer()
        self.process.join(5)
        return answer

    def kill(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join(5)


class _Quiet:
    """One quiet client: it pings, publishes, and sees what the others publish."""

    def __init__(self, server, nth):
        self.sock, rest = wire.upgrade(server, f"127.2.0.{nth + 1}", timeout=20)
        self.frames = wire.Frames(rest)
        self.sock.sendall(
            wire.command(type="leave", room="lobby")
            + wire.command(type="join", room=ROOM, ref="in")
        )
        while not any(payload.find(b'"ref":"in"') > 0 for payload in self.texts()):
            self.frames.feed(self.sock.recv(1 << 16))
        self.closed = None

    def texts(self):
        for opcode, payload in self.frames.take():
            if opcode == wire.TEXT:
                yield payload
            elif opcode == wire.CLOSE:
                self.closed = int.from_bytes(payload[:2], "big") if payload else 1005
            elif opcode == wire.PING:
                self.say(wire.frame(payload, wire.PONG))

    def say(self, data):
        # The server may read nothing for a while; then this one was not said, and stays unanswered.
        try:
            self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            self.closed = self.closed or 1006


def _run(server, core, pipe):
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        clients = [_Quiet(server, nth) for nth in range(CLIENTS)]
    except (OSError, wire.Closed) as error:
        return pipe.send(str(error))
    pipe.send("ready")
    _Watch(clients, pipe).run()


class _Watch:
    def __init__(self, clients, pipe):
        self.clients = {client.sock: client for client in clients}
        self.order = clients
        self.pipe = pipe
        self.phase = "setup"
        self.sent = 0
        # By what was asked: when, and in which phase.
        self.open = {}
        self.waits = {}
        self.refused = {}
        self.last_wait = 0.0

    def run(self):
        poller = select.poll()
        sockets = {sock.fileno(): sock for sock in self.clients}
        for number in [*sockets, self.pipe.fileno()]:
            poller.register(number, select.POLLIN)
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                due = max(due + INTERVAL_S, now - 1)
                self.ask()
                continue
            for number, _ in poller.poll(max(1, (due - now) * 1000)):
                if number == self.pipe.fileno():
                    if self.obey():
                        return
                elif not self.hear(self.clients[sockets[number]]):
                    poller.unregister(number)

    def ask(self):
        now, number = time.monotonic(), self.sent
        self.sent += 1
        client = self.order[number % len(self.order)]
        if client.closed:
            return
        self.open["ping", number] = self.open["publish", number] = (now, self.phase)
        client.say(
            wire.command(type="ping", ref=number)
            + wire.command(type="publish", room=ROOM, content=number, ref=f"publish {number}")
        )

    def hear(self, client):
        """Returns whether there will be more."""
        try:
            data = client.sock.recv(1 << 18)
        except OSError:
            data = b""
        client.frames.feed(data)
        now = time.monotonic()
        for text in client.texts():
            said = json.loads(text)
            if said["type"] == "pong":
                self.note("ping", said.get("ref"), now)
            elif said["type"] == "message":
                # All others get it; the first of them tells.
                self.note("publish", said.get("content"), now)
            elif said["type"] == "error":
                self.refuse(str(said.get("ref")))
        if not data:
            client.closed = client.closed or 1006
        return bool(data)

    def note(self, kind, number, now):
        if asked := self.open.pop((kind, number), None):
            self.last_wait = now - asked[0]
            self.waits.setdefault(asked[1], {}).setdefault(kind, []).append(
                (number % CLIENTS, self.last_wait)
            )

    def refuse(self, reference):
        kind, _, number = reference.rpartition(" ")
        if number.isdigit() and (asked := self.open.pop((kind or "ping", int(number)), None)):
            self.refused[asked[1]] = self.refused.get(asked[1], 0) + 1

    def obey(self):
        what, phase = self.pipe.recv()
        if what == "begin":
            self.phase = phase
            self.pipe.send(True)
        elif what == "calm":
            oldest = min((asked for asked, _ in self.open.values()), default=None)
            is_late = oldest is not None and time.monotonic() - oldest > CALM_S
            # What was asked of a client that is closed by now is never answered.
            if is_late and any(client.closed for client in self.order):
                is_late = False
            self.pipe.send(not is_late and self.last_wait < CALM_S)
        else:
            self.pipe.send(self.result())
            return True
        return False

    def result(self):
        # What was never answered waits at least until now.
        now, unanswered = time.monotonic(), {}
        for (kind, number), (asked, phase) in self.open.items():
            if now - asked > CALM_S:
                waits = self.waits.setdefault(phase, {}).setdefault(kind, [])
                waits.append((number % CLIENTS, now - asked))
                unanswered[phase] = unanswered.get(phase, 0) + 1
        closed = [client.closed for client in self.order if client.closed]
        return {
            "waits": self.waits,
            "unanswered": unanswered,
            "refused": self.refused,
            "closed": closed,
        }
