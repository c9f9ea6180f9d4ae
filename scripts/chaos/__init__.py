"""Faults done to real servers under real clients, and what became of the clients' messages.

Everything is on the loopback of this machine, on free ports; every process is ended by its id.
"""
