"""Numbers and tables as text."""

from plot import number


def count(value):
    return f"{round(value):,}"


def rough(value):
    """Two digits of what was never measured: more would claim more than is known."""
    if value < 1:
        return f"{value:.2f}"
    if value < 10:
        return f"{value:.1f}"
    digits = len(str(int(value)))
    return f"{round(value, 2 - digits):,.0f}"


def size(value):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} B"


def us(value):
    return "–" if value is None else f"{number(value)} µs"


def time(seconds):
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{number(seconds / unit)} {name}"
    return us(seconds * 1e6)


def paragraphs(*parts):
    return "\n\n".join(part for part in parts if part)
