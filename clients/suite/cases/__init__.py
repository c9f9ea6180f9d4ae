"""The cases, in the order of `docs/protocol.md`'s checklist."""


def load() -> None:
    """Registers them all."""
    from . import handshake, closes, resume, order, publishes, nonsense, misuse  # noqa: F401
