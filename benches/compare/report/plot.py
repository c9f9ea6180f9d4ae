"""Bar charts as SVG. Colours follow the reader's theme, and the least and the most are whiskers."""

from xml.sax.saxutils import escape

from figures import OURS, TWO_THREADS

WIDTH = 920
LABELS = 190
ROW = 26
BAR = 15
TOP = 64
BOTTOM = 14
# Beside the longest bar, for its number.
NUMBER = 62
GAP = 26

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.quiet { fill: #59636e; font-size: 12px; }
.ours { font-weight: 600; }
.bar { fill: #8c959f; }
.bar.ours { fill: #b7410e; }
.bar.floor { fill: #d1d9e0; }
.spread { stroke: #1f2328; stroke-width: 1.2; }
.axis { stroke: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .quiet { fill: #9198a1; }
  .bar { fill: #6e7681; }
  .bar.ours { fill: #e8743b; }
  .bar.floor { fill: #3d444d; }
  .spread { stroke: #f0f6fc; }
  .axis { stroke: #3d444d; }
}
"""


def draw(work):
    """A panel for each plotted metric, a row for each server. Nothing, where there is nobody to compare with."""
    servers = [server for server in work.in_order() if server.name not in TWO_THREADS and server.reports]
    metrics = [
        metric
        for metric in work.metrics
        if metric.plotted and any(server.summary(metric.path) for server in servers)
    ]
    if len(servers) < 2 or not metrics:
        return None
    height = TOP + ROW * len(servers) + BOTTOM
    panel = (WIDTH - LABELS) / len(metrics)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(work.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(work.title)}</text>',
    ]
    for row, server in enumerate(servers):
        y = TOP + ROW * row + BAR - 4
        parts.append(f'<text class="{name_class(server)}" x="8" y="{y}">{escape(server.title)}</text>')
    for index, metric in enumerate(metrics):
        parts += draw_panel(metric, servers, LABELS + panel * index, panel - GAP)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def draw_panel(metric, servers, left, width):
    unit = f", {metric.unit}" if metric.unit else ""
    better = "more is better" if metric.more_is_better else "less is better"
    bottom = TOP + ROW * len(servers) - 4
    parts = [
        f'<text x="{left:.1f}" y="46">{escape(metric.label + unit)} <tspan class="quiet">{better}</tspan></text>',
        f'<line class="axis" x1="{left:.1f}" y1="{TOP - 8}" x2="{left:.1f}" y2="{bottom}"/>',
    ]
    summaries = [(server, server.summary(metric.path)) for server in servers]
    longest = max((summary.high for _, summary in summaries if summary), default=0)
    scale = (width - NUMBER) / longest if longest > 0 else 0
    for row, (server, summary) in enumerate(summaries):
        top = TOP + ROW * row - 2
        middle = top + BAR / 2
        if summary is None:
            parts.append(f'<text class="quiet" x="{left + 6:.1f}" y="{top + BAR - 2}">–</text>')
            continue
        length = max(summary.median * scale, 1)
        low, high = (left + max(value * scale, 0) for value in (summary.low, summary.high))
        parts.append(
            f'<rect class="bar {name_class(server)}" x="{left:.1f}" y="{top}" '
            f'width="{length:.1f}" height="{BAR}" rx="2"/>'
        )
        if high - low > 1:
            parts.append(
                f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
            )
        end = max(left + length, high) + 6
        parts.append(
            f'<text class="{name_class(server)}" x="{end:.1f}" y="{top + BAR - 2}">{number(summary.median)}</text>'
        )
    return parts


def name_class(server):
    return {OURS: "ours", "floor": "floor"}.get(server.name, "peer")


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
