"""The bounds and times of a client, each with its default."""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


# With 0 for one of these, nothing would be sent or yielded.
NOT_ZERO = frozenset({"in_flight_max", "queue_max", "hold_max", "events_max"})


@dataclass(frozen=True)
class Options:
    """Times are in seconds; what ends in ``_max`` is a bound."""

    # How long a connection may take to open, then to get a session, and to close.
    open_timeout_s: float = 20.0
    close_timeout_s: float = 3.0
    # A ping is sent when nothing has come for half of the server's `ping_s`, and for so long at
    # most; nothing for `ping_s` and `silence_extra_s` is the end of the connection.
    ping_s_max: float = 25.0
    silence_extra_s: float = 15.0
    # The backoff: full jitter below `backoff_base_s` x 2**n, n of the attempts since a session that
    # lasted for `settled_s`.
    backoff_base_s: float = 0.25
    backoff_cap_s: float = 30.0
    settled_s: float = 5.0
    # Failed attempts in a row before the client ends; `None`: it never gives up.
    attempts_max: int | None = None
    # Commands that wait for an answer, and their bytes; of those on the wire at once; and how often
    # one is sent again when the server is busy.
    outbox_max: int = 1_000
    outbox_bytes_max: int = 64 * 1024 * 1024
    in_flight_max: int = 64
    retries_max: int = 10
    # Messages of one room, and bytes of all rooms, that wait for what comes before them or for a
    # slow reader. Beyond that they are fetched later from the server's history.
    hold_max: int = 10_000
    hold_bytes_max: int = 64 * 1024 * 1024
    # Messages of one room or pattern that its reader has not read.
    queue_max: int = 1_000
    queue_bytes_max: int = 16 * 1024 * 1024
    # Events that nobody has read; the oldest are dropped.
    events_max: int = 1_000
    # Rooms of this client, and members in `Room.members`.
    rooms_max: int = 100_000
    members_max: int = 10_000
    # Own messages that were published with `echo` and have not come back.
    echoes_max: int = 1_000
    # The largest frame that the server may send.
    frame_bytes_max: int = 64 * 1024 * 1024
    # For `websockets.asyncio.client.connect`: `ssl`, `proxy`, `additional_headers`, ...
    connect: Mapping[str, Any] = field(default_factory=dict)
    # Numbers in [0, 1).
    random: Callable[[], float] = _random.random

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("connect", "random") or value is None and each.name == "attempts_max":
                continue
            least = 1 if each.name in NOT_ZERO else 0
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not value >= least:
                raise ValueError(f"{each.name} must be a number from {least} up, not {value!r}")
