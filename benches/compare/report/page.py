"""What both pages are made of: numbers in words, tables, and prose that wraps by itself."""

import re
import string
import sys
import textwrap

WIDTH = 100


# ---- Numbers ----


def number(value):
    """Three digits or so: more would claim more than was measured."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.2f} M"
    if size >= 1e5:
        return f"{value / 1e3:.0f} k"
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def count(value):
    return f"{round(value):,}"


def rough(value):
    """Two digits of what was never measured."""
    if value < 10:
        return f"{value:.2f}" if value < 1 else f"{value:.1f}"
    return f"{round(value, 2 - len(str(int(value)))):,.0f}"


def size(value):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{number(value / unit)} {name}"
    return f"{value:.0f} B"


def us(value):
    return f"{number(value)} µs"


def time(seconds):
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{number(seconds / unit)} {name}"
    return us(seconds * 1e6)


def spread(one, show=number):
    if one is None:
        return "–"
    if one.low == one.high:
        return show(one.median)
    return f"{show(one.median)} ({show(one.low)}–{show(one.high)})"


# ---- Templates ----


class Missing(LookupError):
    """A figure that this run did not measure."""


class Formatter(string.Formatter):
    """Fills in `{expression:form}`, where the form is a function of this module or one of Python's."""

    def get_field(self, expression, _, names):
        return eval(expression, names), None  # The templates are ours.

    def format_field(self, value, form):
        return globals()[form](value) if form in globals() else format(value, form)


def fill(template, names):
    """The blocks of a page. A piece that begins with `?` is left out where it needs a figure that was
    not measured; any other takes its whole section with it, down to a heading of the second level.
    The pieces of a table are its rows, ranked by their first cell."""
    for section in re.split(r"\n(?=##)", template):
        heading, _, body = section.partition("\n")
        try:
            blocks = [block(text, names) for text in re.split(r"\n\s*\n", body.strip())]
        except Missing:
            blocks = [] if heading.startswith("## ") else None
        if blocks is not None:
            yield from [heading, *filter(None, blocks)]


def block(text, names):
    first, *optional = re.split(r"^\?", text, flags=re.MULTILINE)

    def filled(piece):
        return lambda: Formatter().vformat(piece, (), dict(names))

    pieces = [filled(first)(), *known(*map(filled, optional))]
    if not first.startswith("| "):
        is_one_field = re.fullmatch(r"\??\s*{[^}]*}", text)
        return "".join(pieces) if is_one_field else prose("".join(pieces))
    rows = [[cell.strip() for cell in " ".join(piece.split()).split(" | ")] for piece in pieces[1:]]
    ranked = sorted(rows, key=lambda row: float(row[0]))
    return table(first.strip().strip("| ").split(" | "), [row[1:] for row in ranked])


def known(*makers):
    """What the makers return, without those that need a figure that is missing."""
    found = []
    for make in makers:
        try:
            found.append(make())
        except Missing:
            continue
    return found


def prose(text):
    """Markdown whose paragraphs and list items were written with any line breaks and indentation.
    Headings, pictures and tables stay as they are."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(filter(None, map(reflowed, blocks)))


def reflowed(block):
    lines = [line.strip() for line in block.strip().split("\n")]
    if lines[0].startswith(("#", "!", "|")):
        return "\n".join(lines)
    items = re.split(r"\n(?=- )", "\n".join(lines))
    return "\n".join(wrapped(item, "  " if item.startswith("- ") else "") for item in items)


def wrapped(text, indent="", first=""):
    # A line must not begin with what would make a list or a heading of it.
    text = re.sub(r" (?=([-+*#>]|\d+[.)]) )", "\u00a0", " ".join(text.split()))
    whole = {"break_long_words": False, "break_on_hyphens": False}
    filled = textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent, **whole)
    return filled.replace("\u00a0", " ")


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def facts(about, *rows):
    pins = ", ".join(f"{what}: core {core}" for what, core in about["pins"].items())
    machine = [
        ("when", about["date"]),
        ("commit", f"`{about['commit']}`"),
        ("processor", f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB"),
        ("kernel", about["kernel"]),
        ("pinned to", pins),
    ]
    return table(["", ""], [*machine, *rows])


def caution(about, few, failed):
    """What a reader must know before believing any of it."""
    said = [few] if few else []
    if about["busy_at_start"] > 0.1:
        said.append(
            f"The machine was not quiet: {about['busy_at_start']:.1f} of its cores were busy when "
            "this began. Wall-clock figures and latencies are those of a busy machine, and CPU times "
            "count more waking up."
        )
    if failed:
        said.append("Failed: " + "; ".join(failed) + ".")
    return "\n".join(wrapped(line, "> ", "> ") for line in ["**Caution.**", *said]) if said else ""


def commands(script, groups):
    """Every command as it was run; PORT and PID differ each time."""
    lines = "\n\n".join("\n".join(group) for group in groups)
    return f"`{script}` ran these, each server with a port of its own:\n\n```sh\n{lines}\n```"


def write(out, name, parts, drawings):
    """The page `name`.md from its parts, and its drawings by their names in a folder beside it."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for drawing, svg in drawings.items():
        (folder / f"{drawing}.svg").write_text(svg)
    (out / f"{name}.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    print(f"wrote {out / name}.md", file=sys.stderr)
