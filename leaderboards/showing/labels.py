"""Names beside the points of a picture, none upon another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebit.leaderboards.showing.line import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels

_SIZE = 8
#: Points that are labelled at most: nobody reads more, and the search for places is quadratic.
_MOST = 40
#: Distances from the point, in points of 1/72 inch, and directions to try, the nearest first.
_RADII = (7, 13, 20, 29, 40, 53, 68, 86, 106)
_ANGLES = tuple(math.radians(a) for a in (0, 180, 90, 270, 45, 135, 315, 225, 20, 160, 340, 200, 70, 110, 290, 250))


@dataclass(frozen=True)
class Point:
    """One line of the table in the picture: cost in the axis's unit, accuracy in percent."""

    line: Line
    x: float
    y: float
    error: float | None
    label: str


def place(axes: Axes, points: Sequence[Point], curves: Sequence[Line2D] = ()) -> list[Box]:
    """Label the first of ``points``, in order; one that finds no free place stays without a label.

    A place is free when its box covers no label, point, error bar or leader line placed before and
    lies inside the axes. A label lies on one of the ``curves`` only where nothing else is free.
    Returns the boxes of the labels, in pixels of the figure.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    obstacles = [_marker_box(axes, p, scale) for p in points]
    centres = [tuple(axes.transData.transform((p.x, p.y))) for p in points]
    leaders: list[list[tuple[float, float]]] = []
    drawn = [_along(axes, curve) for curve in curves]
    bounds = axes.get_window_extent()
    inside = (bounds.x0, bounds.y0, bounds.x1, bounds.y1)
    placed = []
    for number, point in enumerate(points[:_MOST]):
        at = centres[number]
        size = _text_size(figure, point.label)
        markers = centres[:number] + centres[number + 1 :]
        others = obstacles[:number] + obstacles[number + 1 :]
        spot = _free_spot(at, size, scale, inside, others, leaders + drawn, markers)
        spot = spot or _free_spot(at, size, scale, inside, others, leaders, markers)
        if spot is None:
            continue
        box, leader = spot
        _write(axes, point, at, box, leader, scale)
        obstacles.append(box)
        placed.append(box)
        if leader:
            leaders.append(leader)
    return placed


def _text_size(figure, label: str) -> tuple[float, float]:
    text = figure.text(0, 0, label, fontsize=_SIZE, parse_math=False)
    extent = text.get_window_extent()
    text.remove()
    # Glyphs snap to pixels; another resolution or a reader's font may be a little wider.
    return 1.05 * extent.width, extent.height


def _along(axes: Axes, curve: Line2D, step: float = 4.0) -> list[tuple[float, float]]:
    """Points a few pixels apart along a curve as it is drawn."""
    corners = axes.transData.transform(curve.get_path().vertices)
    if curve.get_drawstyle() == "steps-post":
        corners = [c for a, b in itertools.pairwise(corners) for c in (a, (b[0], a[1]), b)]
    found = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        steps = max(1, int(math.hypot(x1 - x0, y1 - y0) / step))
        found += [(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps + 1)]
    return found


def _marker_box(axes: Axes, point: Point, scale: float) -> Box:
    x, y = axes.transData.transform((point.x, point.y))
    error = point.error or 0.0
    low = axes.transData.transform((point.x, point.y - error))[1]
    high = axes.transData.transform((point.x, point.y + error))[1]
    half = 4.5 * scale
    return x - half, min(low, y - half), x + half, max(high, y + half)


def _free_spot(
    at, size, scale: float, inside: Box, obstacles: list[Box], leaders, markers
) -> tuple[Box, list | None] | None:
    # A leader has to leave the markers that overlap its own.
    around = [box for box in obstacles if not _inside(at, box)]
    for radius in _RADII:
        for angle in _ANGLES:
            box = _box(at, size, radius * scale, angle)
            leader = _segment(at, box) if radius > 13 else None
            if not (inside[0] <= box[0] and box[2] <= inside[2] and inside[1] <= box[1] and box[3] <= inside[3]):
                continue
            if any(_overlap(box, other) for other in obstacles):
                continue
            if any(_inside(p, box) for line in leaders for p in line):
                continue
            if leader is None and _ambiguous(at, box, markers):
                continue
            if leader and any(_inside(p, other) for p in leader for other in around):
                continue
            return box, leader
    return None


def _box(at, size, radius: float, angle: float) -> Box:
    """The label's box with its nearest point at ``radius`` from the point, in direction ``angle``."""
    width, height = size
    x = at[0] + radius * math.cos(angle) + (math.cos(angle) - 1) / 2 * width
    y = at[1] + radius * math.sin(angle) + (math.sin(angle) - 1) / 2 * height
    return x, y, x + width, y + height


def _ambiguous(at, box: Box, markers) -> bool:
    """Whether a label without a leader line could be taken for that of another point."""
    own = _distance(at, box)
    return any(_distance(other, box) < 1.6 * own for other in markers if math.dist(other, at) > 1)


def _distance(point, box: Box) -> float:
    dx = max(box[0] - point[0], 0.0, point[0] - box[2])
    dy = max(box[1] - point[1], 0.0, point[1] - box[3])
    return math.hypot(dx, dy)


def _segment(at, box: Box, steps: int = 24) -> list[tuple[float, float]]:
    """Points along the leader line, from the point to the box's nearest edge."""
    end = min(max(at[0], box[0]), box[2]), min(max(at[1], box[1]), box[3])
    return [(at[0] + (end[0] - at[0]) * i / steps, at[1] + (end[1] - at[1]) * i / steps) for i in range(steps + 1)]


def _overlap(a: Box, b: Box, gap: float = 1.0) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _inside(point, box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _write(axes: Axes, point: Point, at, box: Box, leader, scale: float) -> None:
    arrow = None
    if leader:
        arrow = dict(
            arrowstyle="-",
            linewidth=0.6,
            alpha=0.6,
            shrinkA=0,
            shrinkB=3,
            color=axes.xaxis.label.get_color(),
            relpos=_relative(leader[-1], box),
        )
    left_of_it = box[2] < at[0]
    axes.annotate(
        point.label,
        xy=(point.x, point.y),
        xytext=((box[2 if left_of_it else 0] - at[0]) / scale, (box[1] - at[1]) / scale),
        textcoords="offset points",
        fontsize=_SIZE,
        ha="right" if left_of_it else "left",
        va="bottom",
        parse_math=False,
        arrowprops=arrow,
        in_layout=False,  # the places were found for the axes as they are
        zorder=4,
    )


def _relative(end, box: Box) -> tuple[float, float]:
    return (end[0] - box[0]) / (box[2] - box[0]), (end[1] - box[1]) / (box[3] - box[1])
