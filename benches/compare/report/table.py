"""Tables, and figures in them, for this page and that of scaling."""

from plot import number


def spread(one, show=number):
    if one is None:
        return "–"
    if one.low == one.high:
        return show(one.median)
    return f"{show(one.median)} ({show(one.low)}–{show(one.high)})"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
