"""Points and lines as SVG. Colours follow the reader's theme, as in ../report/plot.py, whose style this is."""

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from plot import STYLE

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 74, 52
# Points of a line that is no straight one on its axes.
STEPS = 60

COLOURS = """
.grid { stroke: #d1d9e0; stroke-width: 1; opacity: .6; }
.fit { fill: none; stroke-width: 2; }
.whisker { stroke-width: 1.5; }
.dashed { stroke-dasharray: 6 4; }
.c0 { stroke: #b7410e; fill: #b7410e; } .c1 { stroke: #0969da; fill: #0969da; }
.c2 { stroke: #1a7f37; fill: #1a7f37; } .c3 { stroke: #8250df; fill: #8250df; }
.fit.c0, .fit.c1, .fit.c2, .fit.c3 { fill: none; }
@media (prefers-color-scheme: dark) {
  .grid { stroke: #3d444d; }
  .c0 { stroke: #e8743b; fill: #e8743b; } .c1 { stroke: #58a6ff; fill: #58a6ff; }
  .c2 { stroke: #3fb950; fill: #3fb950; } .c3 { stroke: #bc8cff; fill: #bc8cff; }
}
"""


@dataclass
class Series:
    """Points as x and summary, and the line that was fitted, as a function of x."""

    label: str
    points: list = field(default_factory=list)
    line: object = None
    dashed: bool = False


@dataclass
class Plot:
    title: str
    x_label: str
    y_label: str
    series: list
    log_y: bool = False
    # How far the lines go beyond the points.
    x_most: float | None = None
    # Where there are lines alone.
    x_range: tuple | None = None


def draw(plot):
    xs = [x for series in plot.series for x, _ in series.points] or list(plot.x_range)
    x_least, x_most = min(xs), max(max(xs), plot.x_most or 0)
    along = Axis(x_least, x_most, LEFT, WIDTH - RIGHT, True)
    curves = {index: curve(series, x_least, x_most) for index, series in enumerate(plot.series) if series.line}
    ys = [y for series in plot.series for _, one in series.points for y in (one.low, one.high)]
    ys += [y for points in curves.values() for _, y in points]
    ys = [y for y in ys if y > 0] or [1]
    up = Axis(min(ys) if plot.log_y else 0, max(ys) * (1 if plot.log_y else 1.05), HEIGHT - BOTTOM, TOP, plot.log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(plot.title)}</title>",
        f"<style>{STYLE}{COLOURS}</style>",
        f'<text class="title" x="8" y="22">{escape(plot.title)}</text>',
        f'<text class="quiet" x="8" y="{TOP - 10}">{escape(plot.y_label)}</text>',
        f'<text class="quiet" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 8}">{escape(plot.x_label)}</text>',
    ]
    parts += legend(plot.series)
    parts += grid(along, up)
    for index, points in curves.items():
        path = " ".join(f"{along.at(x):.1f},{up.at(y):.1f}" for x, y in points if y > 0 or not plot.log_y)
        dashed = " dashed" if plot.series[index].dashed else ""
        parts.append(f'<polyline class="fit c{index % 4}{dashed}" points="{path}"/>')
    for index, series in enumerate(plot.series):
        parts += [dot(index, along.at(x), one, up) for x, one in series.points if one.median > 0]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def curve(series, least, most):
    ratio = (most / least) ** (1 / STEPS) if most > least else 1
    return [(x, series.line(x)) for x in (least * ratio**step for step in range(STEPS + 1))]


def dot(index, x, one, up):
    low, high = up.at(max(one.low, up.least)), up.at(one.high)
    colour = f"c{index % 4}"
    return (
        f'<line class="whisker {colour}" x1="{x:.1f}" y1="{low:.1f}" x2="{x:.1f}" y2="{high:.1f}"/>'
        f'<circle class="{colour}" cx="{x:.1f}" cy="{up.at(one.median):.1f}" r="4"/>'
    )


def legend(all_series):
    parts, x = [], 8
    for index, series in enumerate(all_series):
        if series.points:
            mark = f'<circle class="c{index % 4}" cx="{x + 5}" cy="40" r="4"/>'
        else:
            dashed = " dashed" if series.dashed else ""
            mark = f'<line class="fit c{index % 4}{dashed}" x1="{x - 2}" y1="40" x2="{x + 12}" y2="40"/>'
        parts.append(f'{mark}<text x="{x + 16}" y="44">{escape(series.label)}</text>')
        # Nothing measures a text here; most letters are narrower than this.
        x += 40 + 7 * len(series.label)
    return parts


def grid(along, up):
    parts = []
    for x in along.ticks():
        at = along.at(x)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text class="quiet" text-anchor="middle" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}">{tick(x)}</text>'
        )
    for y in up.ticks():
        at = up.at(y)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text class="quiet" text-anchor="end" x="{LEFT - 8}" y="{at + 4:.1f}">{tick(y)}</text>')
    return parts


def tick(value):
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


class Axis:
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
        first, last = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most))
        values = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        return [value for value in values if self.least <= value <= self.most]
