"""When to come back after a connection has ended, and whether to."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from .errors import End

# The longest wait that a server may ask for; a longer one is more likely a broken clock.
ASKED_S_MAX = 600.0

# A normal end, and the client's own fault by RFC 6455, 7.4.1, which a reconnect would not mend.
STOPPING = frozenset({1000, 1002, 1003, 1007, 1008, 1009})

# Temporary refusals below 500: a slow network (RFC 9110, 15.5.9), a proxy that does not replay
# early data (RFC 8470, 5.2), a rate limit (RFC 6585, 4).
PASSING_STATUSES = frozenset({408, 425, 429})


class Verdict(enum.Enum):
    STOP = "stop"
    BACK_OFF = "back off"
    AT_ONCE = "at once"


def verdict(end: End) -> Verdict:
    """Says what to do after an end."""
    if end.status is not None:
        passes = end.status >= 500 or end.status in PASSING_STATUSES
        return Verdict.BACK_OFF if passes else Verdict.STOP
    if end.code in STOPPING or end.code // 100 == 40:
        return Verdict.STOP
    return Verdict.AT_ONCE if end.code // 100 == 42 else Verdict.BACK_OFF


@dataclass(frozen=True)
class Over:
    """All that counts for the next attempt: the end, how long the session lived on the connection
    (``None`` if there was none), and what the server asked for."""

    end: End
    lived_s: float | None = None
    retry_after_s: float | None = None
    reconnect_after_s: float | None = None


class Backoff:
    """Exponential backoff with full jitter. It keeps no clock."""

    def __init__(
        self, *, base_s: float, cap_s: float, settled_s: float, random: Callable[[], float]
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._settled_s = settled_s
        self._random = random
        # The ends in a row without a connection that lasted.
        self.attempt = 0

    def after(self, over: Over) -> float | None:
        """Returns the delay before the next attempt in seconds, or ``None`` for none."""
        means = verdict(over.end)
        if means is Verdict.STOP:
            return None
        if over.lived_s is not None and over.lived_s >= self._settled_s:
            self.attempt = 0
        attempt = self.attempt
        self.attempt += 1
        # The exponent is bounded, because a float is.
        most_s = min(self._cap_s, self._base_s * 2.0 ** min(attempt, 64))
        jitter_s = self._random() * most_s
        told_s = asked(over.reconnect_after_s)
        if told_s is not None:
            # The server has spread its clients already; asked a second time it may be at a loss.
            return told_s if attempt == 0 else max(told_s, jitter_s)
        if means is Verdict.AT_ONCE and attempt == 0:
            return 0.0
        return (asked(over.retry_after_s) or 0.0) + jitter_s


def asked(seconds: float | None) -> float | None:
    """Returns a wait that the server asks for, within bounds."""
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), ASKED_S_MAX)


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Reads ``Retry-After`` (RFC 9110, 10.2.3): seconds or a date."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # No number of more digits is meant.
        return float(value[:12])
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=timezone.utc)
        return (date - (now or datetime.now(timezone.utc))).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
