"""The nodes of a cluster: processes of the server, each with its own way to each Redis."""

import asyncio
import re
import signal
import time

from ..attack.server import Server, get_json
from .links import Link
from .stage import listener

READY_S_MAX = 40
# What says in a log that the server itself has a fault.
FAULT_LINE = re.compile(r"panicked|cannot be read")


class Node:
    """One node. `address` is where clients reach it, `None` while its process does not run."""

    def __init__(self, number, binary, settings):
        self.name, self.binary, self.settings = f"n{number}", str(binary), settings
        self.links = []
        self.address = self.admin = self.server = None
        self.lock = asyncio.Lock()
        self.logs = []

    async def connect_to(self, *ports):
        """Has it reach Redis by a link of its own, or several as its shards."""
        self.links = [await Link(port).begin() for port in ports]
        urls = [f"redis://127.0.0.1:{link.port}" for link in self.links]
        self.settings["REDIS_URL"] = ",".join(urls)

    def link(self, chance):
        """The way to Redis, or to one of several."""
        return self.links[0] if len(self.links) == 1 else chance.choice(self.links)

    def start(self):
        with listener() as clients, listener() as admin:
            self.server = Server(self.binary, self.settings, sockets=[clients, admin])
            self.address, self.admin = clients.getsockname(), admin.getsockname()

    def kill(self):
        self.address = None
        self.server.process.kill()
        self.server.process.wait()
        self.logs.append(self.server.log_text().decode(errors="replace"))

    def signal(self, number):
        self.server.signal(number)

    async def is_ready(self):
        # With some of its shards it is ready, and says which it lacks.
        ready = await asyncio.to_thread(get_json, self.admin, "/ready", 2)
        return ready is not None and "engine" not in ready

    async def wait_until_ready(self, within=READY_S_MAX):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if not self.server.is_running():
                return False
            if await self.is_ready():
                return True
            await asyncio.sleep(0.1)
        return False

    async def stats(self):
        return await asyncio.to_thread(get_json, self.admin, "/stats", 5) or {}

    def log(self):
        """The log of all its processes."""
        return "".join([*self.logs, self.server.log_text().decode(errors="replace")])

    def faults(self):
        return [line for line in self.log().splitlines() if FAULT_LINE.search(line)]

    def end(self):
        if self.server:
            if self.server.is_running():
                self.server.signal(signal.SIGCONT)
            self.server.stop()
        for link in self.links:
            link.end()
