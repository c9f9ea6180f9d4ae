"""Names of rooms and patterns."""

from __future__ import annotations


def is_pattern(name: str) -> bool:
    if not isinstance(name, str):
        raise TypeError(f"the name of a room is a string, not {type(name).__name__}")
    return name.endswith(".*")


def matches(pattern: str, room: str) -> bool:
    """`prices.*` matches `prices.eur` and `prices.eur.spot`, and not `prices`."""
    return room.startswith(pattern[:-1]) and len(room) >= len(pattern)


def touches(one: str, other: str) -> bool:
    """Whether joining or leaving one may change who is in the other."""
    if is_pattern(one) and is_pattern(other):
        return one.startswith(other[:-1]) or other.startswith(one[:-1])
    if is_pattern(one):
        return matches(one, other)
    return matches(other, one) if is_pattern(other) else one == other
