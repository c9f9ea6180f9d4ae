"""All attacks, in the order in which they are told."""

import dataclasses
import typing


@dataclasses.dataclass(frozen=True)
class Attack:
    """One thing that one stranger, or bad luck, can do."""

    name: str
    line: str
    run: typing.Callable
    settings: dict
    # Starts the server itself, where it needs an unusual one.
    own_server: typing.Callable | None = None
    # What is smaller in the short form, so that it is reached all the same.
    short_settings: dict = dataclasses.field(default_factory=dict)


ATTACKS: dict[str, Attack] = {}


def attack(name, line, own_server=None, short=None, **settings):
    """Makes a function of a scene an attack."""

    def register(run):
        ATTACKS[name] = Attack(name, line, run, settings, own_server, short or {})
        return run

    return register


# Each registers its own.
from . import publishing, http, presence, memory, connections, content, pauses  # noqa: E402, F401
