"""The figures as a table for the terminal, and as a column of a table in a document."""

import re

HEAD = ("attack", "ping p50/worst/p99 ms: before", "during", "after", "publish: during",
        "RSS MB: before/peak/after", "longest turn/core wait ms", "insiders closed", "over after s")


def pair(phase, kind):
    return "/".join(short(phase.get(f"{kind}_{at}_ms")) for at in ("p50", "worst_p50", "p99"))


def turn_and_wait(after):
    """The longest turn, and how much of it may have been somebody else's."""
    return "/".join(short(after.get(key)) for key in ("turn_max_ms", "core_wait_max_ms"))


def short(value):
    """Three digits are enough."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def row(result):
    if "failed" in result:
        return (result["name"], f"failed: {result['failed']}") + ("",) * (len(HEAD) - 2)
    before, during, after = (result["phases"][phase] for phase in ("before", "during", "after"))
    memory = (before.get("rss_mb"), during.get("peak_mb"), after.get("rss_mb"))
    return (
        result["name"],
        pair(before, "ping"),
        pair(during, "ping"),
        pair(after, "ping"),
        pair(during, "publish"),
        "/".join(short(value) for value in memory),
        turn_and_wait(after),
        str(result["insiders_closed"]),
        str(result["facts"].get("over_s", "–")),
    )


def table(results):
    rows = [HEAD, *map(row, results)]
    widths = [max(len(line[at]) for line in rows) for at in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in rows]
    lines += ["", *filter(None, map(besides, results))]
    return "\n".join(line.rstrip() for line in lines)


def line(result):
    """What one attack did, in a line."""
    if "failed" in result:
        return f"  failed: {result['failed']}"
    _, before, during, after, publish, memory, turn, closed, over = row(result)
    text = (f"  ping {before} → {during} → {after} ms; publish {publish} ms; RSS {memory} MB; "
            f"longest turn/core wait {turn} ms; {closed} insiders closed; over after {over} s")
    return "\n  ".join(filter(None, (text, besides(result))))


def besides(result):
    """Everything that has no column."""
    if "failed" in result:
        return ""
    facts = {key: value for key, value in result["facts"].items() if key != "over_s"}
    facts |= {f"closed {code}": count for code, count in result["closed"].items()}
    facts |= {f"refused {why}": count for why, count in result["refused"].items()}
    facts["kernel_mb"] = round(result["phases"]["during"].get("kernel_mb", 0))
    for figure in ("unanswered", "refused"):
        if count := result["phases"]["during"].get(figure):
            facts[f"insiders' requests {figure}"] = count
    return f"{result['name']}: " + ", ".join(f"{key} {value}" for key, value in facts.items())


def cell(result):
    """What others see, in the few words of a document's table."""
    if "failed" in result:
        return "not measured"
    during, facts = result["phases"]["during"], result["facts"]
    said = [f"ping {pair(during, 'ping')} ms", f"publish {pair(during, 'publish')} ms"]
    said.append(f"RSS {short(during.get('peak_mb'))} MB")
    if result["phases"]["after"].get("turn_max_ms"):
        said.append(f"turn {turn_and_wait(result['phases']['after'])} ms")
    if result["insiders_closed"]:
        said.append(f"{result['insiders_closed']} insiders closed")
    hidden = {"attack_s", "over_s", "bytes_sent_each", "clients", "health_checks", "newcomers",
              "away_sessions", "clients_closed", "sockets", "rooms_made", "resets"}
    said += [f"`{key}` {value}" for key, value in facts.items() if key not in hidden]
    return "; ".join(said).replace("|", "/")


ROW = re.compile(r"^\| `([a-z0-9-]+)` \|(.*)\|$")


def fill(text, results, column):
    """Puts the figures into the rows of a document's table that begin with the attacks' names.

    A row has the columns name, attack, before and after.
    """
    by_name = {result["name"]: result for result in results}

    def filled(line):
        found = ROW.match(line)
        if not found or found[1] not in by_name:
            return line
        cells = [part.strip() for part in found[2].split(" | ")]
        cells += [""] * (3 - len(cells))
        cells[{"before": 1, "after": 2}[column]] = cell(by_name[found[1]])
        return f"| `{found[1]}` | {' | '.join(cells)} |"

    return "\n".join(filled(line) for line in text.split("\n"))
