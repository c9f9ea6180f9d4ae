"""Many clients that read as steadily as one can, in a process of their own.

What they read is thrown away in the kernel, so that thousands of them cost less than the server.
"""

import multiprocessing
import os
import select
import time

from . import wire

DISCARD_BYTES = 4 << 20
# An honest client says something now and then, so that it is not closed as silent. A pong that
# nobody asked for costs least.
ALIVE = wire.frame(b"", wire.PONG)
BEAT_S = 10.0
TICK_S = 0.1
CONNECT_S_MAX = 60


class Crowd:
    """`count` clients that sent `first` after they got in, and read until they are ended.

    Each says that it is alive every `beat_s`. `paced` limits what each reads a second, in bytes.
    """

    def __init__(self, server, core, count, first=b"", extra="", beat_s=BEAT_S, paced=None):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        args = (server, core, theirs, count, first, extra, beat_s, paced)
        self.process = context.Process(target=_run, args=args, daemon=True)
        self.process.start()
        theirs.close()
        self.count = count
        self.opened = self._answer(CONNECT_S_MAX + 30)

    def _answer(self, timeout=30):
        if not self.pipe.poll(timeout):
            raise RuntimeError("the crowd does not answer")
        return self.pipe.recv()

    def say(self, data):
        """Has every client send this."""
        self.pipe.send(("say", data))
        self._answer(60)

    def ended(self):
        """How many were ended by the server so far, and how many bytes were read."""
        self.pipe.send(("ended", None))
        return self._answer()

    def close(self):
        if self.process.is_alive():
            self.process.kill()
        self.process.join(10)
        self.pipe.close()


def _run(server, core, pipe, count, first, extra, beat_s, paced):
    if core is not None:
        os.sched_setaffinity(0, {core})
    # The quiet clients share this core, and must not wait for the crowd.
    os.nice(5)
    clients, deadline = {}, time.monotonic() + CONNECT_S_MAX
    for nth in range(count):
        if time.monotonic() > deadline:
            break
        try:
            sock, _ = wire.upgrade(server, wire.member_address(nth), extra=extra)
            sock.sendall(first)
        except (OSError, wire.Closed):
            continue
        sock.setblocking(False)
        clients[sock.fileno()] = sock
    pipe.send(len(clients))
    _Readers(pipe, clients, beat_s, paced).run()


class _Readers:
    def __init__(self, pipe, clients, beat_s, paced):
        self.pipe, self.clients, self.paced = pipe, clients, paced
        self.waste = bytearray(DISCARD_BYTES)
        self.chunk = int(paced * TICK_S) if paced else DISCARD_BYTES
        self.ended = self.got = 0
        self.poller = select.epoll()
        for number in [pipe.fileno(), *clients]:
            self.poller.register(number, select.EPOLLIN)
        # Everyone's turn to be heard comes once in `beat_s`.
        self.due, self.turns = [], max(1, round(beat_s / TICK_S))

    def run(self):
        next_tick = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_tick:
                next_tick = max(next_tick + TICK_S, now)
                self.beat()
            if self.paced:
                time.sleep(max(0, next_tick - now))
            for number, _ in self.poller.poll(0 if self.paced else max(0, next_tick - now)):
                if number != self.pipe.fileno():
                    self.read(number)
                elif not self.obey():
                    return

    def beat(self):
        if not self.due:
            self.due = list(self.clients)
            self.each = len(self.due) // self.turns + 1
        now, self.due = self.due[: self.each], self.due[self.each :]
        for number in now:
            if number in self.clients:
                self.say(number, ALIVE)

    def read(self, number):
        try:
            size = self.clients[number].recv_into(self.waste, self.chunk, wire.DISCARD)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self.got += size
        if size == 0:
            self.ended += 1
            self.poller.unregister(number)
            self.clients.pop(number).close()

    def obey(self):
        try:
            what, data = self.pipe.recv()
        except EOFError:
            return False
        if what == "say":
            for number in self.clients:
                self.say(number, data)
            self.pipe.send(True)
        else:
            self.pipe.send((self.ended, self.got))
        return True

    def say(self, number, data):
        try:
            self.clients[number].send(data)
        except OSError:
            pass
