"""The client of the Rusty Socks WebSocket server: a session that reconnects, resumes, and yields
each message once and in order."""

from .client import Client, State, Token
from .errors import End, RustySocksError
from .events import (
    Broadcast,
    Closing,
    Connected,
    Direct,
    Disconnected,
    Dropped,
    Event,
    Failed,
    Joined,
    Left,
    Lost,
    Matched,
    Overrun,
    PresenceRead,
    Unmatched,
)
from .messages import Member, Members, Message, Page, Place, Position, Published
from .options import Options
from .room import Pattern, Room

__version__ = "0.1.0"

__all__ = [
    "Broadcast",
    "Client",
    "Closing",
    "Connected",
    "Direct",
    "Disconnected",
    "Dropped",
    "End",
    "Event",
    "Failed",
    "Joined",
    "Left",
    "Lost",
    "Matched",
    "Member",
    "Members",
    "Message",
    "Options",
    "Overrun",
    "Page",
    "Pattern",
    "Place",
    "Position",
    "PresenceRead",
    "Published",
    "Room",
    "RustySocksError",
    "State",
    "Token",
    "Unmatched",
]
