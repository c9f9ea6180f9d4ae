"""Links between a node and Redis that can be cut, stalled and slowed down."""

import asyncio
import contextlib
import random

CHUNK_BYTES_MAX = 1 << 16
# The two ways through a connection: to Redis, and back.
UP, DOWN = "up", "down"


class Link:
    """Listens on a port, and passes on what comes to `target` and back. Of each node's connections
    one is for commands and one for subscriptions: a stall may be of the connections that are odd
    or even, so that one goes on without the other."""

    def __init__(self, target):
        self.target = target
        self.delay_s = 0.0
        self.is_refusing = False
        self.stalled = set()
        self.moved = asyncio.Event()
        self.pairs, self.tasks, self.count = {}, set(), 0
        self.server = None

    async def begin(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        self.count += 1
        number = self.count
        if self.is_refusing:
            return writer.transport.abort()
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return writer.transport.abort()
        self.pairs[number] = (writer, there[1])
        for way, source, sink in ((UP, reader, there[1]), (DOWN, there[0], writer)):
            task = asyncio.create_task(self._pass_on(number, way, source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _pass_on(self, number, way, source, sink):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while chunk := await source.read(CHUNK_BYTES_MAX):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while (way, number % 2) in self.stalled:
                    await self.moved.wait()
                if number not in self.pairs:
                    break
                sink.write(chunk)
                await sink.drain()
        self._abort(number)

    def _abort(self, number):
        for writer in self.pairs.pop(number, ()):
            writer.transport.abort()

    def cut(self):
        """Ends all connections by a reset; what is on its way is lost."""
        for number in list(self.pairs):
            self._abort(number)
        self._wake()

    def stall(self, chance: random.Random):
        """Lets nothing through: of all connections or of every other one, both ways or one."""
        ways = chance.choice(((UP, DOWN), (UP, DOWN), (UP,), (DOWN,)))
        parities = chance.choice(((0, 1), (0,), (1,)))
        self.stalled = {(way, parity) for way in ways for parity in parities}
        return f"{'+'.join(ways)} of {'all' if len(parities) == 2 else 'every other'}"

    def stall_all(self):
        self.stalled = {(way, parity) for way in (UP, DOWN) for parity in (0, 1)}

    def _wake(self):
        self.moved.set()
        self.moved = asyncio.Event()

    def heal(self):
        self.stalled, self.delay_s, self.is_refusing = set(), 0.0, False
        self._wake()

    def end(self):
        self.cut()
        if self.server:
            self.server.close()
