"""The server's own bounds, read where they are written down, so that the page stays true."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def default(key):
    """The default of a setting, such as `max_conn`, in its unit; of bytes, in bytes."""
    return number(_row(key)[0])


def most(key):
    """The highest value that a setting may have."""
    return number(_row(key)[1].split()[2])


def constant(path, name):
    """A number that is a constant of the server, in the source file of that path."""
    source = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(rf"\bconst {name}: \w+ = ([\d_]+)(?: << (\d+))?;", source)
    if not found:
        raise LookupError(f"{path} has no constant {name} that is a number")
    return int(found[1]) << int(found[2] or 0)


def number(text):
    """`16384`, or `256KiB`."""
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not found:
        raise ValueError(f"'{text}' is no number that the table of settings would have")
    return int(found[1]) * UNITS[found[2]]


@cache
def _settings():
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    # Name, default, range and meaning; a test of the server's holds these to the code.
    return dict(re.findall(r"^\| `RUSTY_SOCKS_(\w+)` \| (.+?) \|[^|]*$", text, re.MULTILINE))


def _row(key):
    cells = _settings().get(key.upper())
    if cells is None:
        raise LookupError(f"the table of settings in docs/configuration.md has no {key}")
    return [cell.strip(" `") for cell in cells.split("|")]
