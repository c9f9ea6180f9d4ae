"""A server for one check: on a free port of the loopback, with the settings the check asks for."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Longer than anything here should take, so that whoever reaches it hangs.
DEADLINE_S = 20

LISTENS = re.compile(r"listens on (\S+): \d")


def wait_for(what, look):
    """Calls `look` until it gives something true, and returns that."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {DEADLINE_S} s")


def bare_environment():
    """The caller's environment without any setting for a server."""
    ours = ("RUSTY_SOCKS_", "RUST_LOG")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class Server:
    """Runs the binary for the length of a `with`. Settings are keys as in the TOML file."""

    def __init__(self, binary, **settings):
        ours = {"host": "127.0.0.1", "port": 0, "drain_timeout": 5, **settings}
        self.env = {**bare_environment(), **{f"RUSTY_SOCKS_{k.upper()}": str(v) for k, v in ours.items()}}
        self.binary = binary
        self.kept = contextlib.ExitStack()

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [self.binary], env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        try:
            self.address = wait_for("line with the address in the log", self._listens)
        except BaseException:
            self.__exit__()
            raise
        return self

    def keep(self, context):
        """Enters a context that ends before the server does; for clients."""
        return self.kept.enter_context(context)

    def __exit__(self, *_):
        # A client that cannot say goodbye is no failure of its own.
        with contextlib.suppress(Exception):
            self.kept.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def _listens(self):
        text = self.log_text()
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {text}")
        found = LISTENS.search(text)
        return found and found.group(1)

    def log_text(self):
        self.log.seek(0)
        return self.log.read()

    def ws(self, path="/ws"):
        return f"ws://{self.address}{path}"

    def wss(self, path="/ws"):
        return f"wss://{self.address}{path}"

    def get(self, path):
        """Status, headers and JSON body of a plain request."""
        try:
            answer = urllib.request.urlopen(f"http://{self.address}{path}", timeout=DEADLINE_S)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            return answer.status, answer.headers, json.load(answer)

    def stats(self):
        return self.get("/stats")[2]

    def wait_for_stats(self, **wanted):
        """Waits until `/stats` shows these figures."""

        def shows():
            stats = self.stats()
            return all(stats[name] == value for name, value in wanted.items())

        wait_for(f"{wanted} in /stats", shows)

    def terminate(self):
        """Asks it to end, as a supervisor would."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self):
        return self.process.wait(timeout=DEADLINE_S)
