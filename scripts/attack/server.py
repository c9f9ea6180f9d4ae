"""The server under attack: a process of our own, on one core, on a free port of the loopback."""

import http.client
import json
import os
import re
import resource
import signal
import subprocess
import tempfile
import time

START_S_MAX = 15
STOP_S_MAX = 8
STATS_S_MAX = 30
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Hands standard input and output on as the third and fourth descriptor, where a service manager's
# sockets are.
PASS_ON = 'exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ exec "$0"'


class Server:
    """A running server. `settings` are keys as in RUSTY_SOCKS_KEY, `env` other variables. It is
    passed `sockets`, if there are any, which listen already: for clients, for the server API."""

    def __init__(
        self, binary, settings, core=None, files_max=None, stderr=None, sockets=(), env=None
    ):
        ours = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("RUSTY_SOCKS_") and key != "RUST_LOG"
        }
        env = ours | (env or {})
        env |= {f"RUSTY_SOCKS_{key}": str(value) for key, value in settings.items()}
        env |= {"RUSTY_SOCKS_HOST": "127.0.0.1", "RUSTY_SOCKS_PORT": "0"}
        self.log = tempfile.TemporaryFile()
        self.binary = binary

        def before_exec():
            if core is not None:
                os.sched_setaffinity(0, {core})
            if files_max:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

        command, stdin, stdout = [binary], subprocess.DEVNULL, subprocess.DEVNULL
        if sockets:
            command = ["sh", "-c", PASS_ON, binary]
            stdin, stdout = sockets[0], sockets[-1]
            env["LISTEN_FDS"] = str(len(sockets))
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=self.log if stderr is None else stderr,
            preexec_fn=before_exec,
        )
        self.pid = self.process.pid
        self.address = None
        if sockets:
            self.address = sockets[0].getsockname()
        elif stderr is None:
            self.address = ("127.0.0.1", self._port())

    def _port(self):
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline:
            if found := re.search(rb"listens on 127\.0\.0\.1:(\d+)", self.log_text()):
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"{self.binary} does not listen: {self.log_text().decode()}")

    def log_text(self):
        """What it has written to standard error so far."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0)

    def stats(self, timeout=STATS_S_MAX):
        """The figures of `/stats`, or `None` where it does not answer in time."""
        return get_json(self.address, "/stats", timeout)

    def memory_mb(self):
        """What it holds now and held at most since `forget_peak`, in MB."""
        try:
            with open(f"/proc/{self.pid}/status") as status:
                lines = dict(line.split(":", 1) for line in status)
        except OSError:
            return 0.0, 0.0
        return tuple(
            int(lines.get(key, "0 kB").split()[0]) / 1024 for key in ("VmRSS", "VmHWM")
        )

    def forget_peak(self):
        """Lets the peak begin anew."""
        try:
            with open(f"/proc/{self.pid}/clear_refs", "w") as refs:
                refs.write("5")
        except OSError:
            pass

    def is_running(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """Ends it, at the latest by force."""
        if self.is_running():
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.process.wait(STOP_S_MAX)


def get_json(address, path, timeout):
    """A GET that gives up."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def kernel_mb():
    """What TCP holds in this machine's kernel now, in MB. It is that of both sides."""
    with open("/proc/net/sockstat") as stat:
        found = re.search(r"TCP:.* mem (\d+)", stat.read())
    return int(found[1]) * PAGE_BYTES / 1e6 if found else 0.0
