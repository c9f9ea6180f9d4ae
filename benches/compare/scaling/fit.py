"""Straight lines through points, by least squares."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """y = fixed + each × x, or with the logarithm of x to base 10."""

    fixed: float
    each: float
    logarithmic: bool = False
    # The largest distance of a point from the line, as a part of the point.
    error: float = 0.0

    def at(self, x):
        return self.fixed + self.each * (math.log10(x) if self.logarithmic else x)


def line(points, logarithmic=False, relative=True):
    """Through (x, y). With `relative` a point counts by its distance as a part of its y, because over several
    decades the largest would otherwise be all that is fitted."""
    points = [(x, y) for x, y in points if y]
    if len({x for x, _ in points}) < 2:
        return None
    scaled = [(math.log10(x) if logarithmic else x, y, 1 / y**2 if relative else 1) for x, y in points]
    weights = sum(w for _, _, w in scaled)
    mean_x = sum(w * x for x, _, w in scaled) / weights
    mean_y = sum(w * y for _, y, w in scaled) / weights
    each = sum(w * (x - mean_x) * (y - mean_y) for x, y, w in scaled) / sum(
        w * (x - mean_x) ** 2 for x, _, w in scaled
    )
    found = Line(mean_y - each * mean_x, each, logarithmic)
    error = max(abs(found.at(x) - y) / y for x, y in points)
    return Line(found.fixed, found.each, logarithmic, error)
