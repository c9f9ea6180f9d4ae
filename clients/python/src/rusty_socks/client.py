"""The client: one session over as many connections as it takes."""

from __future__ import annotations

import asyncio
import enum
import inspect
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar, Union
from urllib.parse import urlsplit

from . import events
from .backoff import Backoff, Over
from .connection import Connection, ConnectionOver, is_set
from .errors import End, Misbehaved, RustySocksError
from .frames import (
    Frame,
    frames_in,
    member_in,
    messages_in,
    number_in,
    parse,
    places_in,
    seq_in,
    text_in,
)
from .messages import Members, Page, Position, Published
from .names import is_pattern
from .options import Options
from .outbox import Command, Entry, Outbox
from .queues import EventQueue
from .room import Pattern, Room
from .session import Session
from .subscription import Subscription

T = TypeVar("T")

Token = Union[str, Callable[[], Union[str, Awaitable[str]]]]

# A longer token is sent in the first frame, because a head has a bound.
HEADER_TOKEN_BYTES_MAX = 4096

# Used for a server that does not ping, and the accepted range: below it the client would ping
# constantly.
PING_S = 30.0
PING_S_MIN, PING_S_MAX = 1.0, 24 * 3600.0


class State(enum.Enum):
    NEW = "new"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


class Client:
    """A session with a Rusty Socks server, entered with ``async with``.

    Entering waits until there is a session, however long that takes; leaving ends it, on the server
    too. It is for one event loop.
    """

    def __init__(
        self, url: str, *, token: Token | None = None, options: Options | None = None
    ) -> None:
        if urlsplit(url).scheme not in ("ws", "wss"):
            raise ValueError(f"the address must begin with ws:// or wss://, not {url!r}")
        try:
            # A port that is none is found out when it is read.
            is_address = url.isprintable() and " " not in url and urlsplit(url).port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError(f"{url!r} is no address")
        if not (token is None or isinstance(token, str) or callable(token)):
            raise TypeError(f"a token is a string or a function, not {type(token).__name__}")
        self._url = url
        self._token = token
        self._options = options or Options()
        self._state = State.NEW
        self._events = EventQueue(self._options.events_max)
        self._connection: Connection | None = None
        self._greeted_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._error: RustySocksError | None = None

    # --- Its life.

    async def __aenter__(self) -> Client:
        if self._state is not State.NEW:
            raise RuntimeError("a client can be entered only once")
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._outbox = Outbox(self._options, loop.time)
        self._session = Session(
            self._options,
            self._outbox,
            emit=self._events.push,
            greeted=self._greeted,
            live=self._live,
            renew=self._renew,
        )
        self._ready: asyncio.Future[None] = loop.create_future()
        self._state = State.CONNECTING
        self._task = loop.create_task(self._run())
        try:
            await asyncio.shield(self._ready)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the session: others in its rooms are told at once. Commands without an answer fail
        with ``closed``."""
        if self._state is State.NEW:
            self._state = State.CLOSED
            self._events.end(None)
        elif self._state is not State.CLOSED:
            await self._stop()

    async def _stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            # The task closes the connection; a second cancel, of this call, does not end it.
            await asyncio.shield(asyncio.wait({self._task}))

    @property
    def state(self) -> State:
        return self._state

    @property
    def client_id(self) -> str | None:
        """What other clients know this one by."""
        return self._session.client_id if self._state is not State.NEW else None

    @property
    def user(self) -> str | None:
        """Whom the token names, as the server says."""
        return self._session.user if self._state is not State.NEW else None

    @property
    def session_token(self) -> str | None:
        """The secret by which the session can be resumed elsewhere."""
        return self._session.token if self._state is not State.NEW else None

    @property
    def default_room(self) -> Room | None:
        """The room that the server has joined this client to, until it is left."""
        if self._state is State.NEW or self._session.default_room is None:
            return None
        subscription = self._session.rooms.wanted.get(self._session.default_room)
        return None if subscription is None else Room(self, subscription)

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that the client is in, those of patterns too."""
        if self._state is State.NEW:
            return ()
        return tuple(room.name for room in self._session.rooms.tracker.rooms())

    @property
    def pending(self) -> int:
        """How many commands wait for an answer."""
        return len(self._outbox) if self._state is not State.NEW else 0

    async def events(self) -> AsyncIterator[events.Event]:
        """Yields all that happens but the messages of rooms. The events are there once, however
        many loops read them; one that is left does not lose any."""
        while True:
            try:
                event = await self._events.next()
            except StopAsyncIteration:
                return
            yield event

    # --- Commands. A call that is cancelled withdraws its command if it was not sent yet; one that
    # was sent may be carried out, and is not sent again. Bound a wait with `asyncio.wait_for`.

    async def join(
        self,
        name: str,
        *,
        since: Position | None = None,
        presence: bool = False,
        sender: str | None = None,
    ) -> Room:
        """Joins a room. With ``since`` its messages after a position are yielded first; with
        ``presence`` its members are known and watched; ``sender`` is this client's name in lists of
        members. A call that is cancelled leaves the client out of the room."""
        if is_pattern(name):
            raise ValueError("patterns are joined with join_pattern")
        if not (since is None or isinstance(since, Position)):
            raise TypeError(f"since is a Position, not {type(since).__name__}")
        position = None if since is None else {"epoch": since.epoch, "seq": since.seq}
        watch = True if presence else None
        command = Command("join", room=name, since=position, presence=watch, sender=sender)
        return Room(self, await self._join(command, since))

    async def join_pattern(self, pattern: str) -> Pattern:
        """Joins all rooms below a name, such as ``prices.*``, and those that are made later."""
        if not is_pattern(pattern):
            raise ValueError("a pattern ends in .*")
        return Pattern(self, await self._join(Command("join", room=pattern), None))

    async def _join(self, command: Command, since: Position | None) -> Subscription:
        self._check_open()
        name, presence = command.fields["room"], "presence" in command.fields
        sender = command.fields.get("sender")
        subscription = self._session.rooms.subscription(name, presence=presence, sender=sender)

        def take(entry: Entry, answer: Frame) -> Subscription:
            self._session.rooms.joined(subscription, since, answer)
            return subscription

        return await self._command(
            command, take, withdrawn=lambda: self._session.unwanted(subscription)
        )

    async def leave(self, name: str) -> None:
        """Leaves a room or pattern that was joined by this name."""
        self._check_open()
        subscription = self._session.rooms.wanted.get(name)
        if subscription is not None:
            subscription.leave()

        def take(entry: Entry, answer: Frame) -> None:
            self._session.rooms.end(name)

        # What is left already, by a repeated command or with a session that ended, is well.
        is_ours = subscription is not None

        def pardon(error: RustySocksError, was_resent: bool) -> bool:
            return error.code == "not_member" and (is_ours or was_resent)

        await self._command(Command("leave", room=name), take, pardon=pardon, is_firm=True)

    async def publish(
        self,
        room: str | Sequence[str],
        content: object,
        *,
        id: str | None = None,
        sender: str | None = None,
        echo: bool = False,
    ) -> Published:
        """Publishes anything that JSON can hold to a room, or to up to 32 rooms at once.

        Returns when the server has the message. Until then it is sent again after a lost connection
        and when the server is busy, always with the same ``id``, a UUID, so that it is published
        once. With ``echo`` it is yielded to this client too.
        """
        names = {"room": room} if isinstance(room, str) else {"rooms": list(room)}
        given = _uuid(id)
        command = Command(
            "publish", **names, content=content, id=given, sender=sender, echo=echo or None
        )
        self._check_open()
        if echo:
            self._session.rooms.expect_echo(given)

        def take(entry: Entry, answer: Frame) -> Published:
            places = places_in(answer)
            self._session.rooms.published(entry, answer)
            repeated = answer.get("repeated") is True
            return Published(places[0].room, places[0].seq, given, places, repeated)

        return await self._command(command, take)

    async def direct(
        self, to: str, content: object, *, id: str | None = None, sender: str | None = None
    ) -> None:
        """Sends a message to one client, by its client id."""
        command = Command("direct", to=to, content=content, id=_uuid(id), sender=sender)
        await self._command(command, lambda entry, answer: None)

    async def broadcast(self, content: object, *, sender: str | None = None) -> None:
        """Sends a message to all clients, where the server allows that. The server cannot know a
        repeated one, so it is sent once, and fails with ``answer_lost`` if that is in doubt."""
        command = Command("broadcast", content=content, id=_uuid(None), sender=sender)
        await self._command(command, lambda entry, answer: None, is_once=True)

    async def history(
        self,
        room: str,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> Page:
        """Reads a page of a room's history, oldest message first: the newest messages, the newest
        below ``before``, or the oldest above ``after``. An empty page is the end."""

        def take(entry: Entry, answer: Frame) -> Page:
            position = Position(text_in(answer, "epoch"), seq_in(answer))
            return Page(room, position, tuple(messages_in(answer)))

        command = Command("history", room=room, before=before, after=after, limit=limit)
        return await self._command(command, take)

    async def presence(
        self,
        room: str,
        *,
        watch: bool | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Members:
        """Reads the members of a room: 1000 at most, those after the client id ``after``. ``watch``
        begins or ends the events ``Joined`` and ``Left``."""

        def take(entry: Entry, answer: Frame) -> Members:
            members = [member_in(frame) for frame in frames_in(answer, "members")]
            count = seq_in(answer, "count")
            subscription = self._session.rooms.wanted.get(room)
            if subscription is not None and watch is not None:
                subscription.presence = watch
                if watch and after is None:
                    subscription.read_members(members, count)
            return Members(room, {member.client_id: member for member in members}, count)

        command = Command("presence", room=room, watch=watch, after=after, limit=limit)
        return await self._command(command, take)

    def rooms_of(self, pattern: str) -> tuple[str, ...]:
        """The rooms that were joined through a pattern."""
        rooms = self._session.rooms.tracker.rooms()
        return tuple(room.name for room in rooms if room.via == pattern)

    def _check_open(self) -> None:
        if self._state in (State.NEW, State.CLOSED):
            raise self._error or RustySocksError("closed", "the client is not open")

    async def _command(
        self,
        command: Command,
        take: Callable[[Entry, Frame], T],
        *,
        pardon: Callable[[RustySocksError, bool], bool] = lambda error, was_resent: False,
        withdrawn: Callable[[], None] | None = None,
        is_once: bool = False,
        is_firm: bool = False,
    ) -> T:
        """Sends a command and returns what ``take`` makes of its answer. ``withdrawn`` is called
        instead, or afterwards, if it was carried out and the caller has gone."""
        self._check_open()
        future: asyncio.Future[T] = self._loop.create_future()

        def ok(answer: Frame) -> None:
            if future.done() and withdrawn is not None:
                withdrawn()
                return
            result = take(entry, answer)
            if not future.done():
                future.set_result(result)

        def failed(error: RustySocksError) -> None:
            if not future.done():
                future.set_exception(error)

        entry = Entry(
            command, ok=ok, failed=failed, pardon=pardon, is_once=is_once, is_firm=is_firm
        )
        self._outbox.add(entry)
        try:
            return await future
        except asyncio.CancelledError:
            self._outbox.abandon(entry)
            # The answer and the cancellation may come in the same turn of the loop.
            has_result = future.done() and not future.cancelled() and future.exception() is None
            if has_result and withdrawn is not None:
                withdrawn()
            raise

    # --- Connections.

    async def _run(self) -> None:
        options = self._options
        backoff = Backoff(
            base_s=options.backoff_base_s,
            cap_s=options.backoff_cap_s,
            settled_s=options.settled_s,
            random=options.random,
        )
        error = RustySocksError("closed", "the client was closed")
        is_closed = False
        try:
            while True:
                over = await self._attend()
                delay_s = backoff.after(over)
                most = options.attempts_max
                if delay_s is None or most is not None and backoff.attempt > most:
                    text = f"the client does not come back after {over.end}"
                    error = RustySocksError("stopped", text, end=over.end)
                    return
                self._state = State.WAITING
                self._events.push(events.Disconnected(over.end, delay_s))
                await asyncio.sleep(delay_s)
        except asyncio.CancelledError:
            is_closed = True
        except Exception as fault:
            error = RustySocksError("stopped", f"a fault of this client: {fault!r}")
            error.__cause__ = fault
        finally:
            self._finish(error, None if is_closed else error)

    def _finish(self, error: RustySocksError, told: RustySocksError | None) -> None:
        """There will be no connection any more; ``told`` is what loops raise."""
        self._state = State.CLOSED
        self._error = error
        if self._renewal is not None:
            self._renewal.cancel()
        self._outbox.fail(error)
        self._session.rooms.ended(told)
        self._events.end(told)
        if not self._ready.done():
            self._ready.set_exception(error)
            # Nobody may wait for it any more.
            self._ready.exception()

    async def _attend(self) -> Over:
        """Opens a connection and attends to it until its end."""
        self._state = State.CONNECTING
        self._greeted_at = None
        headers: dict[str, str] = {}
        token = None
        try:
            if self._token is not None:
                token = await self._new_token()
            if token is not None and len(token.encode()) <= HEADER_TOKEN_BYTES_MAX:
                headers["Authorization"] = f"Bearer {token}"
                token = None
            connection = await Connection.open(self._url, headers, self._options)
        except ConnectionOver as ended:
            return ended.over
        self._connection = connection
        self._outbox.attach()
        self._session.opened(token)
        tasks = [
            self._loop.create_task(work)
            for work in (self._read(connection), self._write(connection), connection.keep())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended_by = next(task for task in tasks if task.done()).exception()
            if not isinstance(ended_by, ConnectionOver):
                # None of the tasks returns.
                raise ended_by or AssertionError("a task has returned")
            return self._over(ended_by.over)
        except asyncio.CancelledError:
            # The reader goes on, so that the server's answer to the close is read.
            self._connection = None
            for task in tasks[1:]:
                task.cancel()
            await connection.close()
            raise
        finally:
            self._connection = None
            for task in tasks:
                task.cancel()
            connection.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._outbox.detach()
            self._session.over()

    def _over(self, over: Over) -> Over:
        lived_s = None if self._greeted_at is None else self._loop.time() - self._greeted_at
        reconnect_after_s = self._session.reconnect_after_s
        return replace(over, lived_s=lived_s, reconnect_after_s=reconnect_after_s)

    async def _read(self, connection: Connection) -> None:
        while True:
            data = await connection.receive()
            frame = parse(data)
            # A connection that is being closed is read to its end, and no more.
            if frame is None or connection is not self._connection:
                continue
            try:
                self._session.receive(frame, len(data))
            except Misbehaved as fault:
                end = End(1006, f"the server misbehaved: {fault}")
                raise ConnectionOver(Over(end)) from fault

    async def _write(self, connection: Connection) -> None:
        outbox = self._outbox
        while True:
            outbox.wake.clear()
            text = outbox.next()
            if text is not None:
                await connection.send(text)
                continue
            await is_set(outbox.wake, outbox.wait_s())

    def _greeted(self, welcome: Frame) -> None:
        """There is a session on this connection."""
        if self._connection is None:
            return
        self._greeted_at = self._loop.time()
        told = number_in(welcome, "ping_s") or 0.0
        ping_s = min(max(told, PING_S_MIN), PING_S_MAX) if told > 0 else PING_S
        quiet_s = min(ping_s / 2, self._options.ping_s_max)
        self._connection.greeted(quiet_s, ping_s + self._options.silence_extra_s)

    def _live(self) -> None:
        self._state = State.OPEN
        if not self._ready.done():
            self._ready.set_result(None)

    # --- Tokens.

    async def _new_token(self) -> str:
        try:
            token = self._token() if callable(self._token) else self._token
            if inspect.isawaitable(token):
                token = await asyncio.wait_for(token, self._options.open_timeout_s)
            if not isinstance(token, str):
                raise TypeError(f"a token is a string, not {type(token).__name__}")
            # It becomes a header, where other characters would be something else.
            if not (token.isascii() and token.isprintable()):
                raise ValueError("a token has characters that no token has")
            return token
        except Exception as fault:
            reason = str(fault) or type(fault).__name__
            raise ConnectionOver(Over(End(1006, f"there is no token: {reason}"))) from fault

    def _renew(self) -> None:
        """The token is about to end. One that is no function has no successor."""
        if callable(self._token) and (self._renewal is None or self._renewal.done()):
            self._renewal = self._loop.create_task(self._show_new_token(self._connection))

    async def _show_new_token(self, connection: Connection | None) -> None:
        try:
            token = await self._new_token()
        except ConnectionOver as fault:
            # The server closes the connection when the token has ended, and the next asks again.
            self._events.push(events.Failed("no_token", fault.over.end.reason))
            return
        if connection is not None and connection is self._connection:
            self._session.authenticate(token)


def _uuid(given: str | None) -> str:
    """Returns the id of a message; any but a UUID the server would replace by another."""
    if given is None:
        return str(uuid.uuid4())
    made = uuid.UUID(given)
    if made.int == 0:
        raise ValueError("an id must not be the nil UUID")
    return str(made)
