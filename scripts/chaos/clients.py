"""Session clients: a process of Node with many, which keep account of every message."""

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("clients.mjs")
ENTER_S_MAX = 120
ANSWER_S_MAX = 150


class Clients:
    """Runs `clients.mjs` for the length of a `with`. The plan is that of its `PLAN`."""

    def __init__(self, url, ca=None, **plan):
        env = dict(os.environ)
        if ca:
            env["NODE_EXTRA_CA_CERTS"] = str(ca)
        self.plan = plan
        self.ticks, self.answers, self.words = [], queue.Queue(), []
        self.process = subprocess.Popen(
            ["node", PROGRAM, json.dumps({"url": url, **plan})],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.readers = [
            threading.Thread(target=self._hear, daemon=True),
            threading.Thread(target=self._overhear, daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join(5)

    def _hear(self):
        for line in self.process.stdout:
            said = json.loads(line)
            if "order" in said:
                self.answers.put(said)
            else:
                self.ticks.append(said)
        self.answers.put(None)

    def _overhear(self):
        for line in self.process.stderr:
            self.words = [*self.words[-20:], line]

    def entered(self):
        """Waits until all are in their rooms."""
        return self._answer("entered", ENTER_S_MAX)

    def order(self, order, **how):
        """Gives an order, and returns its answer."""
        self.begin(order, **how)
        return self.end(order)

    def begin(self, order, **how):
        """Gives an order; `end` waits for its answer."""
        self.process.stdin.write(json.dumps({"order": order, **how}) + "\n")
        self.process.stdin.flush()

    def end(self, order):
        return self._answer(order, ANSWER_S_MAX).get("answer")

    def _answer(self, order, timeout):
        try:
            said = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(
                f"the clients do not answer {order!r} within {timeout} s"
            ) from None
        if said is None:
            raise AssertionError(f"the clients have ended: {''.join(self.words)}")
        if "failed" in said or said["order"] != order:
            raise AssertionError(f"the clients answer {order!r} with {said}")
        return said

    def seen(self):
        """What was counted so far."""
        return self.order("report")

    def wait_until(self, what, holds, within):
        """Waits until the figures are as `holds` wants them, and returns them."""
        deadline = time.monotonic() + within
        while True:
            seen = self.seen()
            if holds(seen):
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {within} s: {short(seen)}")
            time.sleep(0.1)


def short(seen):
    """Figures without long lists."""
    return {key: value for key, value in seen.items() if key != "aways" and value}
