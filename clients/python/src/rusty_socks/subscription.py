"""A room or pattern that the program has joined: how, who is in it, and what waits to be read."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import RustySocksError
from .messages import Member
from .queues import MessageQueue


class Subscription:
    def __init__(
        self,
        name: str,
        queue: MessageQueue,
        *,
        presence: bool,
        sender: str | None,
        members_max: int,
    ) -> None:
        self.name = name
        self.queue = queue
        self.presence = presence
        self.sender = sender
        self.members: dict[str, Member] = {}
        self.member_count = 0
        # The program has called `leave`.
        self.is_left = False
        self._members_max = members_max

    def read_members(self, members: Iterable[Member], count: int) -> None:
        self.members = {}
        for member in members:
            self._add(member)
        self.member_count = count

    def joined(self, member: Member) -> None:
        if member.client_id not in self.members:
            self.member_count += 1
        self._add(member)

    def left(self, member: Member) -> None:
        self.members.pop(member.client_id, None)
        self.member_count = max(0, self.member_count - 1)

    def leave(self) -> None:
        """From now on nothing of it is yielded."""
        self.is_left = True
        self.queue.end(None, at_once=True)

    def end(self, error: RustySocksError | None) -> None:
        self.queue.end(error)

    def _add(self, member: Member) -> None:
        if len(self.members) < self._members_max:
            self.members[member.client_id] = member
