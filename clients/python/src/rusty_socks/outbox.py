"""The unanswered commands, in order, across connections.

A command is sent again on the next connection if its connection ended before the answer, and after
a delay if the server was busy. Sending obeys the server's limits. No I/O: a writer takes what may
be sent now.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from .backoff import asked
from .errors import Misbehaved, RustySocksError
from .frames import Frame, encode, number_in
from .names import touches
from .options import Options
from .rate import Rate

# Errors after which the server would take the command later, and the delay if it states none.
PASSING = frozenset({"rate_limited", "overloaded"})
RETRY_AFTER_S = 1.0

# Fewer errors in a row than the server's limit, which is 10 by default.
STREAK_MAX = 8


class Command:
    """A command as it goes out. What cannot be JSON is a ``ValueError`` or ``TypeError`` here."""

    def __init__(self, type_: str, **fields: Any) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        if "content" in fields:
            given["content"] = fields["content"]
        self.type = type_
        self.fields = given
        self._body = encode({"type": type_, **given})
        # With the longest `ref`.
        self.size = len(self._body.encode()) + len(',"ref":') + 20

    @property
    def is_membership(self) -> bool:
        return self.type in ("join", "leave")

    @property
    def rooms(self) -> list[str]:
        """The rooms or patterns that it is about."""
        rooms: list[str] = self.fields.get("rooms") or [self.fields.get("room")]
        return [room for room in rooms if isinstance(room, str)]

    def text(self, ref: int) -> str:
        return f'{self._body},"ref":{ref}}}'


class Entry:
    """A command and who waits for its answer: ``ok`` or ``failed`` is called, once at most.

    ``pardon`` may take an error as success. What ``is_once`` is not sent twice, and what
    ``is_firm`` is tried without end, whoever waits.
    """

    def __init__(
        self,
        command: Command,
        *,
        ok: Callable[[Frame], None],
        failed: Callable[[RustySocksError], None],
        pardon: Callable[[RustySocksError, bool], bool] = lambda error, was_resent: False,
        is_once: bool = False,
        is_firm: bool = False,
    ) -> None:
        self.command = command
        self.ok = ok
        self.failed = failed
        self.pardon = pardon
        self.is_once = is_once
        self.is_firm = is_firm
        self.sends = 0
        self.refusals = 0
        self.is_sent = False
        self.is_abandoned = False
        # A room began a new epoch meanwhile: the numbers in the answer may be of the earlier one.
        self.is_doubtful = False


class Outbox:
    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        # Set when there may be something to send.
        self.wake = asyncio.Event()
        self._entries: dict[Entry, None] = {}
        # Commands of the client's own, which go first and end with their connection.
        self._urgent: dict[Entry, None] = {}
        self._bytes = 0
        self._in_flight: dict[int, Entry] = {}
        self._last_ref = 0
        self._is_attached = False
        self._is_open = False
        self._command_bytes_max = math.inf
        self._rate = Rate(None, None, 0, sent=(0, 0))
        self._sent = (0, 0)
        self._window = self._window_max = options.in_flight_max
        # The errors in a row that the connection may have once all sent commands are answered.
        self._streak = 0
        self._paused_until = -math.inf

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Queues a command of the program."""
        options = self._options
        if len(self._entries) >= options.outbox_max:
            text = f"{options.outbox_max} commands wait for an answer already"
            raise RustySocksError("outbox_full", text)
        if self._bytes + entry.command.size > options.outbox_bytes_max:
            text = f"the commands that wait for an answer have {self._bytes} bytes already"
            raise RustySocksError("outbox_full", text)
        self._entries[entry] = None
        self._bytes += entry.command.size
        self.wake.set()

    def add_urgent(self, entry: Entry) -> None:
        """Queues a command before all of the program's, for this connection only."""
        if not self._is_attached:
            return
        self._urgent[entry] = None
        self.wake.set()

    def abandon(self, entry: Entry) -> None:
        """Nobody waits for it any more. One that is out has its answer taken note of, because it
        tells what the server did; it is not sent again."""
        if entry.is_firm or entry not in self._entries:
            return
        entry.is_abandoned = True
        if not entry.is_sent:
            self._remove(entry)
        self.wake.set()

    def find(self, matches: Callable[[Entry], bool]) -> Entry | None:
        """Returns the first command of the program's that waits for an answer."""
        return next((entry for entry in self._entries if matches(entry)), None)

    def all(self) -> list[Entry]:
        return list(self._entries)

    def settle(self, entry: Entry, answer: Frame) -> None:
        """Answers a command by what was learned in another way."""
        if self._remove(entry):
            self._take(entry, answer)

    # --- The connection.

    def attach(self) -> None:
        """There is a connection; only urgent commands are sent."""
        self._is_attached = True
        self._sent = (0, 0)
        self.wake.set()

    def greeted(self, bytes_max: float | None, limits: Frame | None) -> None:
        """Obeys what a welcome says of the largest command and of rates; older servers say nothing
        of rates."""
        self._command_bytes_max = math.inf if bytes_max is None else bytes_max
        told = limits or {}
        rates = number_in(told, "rate_messages"), number_in(told, "rate_bytes")
        # What is in flight was sent under no limit, and is taken out of the buckets at its answer.
        waiting = [entry.command.size for entry in self._in_flight.values()]
        sent = self._sent[0] - len(waiting), self._sent[1] - sum(waiting)
        self._rate = Rate(*rates, self._clock(), sent=sent)
        for size in waiting:
            self._rate.sent(size)
        # A server that tells no limits may have one, by which all that is in flight would be
        # refused in a row.
        most = self._options.in_flight_max
        self._window_max = most if limits is not None else min(most, STREAK_MAX)
        self._window = min(self._window, self._window_max)

    def open(self) -> None:
        """All commands are sent now."""
        self._is_open = True
        self.wake.set()

    def detach(self) -> None:
        """The connection is gone."""
        self._is_attached = self._is_open = False
        self._in_flight = {}
        self._urgent = {}
        self._rate = Rate(None, None, 0, sent=(0, 0))
        self._streak = 0
        self._paused_until = -math.inf
        for entry in list(self._entries):
            if entry.is_sent and entry.is_once:
                self._remove(entry)
                text = "the connection was lost before the answer; it may have been done or not"
                entry.failed(RustySocksError("answer_lost", text))
            elif entry.is_abandoned:
                self._remove(entry)
            entry.is_sent = False

    def fail(self, error: RustySocksError) -> None:
        """Nothing will be sent any more."""
        self.detach()
        entries, self._entries, self._bytes = list(self._entries), {}, 0
        for entry in entries:
            entry.failed(error)

    # --- What goes out.

    def next(self) -> str | None:
        """Returns the next command as text if one may be sent now; it counts as sent."""
        while self._is_attached:
            entry = self._candidate()
            if entry is None or not self._may_send(entry.command.size):
                return None
            if entry.command.size > self._command_bytes_max:
                # The server would close the connection with 1009, which ends the client.
                most = f"{self._command_bytes_max:.0f}"
                text = f"the command has {entry.command.size} bytes, and the server takes {most}"
                self._remove(entry)
                entry.failed(RustySocksError("too_large", text))
                continue
            if entry.command.type == "ping":
                self._streak = 0
            elif self._streak >= STREAK_MAX:
                # Its answer ends a row of errors: a mistake of the program's that is made often
                # must not end the connection.
                self._streak = 0
                entry = self._ping()
            else:
                self._streak += 1
            return self._send(entry)
        return None

    def wait_s(self) -> float | None:
        """Returns after what time to ask again; ``None``: when woken."""
        entry = self._candidate() if self._is_attached else None
        if entry is None or len(self._in_flight) >= self._window:
            return None
        now = self._clock()
        wait_s = max(self._paused_until - now, self._rate.wait_s(entry.command.size, now))
        return None if math.isinf(wait_s) else max(wait_s, 0.0)

    def _candidate(self) -> Entry | None:
        """Returns what goes out next, as far as order says.

        A command waits for the answers to earlier joins and leaves of its rooms, because one that
        is refused for the moment is sent again later.
        """
        for entry in self._urgent:
            if not entry.is_sent:
                return entry
        if not self._is_open:
            return None
        before: list[str] = []
        for entry in self._entries:
            rooms = entry.command.rooms
            if not entry.is_sent and not any(touches(a, b) for a in before for b in rooms):
                return entry
            if entry.command.is_membership:
                before += rooms
        return None

    def _may_send(self, size: int) -> bool:
        now = self._clock()
        if now < self._paused_until or len(self._in_flight) >= self._window:
            return False
        return self._rate.wait_s(size, now) <= 0

    def _ping(self) -> Entry:
        ping = Entry(Command("ping"), ok=lambda answer: None, failed=lambda error: None)
        self._urgent[ping] = None
        return ping

    def _send(self, entry: Entry) -> str:
        self._last_ref += 1
        self._in_flight[self._last_ref] = entry
        entry.is_sent = True
        entry.sends += 1
        size = entry.command.size
        self._rate.sent(size)
        self._sent = (self._sent[0] + 1, self._sent[1] + size)
        return entry.command.text(self._last_ref)

    # --- What comes back.

    def answered(self, frame: Frame) -> None:
        """Takes an ``ok``, ``pong`` or ``error``; one that answers nothing is ignored."""
        ref = frame.get("ref")
        entry = self._in_flight.pop(ref, None) if isinstance(ref, int) else None
        if entry is None:
            return
        entry.is_sent = False
        size = entry.command.size
        if frame.get("type") == "error":
            error = error_in(frame)
            if error.code == "rate_limited":
                self._rate.refused(size, _wait_s(error), self._clock())
            else:
                self._rate.answered(size, self._clock())
            if entry in self._entries or entry in self._urgent:
                self._refused(entry, error)
        else:
            self._rate.answered(size, self._clock())
            self._streak = min(self._streak, len(self._in_flight))
            self._window = min(self._window_max, self._window + 1)
            # What the client asks itself is a part of the conversation, and a fault in it is too.
            is_urgent = entry in self._urgent
            if self._remove(entry):
                entry.ok(frame) if is_urgent else self._take(entry, frame)
        self.wake.set()

    def _refused(self, entry: Entry, error: RustySocksError) -> None:
        entry.refusals += 1
        if error.code in PASSING:
            # Send fewer at a time, and nothing before the delay is over.
            self._window = max(1, self._window // 2)
            self._paused_until = max(self._paused_until, self._clock() + _wait_s(error))
            if entry.command.type == "ping":
                self._streak = STREAK_MAX
            is_spent = entry.refusals > self._options.retries_max or entry.is_abandoned
            if entry.is_firm or not is_spent:
                return
        self._remove(entry)
        if entry.pardon(error, entry.sends > 1):
            self._take(entry, {})
        else:
            entry.failed(error)

    def _take(self, entry: Entry, answer: Frame) -> None:
        # An answer that makes no sense is told to whoever asked, and the connection goes on.
        try:
            entry.ok(answer)
        except Misbehaved as error:
            text = f"the server's answer makes no sense: {error}"
            entry.failed(RustySocksError("misbehaved", text))

    def _remove(self, entry: Entry) -> bool:
        if entry in self._urgent:
            del self._urgent[entry]
            return True
        if entry not in self._entries:
            return False
        del self._entries[entry]
        self._bytes -= entry.command.size
        return True


def error_in(frame: Frame) -> RustySocksError:
    code, message = frame.get("code"), frame.get("message")
    ms = number_in(frame, "retry_after_ms")
    return RustySocksError(
        code if isinstance(code, str) else "misbehaved",
        message if isinstance(message, str) else "",
        retry_after_s=None if ms is None else asked(ms / 1000),
    )


def _wait_s(error: RustySocksError) -> float:
    return RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
