"""A client of a cluster: it comes and goes, talks, and holds the nodes to the protocol."""

import asyncio
import collections
import contextlib
import json
import random
import time
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from .account import Account
from .ledger import Sent

OPEN_S_MAX = 4
# Whoever gets no answer for so long tries another node.
ANSWER_S_MAX = 7
PAUSE_S = (0.02, 0.35)
RETRY_S_MAX = 2
# For so long a resume that was given up may still be carried out, and take the session away.
LATE_RESUME_S = 20
ROOMS = [f"room{number}" for number in range(6)]
# Closes after which a client comes back, as docs/protocol.md has them.
RETURNS = (None, 1001, 1006, 1011, 1012, 1013, *range(4101, 4300))
STORY_CHARS_MAX = 700


class Connection:
    """A WebSocket to a node, and the questions on it that wait."""

    def __init__(self, member, ws, node):
        self.member, self.ws, self.node = member, ws, node
        self.waiting, self.last_ref = {}, 0
        self.welcome = None
        self.closed = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    async def _read(self):
        # An abort is no error of the library's own.
        with contextlib.suppress(WebSocketException, OSError):
            async for text in self.ws:
                self._hear(json.loads(text))
        for _, future in self.waiting.values():
            if not future.done():
                future.set_result(None)
        self.waiting.clear()
        self.closed.set()
        self.member.on_closed(self)

    def _hear(self, frame):
        if frame["type"] == "welcome":
            self.welcome = frame
        if "ref" in frame:
            take, future = self.waiting.pop(frame["ref"], (None, None))
            if take:
                take(frame)
            if future and not future.done():
                future.set_result(frame)
        elif self.member.conn is self:
            self.member.on_frame(frame)

    async def ask(self, command, take=None, within=ANSWER_S_MAX):
        """The answer to a command, or `None` if the connection is lost or none comes in time. `take`
        is given it at once, before any later frame."""
        self.last_ref += 1
        command = {**command, "ref": self.last_ref}
        future = asyncio.get_running_loop().create_future()
        self.waiting[self.last_ref] = (take, future)
        try:
            async with asyncio.timeout(within):
                await self.ws.send(json.dumps(command))
                return await future
        except (TimeoutError, WebSocketException, OSError):
            return None

    def abort(self):
        self.waiting.clear()
        if self.ws.transport:
            self.ws.transport.abort()


