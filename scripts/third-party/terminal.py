"""A program on a terminal of its own. `wscat` prints nothing where there is none."""

import os
import pty
import re
import select
import subprocess
import time

from server import DEADLINE_S

# What colours and moves the cursor.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a command for the length of a `with`, on a pseudo-terminal."""

    def __init__(self, command):
        self.command = command

    def __enter__(self):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            self.command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.text = ""
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def type(self, line):
        os.write(self.master, line.encode() + b"\n")

    def read_until(self, wanted):
        """Reads on until `wanted` has been printed, and forgets what came up to there."""
        end = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            left = end - time.monotonic()
            ready = left > 0 and select.select([self.master], [], [], left)[0]
            # Linux reports the other end's close as an error, other systems as an empty read.
            try:
                data = os.read(self.master, 65536) if ready else b""
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"never printed {wanted!r}, but: {self.text!r}")
            self.text += ESCAPES.sub("", data.decode(errors="replace"))
        self.text = self.text.split(wanted, 1)[1]
