"""What can go wrong: one class, and a code that a program can compare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class End:
    """How a connection ended.

    ``code`` is the close code, 1006 if there was none; ``status`` the HTTP status of a refused
    upgrade.
    """

    code: int
    reason: str
    status: int | None = None

    def __str__(self) -> str:
        what = f"close code {self.code}" if self.status is None else f"HTTP status {self.status}"
        return f"{what}: {self.reason}" if self.reason else what


class RustySocksError(Exception):
    """A command that failed, or the end of the client.

    ``code`` is one of the server's (``docs/protocol.md``, "Errors"), or one of the client's own:

    - ``closed``: the program has closed the client, or it was never entered
    - ``stopped``: the client does not come back; ``end`` says why
    - ``outbox_full``: too many commands wait for an answer
    - ``answer_lost``: the connection was lost before the answer to a ``broadcast``, which may have
      been sent or not
    - ``left``: the room was left, or the server has taken the client out of it
    - ``misbehaved``: the server's answer makes no sense
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        end: End | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.end = end
        self.retry_after_s = retry_after_s


class Misbehaved(Exception):
    """A frame that makes no sense."""