class Member:
    """`nodes` are those of the cluster, `share` is how many of its messages are for several rooms."""

    def __init__(self, number, seed, cluster, share):
        self.chance = random.Random(f"{seed} client {number}")
        self.number, self.cluster, self.ledger = number, cluster, cluster.ledger
        self.share = share
        self.sessions, self.count = 0, 0
        self.conn, self.olds = None, []
        self.moving_from = None
        self.lost_at = self.late_until = 0.0
        self.begin(None)

    def begin(self, session):
        """Begins a session, if there is one; its messages that wait for an answer are given up."""
        self.sessions += session is not None
        self.account = Account(f"c{self.number}.{self.sessions}", self.ledger)
        self.session = session
        self.pending, self.due = {}, 0.0
        self.wanted = {}
        # Positions in rooms that it has left.
        self.former = {}
        self.acked_directs = set()

    @property
    def name(self):
        return self.account.name

    def note(self, words):
        self.ledger.note(self.name, str(words)[:STORY_CHARS_MAX])

    def find(self, what, words):
        self.ledger.find(what, self.name, words)

    # --- What it hears.

    def on_frame(self, frame):
        kind = frame["type"]
        self.note(f"← {brief(frame)}")
        if kind == "message":
            self.account.on_message(frame)
        elif kind == "direct":
            self.account.on_direct(frame)
        elif kind == "gap":
            self.account.on_gap(frame)
        elif kind == "epoch":
            self.account.on_epoch(frame)
        elif kind in ("joined", "left", "presence"):
            self.account.on_presence(frame)
        elif kind == "error":
            self.find("an error that nobody asked for", str(frame))

    def on_closed(self, conn):
        if conn is not self.conn:
            return
        code = conn.ws.close_code
        self._lose(f"closed {code}")
        is_late = time.monotonic() < self.late_until
        if code == 4010 and not is_late:
            # A resume on another node that was answered otherwise, and was carried out later.
            return self.find("session taken away", conn.ws.close_reason)
        if code not in (*RETURNS, 4010):
            self.find("closed", f"{code} {conn.ws.close_reason}")

    def _lose(self, why):
        self.note(f"-- {why}")
        self.conn, self.lost_at = None, time.monotonic()

    def drop(self, why):
        """Cuts its connection."""
        if self.conn:
            conn = self.conn
            self._lose(why)
            conn.abort()

    # --- Connections.

    async def come(self):
        """Connects to a node and resumes its session there, or begins one. Returns whether it is
        in."""
        nodes = [node for node in self.cluster.nodes if node.address]
        if not nodes:
            await asyncio.sleep(0.1)
            return False
        here = self.conn.node if self.conn else None
        node = self.chance.choice([node for node in nodes if node is not here] or nodes)
        url = "ws://{}:{}/ws".format(*node.address)
        try:
            ws = await connect(
                url, open_timeout=OPEN_S_MAX, ping_interval=None, compression=None, close_timeout=1
            )
        except (WebSocketException, OSError, TimeoutError, EOFError) as error:
            self.note(f"-- {node.name}: {type(error).__name__}")
            await asyncio.sleep(self.chance.uniform(0.05, 0.3))
            return False
        conn = Connection(self, ws, node)
        if await (self._resume(conn) if self.session else self._greet(conn)):
            return True
        conn.abort()
        await asyncio.sleep(self.chance.uniform(0.05, 0.3))
        return False

    async def _greet(self, conn):
        """Begins a session with the welcome of a connection. A pong comes behind it."""
        if not await conn.ask({"type": "ping"}) or conn.closed.is_set():
            return False
        self._settle_in(conn)
        return True

    def _settle_in(self, conn):
        self.begin(conn.welcome["session"])
        self.account.client_id = conn.welcome["client_id"]
        self.conn = conn
        self.note(f"-- new session {self.account.client_id} on {conn.node.name}")
        for room in self.chance.sample(ROOMS, 2):
            self.wanted[room] = None

    async def _resume(self, conn):
        asked, before = self.account.positions(), self.account
        rooms = [
            {"room": name, "epoch": epoch, "seq": seq} for name, (epoch, seq) in asked.items()
        ]
        command = {"type": "resume", "session": self.session, "rooms": rooms}
        self.note(f"→ {conn.node.name} {brief(command)}")
        # What comes from now on by an earlier connection comes again by this one.
        self.moving_from, self.conn = self.conn, None
        if self.moving_from:
            self.lost_at = time.monotonic()
        command["direct"] = self.account.direct_seq
        answer = await conn.ask(command, lambda frame: self._on_resumed(conn, asked, frame))
        if answer is None:
            self.late_until = time.monotonic() + LATE_RESUME_S
        is_in = self.conn is conn
        if self.moving_from:
            old, self.moving_from = self.moving_from, None
            if is_in and before is self.account:
                self.olds.append(old)
                await self._talk_from_behind(old)
            else:
                old.abort()
        return is_in

    def _on_resumed(self, conn, asked, frame):
        self.note(f"← {brief(frame)}")
        if frame["type"] == "ok":
            self.ledger.counts["resumes"] += 1
            if frame["client_id"] != self.account.client_id:
                self.find("resumed as another client", str(frame))
            self.conn = conn
            self.account.on_resumed(asked, frame)
        elif frame["code"] == "unrecoverable":
            self.ledger.counts["sessions lost"] += 1
            away_s = time.monotonic() - self.lost_at
            # One that was in no room may have begun on a node without Redis, which knows it alone.
            may_be = not asked or away_s >= self.cluster.window_s - 1
            if self.ledger.is_lossless and not may_be:
                self.find("session lost, and nothing was", f"away for {away_s:.1f} s")
            self._settle_in(conn)
            self.wanted = dict(asked)
        elif frame["code"] == "overloaded":
            self.ledger.counts["resumes overloaded"] += 1
        else:
            self.find("refused", str(frame))

    async def _talk_from_behind(self, old):
        """Publishes on the connection whose session was resumed elsewhere."""
        self.ledger.counts["take-overs"] += 1
        if old.closed.is_set() or not self.account.rooms:
            return
        rooms = [self.chance.choice(sorted(self.account.rooms))]
        sent, command = self._compose(rooms, True)

        def take(frame):
            if frame["type"] == "ok":
                sent.fate = "acked"
                self.ledger.counts["sessions in two places"] += 1
                if self.ledger.is_split:
                    return
                self.find("a session in two places", f"{sent.key} has {brief(frame)} on the old")
            elif frame["code"] == "forbidden":
                sent.fate = "refused"

        await old.ask(command, take, within=1)

    # --- What it does.

    def _compose(self, rooms, has_id):
        self.count += 1
        key = f"{self.name}-{self.count}"
        id = str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) if has_id else None
        sent = Sent(key, self.name, rooms, self.chance.random() < 0.5, id)
        self.ledger.sent[key] = sent
        command = {"type": "publish", "content": {"k": key}, "echo": sent.echo}
        command |= {"rooms": rooms} if len(rooms) > 1 else {"room": rooms[0]}
        return sent, command | ({"id": id} if id else {})

    async def ask(self, command, take):
        """Asks on its connection. Without an answer it takes another one."""
        conn = self.conn
        if conn is None:
            return None
        self.note(f"→ {brief(command)}")

        def noted(frame):
            if self.conn is conn:
                self.note(f"← {brief(frame)}")
                take(frame)

        answer = await conn.ask(command, noted)
        if answer is None and self.conn is conn and not conn.closed.is_set():
            self.drop(f"no answer to {command['type']}")
        return answer

    def refused(self, frame, *expected):
        """Whether an answer is an error, which must be one that may be."""
        if frame["type"] == "ok":
            return False
        if frame["code"] not in ("overloaded", *expected):
            self.find("refused", str(frame))
        return True

    async def publish(self, sent, command):
        if sent.id:
            self.pending[sent.key] = (sent, command)
        account = self.account
        turns = {name: room.turn for name, room in account.rooms.items()}

        def take(frame):
            if frame["type"] == "ok":
                self.pending.pop(sent.key, None)
                account.on_answered(sent, turns, frame)
            elif frame["code"] == "not_member" and not set(sent.rooms) <= set(account.rooms):
                # It has left since it published first.
                self.pending.pop(sent.key, None)
            elif self.refused(frame, "forbidden"):
                self.ledger.counts[f"publish {frame['code']}"] += 1
                wait_s = frame.get("retry_after_ms", 200) / 1000
                self.due = time.monotonic() + min(wait_s, RETRY_S_MAX)

        self.ledger.counts["published"] += 1
        await self.ask(command, take)

    async def publish_again(self):
        """Publishes again what has no answer yet."""
        for sent, command in list(self.pending.values()):
            if self.conn and time.monotonic() >= self.due:
                await self.publish(sent, command)

    async def join(self, room, since=None, watch=False):
        command = {"type": "join", "room": room}
        if since:
            command["since"] = {"epoch": since[0], "seq": since[1]}
        if watch:
            command["presence"] = True

        def take(frame):
            if not self.refused(frame):
                self.wanted.pop(room, None)
                self.account.on_joined(since, frame)

        return await self.ask(command, take)

    async def leave(self, room):
        def take(frame):
            if not self.refused(frame):
                known = self.account.rooms.get(room)
                if known:
                    self.former[room] = (known.epoch, known.seq)
                self.account.on_left(room)

        await self.ask({"type": "leave", "room": room}, take)

    async def present(self, room, watch=None):
        """Who is in a room, as its node has it."""
        found = []

        def take(frame):
            if not self.refused(frame):
                found.append({of["client_id"] for of in frame["members"]})
                if watch or room in self.account.watched:
                    self.account.watched[room] = set(found[0])
                    self.account.unsure.discard(room)

        command = {"type": "presence", "room": room} | ({"watch": True} if watch else {})
        await self.ask(command, take)
        return found[0] if found else None

    async def look_back(self, room):
        known = self.account.rooms[room]
        after = max(0, known.seq - self.chance.randrange(12))
        command = {"type": "history", "room": room, "limit": 30}
        if self.chance.random() < 0.7:
            command["after"] = after

        def take(frame):
            if not self.refused(frame):
                self.account.on_page(room, frame)

        await self.ask(command, take)

    async def direct(self):
        other = self.chance.choice(self.cluster.members)
        if other.account.client_id is None:
            return
        sent, command = self._compose(["direct"], True)
        sent.rooms, sent.to = [], other.account
        command = {"type": "direct", "to": other.account.client_id, "content": command["content"]}
        command["id"] = sent.id

        def take(frame):
            expected = ("not_found", "limit_exceeded", "forbidden")
            if not self.refused(frame, *expected):
                sent.fate = "acked"

        await self.ask(command, take)

    async def end(self):
        """Ends its session, and comes back as another client."""
        await self.close()
        self.begin(None)

    async def close(self):
        conn, self.conn = self.conn, None
        if conn:
            self.note("→ close 1000")
            await conn.ws.close(1000)

    async def act(self):
        for room, since in list(self.wanted.items()):
            await self.join(room, since, self.chance.random() < 0.3)
        rooms = sorted(self.account.rooms)
        if self.pending and time.monotonic() >= self.due:
            await self.publish_again()
        dice = self.chance.random()
        if dice < 0.60 and rooms:
            talk = []
            for _ in range(self.chance.randint(1, 3)):
                is_wide = len(rooms) > 1 and self.chance.random() < self.share
                count = self.chance.randint(2, min(3, len(rooms))) if is_wide else 1
                chosen = self.chance.sample(rooms, count)
                talk.append(self._compose(chosen, self.chance.random() < 0.85))
            await asyncio.gather(*(self.publish(*one) for one in talk))
        elif dice < 0.68:
            await self.direct()
        elif dice < 0.74 and rooms:
            await self.look_back(self.chance.choice(rooms))
        elif dice < 0.79 and rooms:
            await self.present(self.chance.choice(rooms), self.chance.random() < 0.4)
        elif dice < 0.86:
            others = [room for room in ROOMS if room not in rooms]
            if others:
                room = self.chance.choice(others)
                since = self.former.get(room) if self.chance.random() < 0.6 else None
                await self.join(room, since, self.chance.random() < 0.3)
        elif dice < 0.91 and len(rooms) > 1:
            await self.leave(self.chance.choice(rooms))
        elif dice < 0.95:
            self.drop("cuts its own connection")
            await asyncio.sleep(self.chance.choice((0, 0, 0.3, 1.5)))
        elif dice < 0.975:
            await self.come()
        elif dice < 0.98:
            await self.end()

    async def live(self):
        """Goes on until the cluster settles; then it finishes what it has begun."""
        while not self.cluster.is_settling:
            if self.conn is None:
                await self.come()
                continue
            await self.act()
            await asyncio.sleep(self.chance.uniform(*PAUSE_S))
        while not self.is_settled():
            if self.conn is None:
                await self.come()
                continue
            for room, since in list(self.wanted.items()):
                await self.join(room, since)
            await self.publish_again()
            await asyncio.sleep(0.1)

    def is_settled(self):
        return self.conn is not None and not self.pending and not self.wanted


def brief(frame):
    """A frame in a line: long lists as their lengths, and messages by their keys."""

    def short(name, value):
        if name == "messages":
            return [f"{of['seq']}:{of['content']['k']}" for of in value]
        if name in ("members", "joined", "left") and isinstance(value, list):
            return len(value)
        if name == "rooms" and value and isinstance(value[0], dict):
            return [brief(of) if "messages" in of else list(of.values()) for of in value]
        if name in ("session", "timestamp", "id", "overflow", "patterns"):
            return None
        return value["k"] if name == "content" else value

    shown = collections.OrderedDict((name, short(name, frame[name])) for name in frame)
    return " ".join(f"{name}={value}" for name, value in shown.items() if value is not None)
