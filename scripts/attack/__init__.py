"""Attacks on a server of one's own, and what its other clients notice of them.

`run.py` is the command, `attacks/` has one function for each attack, `scene.py` is what they work
with: a server (`server.py`), quiet clients that time it from a process of their own (`probe.py`),
crowds of readers (`crowd.py`) and frames by hand (`wire.py`). `report.py` writes the tables,
`bounds.py` says what must hold. Everything is bounded in count, bytes and time, and nothing but
the loopback is ever dialled.
"""
