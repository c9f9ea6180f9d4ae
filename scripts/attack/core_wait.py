"""How long a server's workers wait for their core while others have it.

A turn is told by the clock on the wall, and the system gives cores to other processes too. What a
worker has waited for its core stands in `/proc`, without when; so a process of its own looks all the
time, and the most that came together between two looks may be part of one turn.
"""

import contextlib
import glob
import multiprocessing
import os
import time

# Linux keeps 15 bytes of the name of a thread.
WORKER = "rusty-socks-worker"[:15]
LOOK_S = 0.004
# Between looks that are further apart than this, more than one wait may have been.
APART_S_MAX = 0.02


def waited_ns(pid):
    """What each worker has waited for a core so far, by its thread."""
    waits = {}
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            with open(f"{task}/comm") as comm, open(f"{task}/schedstat") as schedstat:
                if comm.read().strip() == WORKER:
                    waits[task] = int(schedstat.read().split()[1])
        except (OSError, ValueError, IndexError):
            pass
    return waits


class CoreWait:
    """Looks until it is finished."""

    def __init__(self, pid, core):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_look, args=(pid, core, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def finish(self):
        """Returns the longest wait, in milliseconds."""
        self.pipe.send(None)
        longest_ns = self.pipe.recv() if self.pipe.poll(5) else 0
        self.process.join(5)
        return longest_ns / 1e6

    def kill(self):
        self.process.kill()


def _look(pid, core, pipe):
    if core is not None:
        os.sched_setaffinity(0, {core})
    # The crowds are busy on this core. Whoever may not be more urgent than they looks less often.
    with contextlib.suppress(PermissionError):
        os.nice(-15)
    longest_ns, before, looked = 0, waited_ns(pid), time.monotonic()
    while not pipe.poll(LOOK_S):
        now = waited_ns(pid)
        apart, looked = time.monotonic() - looked, time.monotonic()
        if apart <= APART_S_MAX:
            waits = (ns - before[task] for task, ns in now.items() if task in before)
            longest_ns = max(longest_ns, max(waits, default=0))
        before = now
    pipe.send(longest_ns)
