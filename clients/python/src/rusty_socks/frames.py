"""Frames of the protocol, as dictionaries that may hold anything: what is read is checked here."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from .errors import Misbehaved
from .messages import Member, Message, Place

Frame = dict[str, Any]

# Numbers of the protocol are below this.
SEQ_END = 2**64


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse(text: str | bytes) -> Frame | None:
    """Returns the frame, or ``None`` for what is none and is ignored."""
    if not isinstance(text, str):
        return None
    try:
        frame = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


def encode(fields: Frame) -> str:
    """Returns a command as JSON without its last brace, so that a ``ref`` can follow."""
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Half a surrogate pair is a Python string, and is not Unicode.
        text.encode()
    except RecursionError as error:
        raise ValueError("the content is nested too deeply") from error
    return text[:-1]


def text_in(frame: Frame, name: str) -> str:
    value = frame.get(name)
    if not isinstance(value, str):
        raise Misbehaved(f"{name} is {value!r}, and not a text")
    return value


def text_or_none(frame: Frame, name: str) -> str | None:
    return None if frame.get(name) is None else text_in(frame, name)


def seq_in(frame: Frame, name: str = "seq") -> int:
    value = frame.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < SEQ_END:
        raise Misbehaved(f"{name} is {value!r}, and not a number of a message")
    return value


def frames_in(frame: Frame, name: str) -> list[Frame]:
    """Returns a list of objects; an absent one is empty."""
    value = frame.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Misbehaved(f"{name} is not a list of objects")
    return value


def texts_in(frame: Frame, name: str) -> list[str]:
    value = frame.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Misbehaved(f"{name} is not a list of texts")
    return value


def number_in(frame: Frame, name: str) -> float | None:
    """Returns a number that is not needed: anything else counts as absent."""
    value = frame.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # What is above this is no number that anyone means, and an `int` may not fit a `float`.
    return float(min(max(value, -1e15), 1e15))


def places_in(frame: Frame) -> tuple[Place, ...]:
    """Returns the rooms of a message or of an answer to ``publish``."""
    places = frames_in(frame, "rooms") or [frame]
    return tuple(Place(text_in(place, "room"), seq_in(place)) for place in places)


def message_in(frame: Frame) -> Message:
    places = places_in(frame)
    return Message(
        room=places[0].room,
        seq=places[0].seq,
        id=text_in(frame, "id"),
        content=frame.get("content"),
        client_id=text_in(frame, "client_id"),
        timestamp=text_in(frame, "timestamp"),
        sender=frame.get("sender"),
        user=text_or_none(frame, "user"),
        rooms=places,
    )


def messages_in(answer: Frame) -> list[Message]:
    return [message_in(frame) for frame in frames_in(answer, "messages")]


def member_in(frame: Frame) -> Member:
    return Member(text_in(frame, "client_id"), frame.get("sender"), text_or_none(frame, "user"))
