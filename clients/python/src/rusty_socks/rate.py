"""How much may be sent on one connection: the server's own token buckets, seen from here.

The server takes a message out of its bucket at some time between sending and answer. Here it is
reserved when it is sent and taken out at the answer, so this bucket never has more than the
server's.
"""

from __future__ import annotations

import math

# The part of the server's refill that is used: pings are not counted here.
SHARE = 0.95


class Bucket:
    def __init__(self, size: float, per_s: float, now: float) -> None:
        self._size = size
        self._level = size
        self._per_s = per_s * SHARE
        self._in_flight = 0.0
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Returns how long to wait before sending that much: infinite until an answer comes."""
        self._refill(now)
        # A message larger than the bucket passes when it is full, and is paid for afterwards.
        wanted = min(amount, self._size) + self._in_flight
        if wanted <= self._level:
            return 0.0
        return math.inf if wanted > self._size else (wanted - self._level) / self._per_s

    def sent(self, amount: float) -> None:
        self._in_flight += amount

    def answered(self, amount: float, now: float) -> None:
        self._refill(now)
        self._in_flight -= amount
        self._level -= amount

    def refused(self, amount: float, wait_s: float, now: float) -> None:
        """It will hold enough for this message after that time, and no more."""
        self._refill(now)
        self._in_flight -= amount
        self._level = min(self._level, min(amount, self._size) - wait_s * self._per_s)

    def _refill(self, now: float) -> None:
        self._level = min(self._size, self._level + (now - self._at) * self._per_s)
        self._at = now


class Rate:
    """Messages and bytes a second; a limit that is no positive number is none."""

    def __init__(
        self, messages: float | None, bytes_: float | None, now: float, *, sent: tuple[int, int]
    ) -> None:
        # One message is kept for a ping that finds the bucket empty.
        self._messages = _bucket(messages, 1.0, sent[0], now)
        self._bytes = _bucket(bytes_, 0.0, sent[1], now)

    def wait_s(self, size: int, now: float) -> float:
        wait_s = 0.0
        for bucket, amount in self._buckets(size):
            wait_s = max(wait_s, bucket.wait_s(amount, now))
        return wait_s

    def sent(self, size: int) -> None:
        for bucket, amount in self._buckets(size):
            bucket.sent(amount)

    def answered(self, size: int, now: float) -> None:
        for bucket, amount in self._buckets(size):
            bucket.answered(amount, now)

    def refused(self, size: int, wait_s: float, now: float) -> None:
        for bucket, amount in self._buckets(size):
            bucket.refused(amount, wait_s, now)

    def _buckets(self, size: int) -> list[tuple[Bucket, int]]:
        both = [(self._messages, 1), (self._bytes, size)]
        return [(bucket, amount) for bucket, amount in both if bucket is not None]


def _bucket(per_s: float | None, kept: float, sent: int, now: float) -> Bucket | None:
    if per_s is None or not (math.isfinite(per_s) and per_s > 0):
        return None
    made = Bucket(max(1.0, per_s - kept), per_s, now)
    made.sent(sent)
    made.answered(sent, now)
    return made
