"""What must hold under each attack, and why."""

import dataclasses

from .attacks import ATTACKS


# A turn may take 10 ms of a core, and four workers share the core that the server has.
TURN_MS_MAX = 40


@dataclasses.dataclass(frozen=True)
class Bound:
    """The insiders' p99 during the attack is at most `times` that before it and `plus_ms`.

    `facts` are further figures with the largest value that may be; `why` says why these numbers.
    """

    times: float = 3
    plus_ms: float = 30
    rss_mb_max: float = 500
    turn_ms_max: float | None = TURN_MS_MAX
    facts: dict = dataclasses.field(default_factory=dict)
    insiders_closed_max: int = 0
    why: str = "30 ms is three turns of the longest that is allowed"


FANOUT = "a slice of somebody else's fan-out, and the crowd's own share of the probe's core"
PAUSE = "the pause itself is not the server's to shorten; only what follows it is"
# A share of the machine's memory is not told here: each has the ceiling of what it may hold.
BOUNDS = {
    "burst-5000": Bound(5, 60, 700, why=FANOUT),
    "burst-1000": Bound(5, 60, 300, why=FANOUT),
    "flood": Bound(5, 60, 700, why=FANOUT),
    "direct-flood": Bound(),
    "lobby-64k": Bound(5, 60, 300, why="50 readers of 10 MB/s each take the probe's core too"),
    "rate-reconnect": Bound(
        facts={"messages_per_s": 60}, why="an address has twice the rate of a connection, and a burst"
    ),
    "http-stats-100": Bound(),
    "http-stats-10": Bound(),
    "http-health": Bound(),
    "http-unread": Bound(rss_mb_max=300, why="what waits for idle HTTP goes first"),
    "health-squat": Bound(
        facts={"health_checks_failed": 0}, why="an orchestrator restarts a server that fails once"
    ),
    "join-leave": Bound(5, 60, why=FANOUT),
    "presence": Bound(),
    "history": Bound(),
    "inflate": Bound(),
    "patterns": Bound(5, 60, why=FANOUT),
    "rooms": Bound(
        rss_mb_max=700,
        facts={"newcomer_has_default_room": True, "newcomer_can_make_a_room": True},
        why="one owner holds so much of the histories and no more; empty rooms yield",
    ),
    "history-unread": Bound(
        rss_mb_max=600, why="600 outboxes of 1 MiB; the ceiling of memory holds for the sum"
    ),
    "dedicated": Bound(
        facts={"kib_per_client": 350}, why="docs/configuration.md says so", turn_ms_max=None, times=5,
        plus_ms=100, rss_mb_max=400,
    ),
    "mixture": Bound(5, 100, 1500, why="the ceiling of memory holds for the sum"),
    "resets": Bound(facts={"sessions_lost": 0}, why="sessions worth keeping go last"),
    "squat": Bound(facts={"newcomers_refused": 0}, why="an address has a share of the places"),
    "deep-json": Bound(
        facts={"python": "well", "javascript": "well"},
        why="what is passed on can be read by every common client, or is refused",
    ),
    "surrogate": Bound(
        facts={"python": "well", "rust": "well"},
        why="what is passed on can be read by every common client, or is refused",
    ),
    "stopped": Bound(1, 5500, turn_ms_max=None, facts={"clients_closed": 0}, why=PAUSE),
    "log-pipe": Bound(facts={"second_signal_ends_it": True}, why="a log is no reason to wait"),
    "log-tokens": Bound(facts={"token_in_log": 0}, why="a log is read by many"),
    "sigterm-files": Bound(
        facts={"told_after_s": 0.5}, why="a shutdown needs no descriptor"
    ),
}
assert set(BOUNDS) == set(ATTACKS), set(BOUNDS) ^ set(ATTACKS)


def table():
    """All bounds, for people."""
    lines = [f"{'bound of':16} p99 at most     RSS MB  turn ms  besides; why"]
    for name, bound in BOUNDS.items():
        facts = ", ".join(f"{key} {value}" for key, value in bound.facts.items())
        lines.append(
            f"{name:16} {bound.times:g} × + {bound.plus_ms:g} ms".ljust(33)
            + f"{bound.rss_mb_max:g}".ljust(8)
            + f"{bound.turn_ms_max or '–'}".ljust(9)
            + "; ".join(filter(None, (facts, bound.why)))
        )
    return "\n".join(lines)


def broken(results):
    """What does not hold, a line each."""
    return [f"{result['name']}: {what}" for result in results for what in of_result(result)]


def of_result(result):
    if "failed" in result:
        yield f"it could not be measured: {result['failed']}"
        return
    bound, phases = BOUNDS[result["name"]], result["phases"]
    for kind in ("ping", "publish"):
        before = phases["before"].get(f"{kind}_p99_ms")
        during = phases["during"].get(f"{kind}_p99_ms")
        if before is None or during is None:
            yield f"no {kind} was answered"
        elif during > (limit := bound.times * before + bound.plus_ms):
            yield f"{kind} p99 {during:,.0f} ms, at most {limit:,.0f} ({bound.why})"
    if (peak := phases["during"].get("peak_mb", 0)) > bound.rss_mb_max:
        yield f"RSS {peak:,.0f} MB, at most {bound.rss_mb_max:g} ({bound.why})"
    turn = phases["after"].get("turn_max_ms")
    if bound.turn_ms_max and turn and turn > bound.turn_ms_max:
        yield f"a turn of {turn:,.0f} ms, at most {bound.turn_ms_max:g}"
    if result["insiders_closed"] > bound.insiders_closed_max:
        yield f"{result['insiders_closed']} insiders were closed"
    for key, wanted in bound.facts.items():
        value = result["facts"].get(key)
        is_number = isinstance(wanted, (int, float)) and not isinstance(wanted, bool)
        holds = value == wanted
        if is_number:
            holds = isinstance(value, (int, float)) and value <= wanted
        if not holds:
            yield f"{key} is {value}, wanted {wanted} ({bound.why})"
