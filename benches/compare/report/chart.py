"""Charts as SVG: bars side by side, and points with the lines through them.

Colours follow the reader's theme. A whisker shows how far the measurements spread.
"""

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from page import number

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.quiet { fill: #59636e; font-size: 12px; }
.ours { font-weight: 600; }
.bar { fill: #8c959f; } .bar.ours { fill: #b7410e; } .bar.floor { fill: #d1d9e0; }
.spread { stroke: #1f2328; stroke-width: 1.2; }
.axis { stroke: #d1d9e0; }
.grid { stroke: #d1d9e0; opacity: .6; }
.whisker { stroke-width: 1.5; }
.c0 { stroke: #b7410e; fill: #b7410e; } .c1 { stroke: #0969da; fill: #0969da; }
.c2 { stroke: #1a7f37; fill: #1a7f37; } .c3 { stroke: #8250df; fill: #8250df; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .quiet { fill: #9198a1; }
  .bar { fill: #6e7681; } .bar.ours { fill: #e8743b; } .bar.floor { fill: #3d444d; }
  .spread { stroke: #f0f6fc; } .axis, .grid { stroke: #3d444d; }
  .c0 { stroke: #e8743b; fill: #e8743b; } .c1 { stroke: #58a6ff; fill: #58a6ff; }
  .c2 { stroke: #3fb950; fill: #3fb950; } .c3 { stroke: #bc8cff; fill: #bc8cff; }
}
.fit { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 4; }
"""


def svg(title, width, height, parts):
    sizes = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {sizes} role="img">'
    named = [f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", text(8, 22, title, "title")]
    return "\n".join([head, *named, *parts, "</svg>\n"])


def text(x, y, words, style="", anchor="start"):
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}"{anchored}>{escape(words)}</text>'


def line(style, x1, y1, x2, y2):
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


# ---- Bars ----

BARS_WIDTH, LABELS, ROW, BAR, BARS_TOP = 920, 190, 26, 15, 74
# Beside the longest bar, for its number; and between two panels.
NUMBER, GAP = 62, 26


@dataclass
class Panel:
    """One figure of all rows. A row without a measurement has `None` for its summary."""

    label: str
    note: str
    summaries: list


def bars(title, rows, panels):
    """A panel for each figure, with a bar for each of `rows`: pairs of label and style."""
    parts = [text(8, BARS_TOP + ROW * row + BAR - 4, label, style) for row, (label, style) in enumerate(rows)]
    width = (BARS_WIDTH - LABELS) / len(panels)
    for index, panel in enumerate(panels):
        parts += draw_panel(panel, rows, LABELS + width * index, width - GAP)
    return svg(title, BARS_WIDTH, BARS_TOP + ROW * len(rows) + 14, parts)


def draw_panel(panel, rows, left, width):
    bottom = BARS_TOP + ROW * len(rows) - 4
    parts = [
        text(left, 42, panel.label),
        text(left, 57, panel.note, "quiet"),
        line("axis", left, BARS_TOP - 8, left, bottom),
    ]
    longest = max((one.high for one in panel.summaries if one), default=0)
    scale = (width - NUMBER) / longest if longest > 0 else 0
    for row, ((_, style), one) in enumerate(zip(rows, panel.summaries)):
        top = BARS_TOP + ROW * row - 2
        if one is None:
            parts.append(text(left + 6, top + BAR - 2, "–", "quiet"))
            continue
        length = max(one.median * scale, 1)
        low, high = (left + max(value * scale, 0) for value in (one.low, one.high))
        parts.append(f'<rect class="bar {style}" x="{left:.1f}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        if high - low > 1:
            parts.append(line("spread", low, top + BAR / 2, high, top + BAR / 2))
        end = max(left + length, high) + 6
        parts.append(text(end, top + BAR - 2, number(one.median), style))
    return parts


# ---- Points and lines ----

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 74, 52
# Points of a line that is not straight on its axes.
STEPS = 60


@dataclass
class Series:
    """Summaries by x, and the line that was fitted, as a function of x."""

    label: str
    points: dict = field(default_factory=dict)
    line: object = None
    dashed: bool = False


@dataclass
class Plot:
    """The x axis is logarithmic."""

    title: str
    x_label: str
    y_label: str
    series: list
    log_y: bool = False
    # Where there are lines alone.
    x_range: tuple | None = None

    def draw(self):
        xs = [x for one in self.series for x in one.points] or self.x_range
        along = Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, True)
        lines = [curve(one, min(xs), max(xs)) if one.line else [] for one in self.series]
        ys = [y for one in self.series for at in one.points.values() for y in (at.low, at.high)]
        ys = [y for y in ys + [y for points in lines for _, y in points] if y > 0] or [1]
        least, most = (min(ys), max(ys)) if self.log_y else (0, max(ys) * 1.05)
        up = Axis(least, most, HEIGHT - BOTTOM, TOP, self.log_y)
        parts = [
            text(8, TOP - 10, self.y_label, "quiet"),
            text(WIDTH - RIGHT, HEIGHT - 8, self.x_label, "quiet", "end"),
            *self.legend(),
            *grid(along, up),
        ]
        for index, (one, points) in enumerate(zip(self.series, lines)):
            path = " ".join(f"{along.at(x):.1f},{up.at(y):.1f}" for x, y in points if y > 0)
            if path:
                parts.append(f'<polyline class="{fit_style(index, one)}" points="{path}"/>')
        for index, one in enumerate(self.series):
            parts += [dot(index, along.at(x), at, up) for x, at in one.points.items() if at.median > 0]
        return svg(self.title, WIDTH, HEIGHT, parts)

    def legend(self):
        x = 8
        for index, one in enumerate(self.series):
            if one.points:
                yield f'<circle class="c{index % 4}" cx="{x + 5}" cy="40" r="4"/>'
            else:
                yield line(fit_style(index, one), x - 2, 40, x + 12, 40)
            yield text(x + 16, 44, one.label)
            # Nothing measures a text here; most letters are narrower than this.
            x += 40 + 7 * len(one.label)


def grid(along, up):
    for value in along.ticks():
        x = along.at(value)
        yield line("grid", x, TOP, x, HEIGHT - BOTTOM)
        yield text(x, HEIGHT - BOTTOM + 18, tick(value), "quiet", "middle")
    for value in up.ticks():
        y = up.at(value)
        yield line("grid", LEFT, y, WIDTH - RIGHT, y)
        yield text(LEFT - 8, y + 4, tick(value), "quiet", "end")


def fit_style(index, series):
    return f"c{index % 4} fit" + " dashed" * series.dashed


def curve(series, least, most):
    ratio = (most / least) ** (1 / STEPS)
    return [(x, series.line(x)) for x in (least * ratio**step for step in range(STEPS + 1))]


def dot(index, x, one, up):
    whisker = line(f"whisker c{index % 4}", x, up.at(max(one.low, up.least)), x, up.at(one.high))
    return f'{whisker}<circle class="c{index % 4}" cx="{x:.1f}" cy="{up.at(one.median):.1f}" r="4"/>'


def tick(value):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


class Axis:
    """Values from `least` to `most`, laid out from `start` to `end`."""

    def __init__(self, least, most, start, end, log):
        self.least, self.most, self.start, self.end, self.log = least, most, start, end, log
        if log:
            # Whole decades would waste most of a short axis.
            self.least, self.most = least / 1.15, most * 1.15

    def at(self, value):
        if self.log:
            part = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        else:
            part = (value - self.least) / (self.most - self.least)
        return self.start + part * (self.end - self.start)

    def ticks(self):
        if not self.log:
            step = 10 ** math.floor(math.log10(self.most))
            step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if self.most / (step * part) <= 8)
            return [step * count for count in range(int(self.most / step) + 1)]
        decades = math.log10(self.most / self.least)
        digits = (1,) if decades > 3.5 else (1, 3) if decades > 1.3 else (1, 2, 3, 5, 7)
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        values = [digit * 10.0**power for power in powers for digit in digits]
        return [value for value in values if self.least <= value <= self.most]
