"""Figures over time as SVG, a panel below the other."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches/compare/report"))
from chart import Axis, line, svg, text, tick  # noqa: E402

WIDTH, LEFT, RIGHT, TOP = 760, 78, 24, 62
PANEL, GAP = 92, 38
# More points than this are not seen.
POINTS_MAX = 380


@dataclass
class Panel:
    label: str
    # Pairs of label and samples, which are pairs of time and value.
    series: list
    # A level that is drawn across.
    level: float | None = None


@dataclass
class Lines:
    title: str
    x_label: str
    panels: list
    # Pairs of time and word: something happened there.
    marks: list = field(default_factory=list)

    def draw(self):
        times = [at for panel in self.panels for _, samples in panel.series for at, _ in samples]
        along = Axis(0, max(times), LEFT, WIDTH - RIGHT, False)
        height = TOP + (PANEL + GAP) * len(self.panels) + 14
        parts = [text(WIDTH - RIGHT, height - 6, self.x_label, "quiet", "end")]
        for nth, panel in enumerate(self.panels):
            top = TOP + (PANEL + GAP) * nth
            parts += self.panel(panel, along, top, is_last=nth + 1 == len(self.panels))
        for at, word in self.marks:
            x = along.at(at)
            parts.append(line("whisker c3 dashed", x, TOP, x, height - GAP - 14))
            parts.append(text(x + 3, TOP - 20, word, "quiet"))
        return svg(self.title, WIDTH, height, parts)

    def panel(self, panel, along, top, is_last):
        values = [value for _, samples in panel.series for _, value in samples]
        up = Axis(0, max([*values, panel.level or 0, 1e-9]) * 1.08, top + PANEL, top, False)
        yield text(LEFT, top - 6, panel.label, "quiet")
        x = WIDTH - RIGHT
        if len(panel.series) > 1:
            for nth, (label, _) in reversed(list(enumerate(panel.series))):
                x -= 14 + 7 * len(label)
                yield f'<circle class="c{nth % 4}" cx="{x:.1f}" cy="{top - 10}" r="4"/>'
                yield text(x + 8, top - 6, label, "quiet")
        for value in up.ticks()[:: 2 if len(up.ticks()) > 5 else 1]:
            yield line("grid", LEFT, up.at(value), WIDTH - RIGHT, up.at(value))
            yield text(LEFT - 8, up.at(value) + 4, tick(value), "quiet", "end")
        if panel.level is not None:
            yield line(
                "whisker c1 dashed", LEFT, up.at(panel.level), WIDTH - RIGHT, up.at(panel.level)
            )
        for value in along.ticks():
            yield line("grid", along.at(value), top, along.at(value), top + PANEL)
            if is_last:
                yield text(along.at(value), top + PANEL + 16, tick(value), "quiet", "middle")
        for nth, (_, samples) in enumerate(panel.series):
            points = " ".join(f"{along.at(at):.1f},{up.at(v):.1f}" for at, v in fewer(samples))
            yield f'<polyline class="fit c{nth % 4}" points="{points}"/>'


def fewer(samples):
    """At most so many of the samples, the highest of each few."""
    each = -(-len(samples) // POINTS_MAX)
    for at in range(0, len(samples), each):
        yield max(samples[at : at + each], key=lambda sample: sample[1])
