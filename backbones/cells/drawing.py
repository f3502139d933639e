"""Pictures of cells: the two inputs, the four nodes, the output, and a labelled edge per operation.

Every edge has a lane of its own: those of the older input run above the row of nodes, those of the
newer input below it, and each carries its label just before its target. So labels never overlap,
with 8 edges or with 14.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.backbones.cells.genotype import INPUT_NODES, INTERMEDIATE_NODES, Cell, Genotype
from onebit.commons.pictures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Inches, with the row of nodes at y = 0 and node k of the four at x = k * _PITCH.
_PITCH = 2.15
_LANE = 0.36
_NODE = 0.56  # width and height
_FIRST_LANE = 0.78  # the concatenation's lane lies between it and the nodes
_CONCAT_LANE = 0.5
_BEND = 0.14
_LEFT, _RIGHT = -2.6, (INTERMEDIATE_NODES - 1) * _PITCH + 1.75
_MARGIN = 0.25
_GAP = 0.35  # between the two cells
_TITLE = 0.4
_FONT = 10

#: Colours that stay apart for colour-blind eyes (Okabe and Ito), one per operation.
_COLOURS = {
    "none": "#999999",
    "skip_connect": "#222222",
    "max_pool_3x3": "#0072B2",
    "avg_pool_3x3": "#3A9BD6",
    "sep_conv_3x3": "#B54A00",
    "sep_conv_5x5": "#8A2BA0",
    "dil_conv_3x3": "#00795A",
    "dil_conv_5x5": "#8A6D00",
}
_GREY = "#B8B8B8"

Point = tuple[float, float]


def draw_cells(genotype: Genotype, path: str | os.PathLike) -> Path:
    """Draw the normal and the reduction cell into one picture, written whole or not at all.

    The same genotype gives the same SVG, byte for byte.

    Args:
        genotype: 8 or 14 edges per cell.
        path: ends in ``.svg`` or ``.png``.

    Raises:
        InputError: another ending.
        WorkError: the file cannot be written.
    """
    return save_figure(lambda: cell_figure(genotype), path, genotype.hash)


def cell_figure(genotype: Genotype) -> Figure:
    """The picture of :func:`draw_cells` as a matplotlib figure, which no window shows."""
    from matplotlib.figure import Figure

    titles = ("normal cell", "reduction cell (edges that leave an input have stride 2)")
    cells = (genotype.normal, genotype.reduce)
    layouts = [_Layout.of(cell) for cell in cells]
    caption = _caption(genotype)
    heights = [layout.top - layout.bottom + _TITLE for layout in layouts]
    width = _RIGHT - _LEFT + 2 * _MARGIN
    height = sum(heights) + _GAP + 2 * _MARGIN + (0.3 if caption else 0)
    figure = Figure(figsize=(width, height), facecolor="white")
    top = height - _MARGIN
    for title, layout, cell_height in zip(titles, layouts, heights, strict=True):
        box = (_MARGIN / width, (top - cell_height) / height)
        size = ((_RIGHT - _LEFT) / width, cell_height / height)
        axes = figure.add_axes((*box, *size))
        axes.set_xlim(_LEFT, _RIGHT)
        axes.set_ylim(layout.bottom, layout.top + _TITLE)
        axes.axis("off")
        axes.text(_LEFT, layout.top + _TITLE - 0.05, title, fontsize=12, weight="bold", va="top")
        layout.draw(axes)
        top -= cell_height + _GAP
    if caption:
        figure.text(_MARGIN / width, 0.6 * _MARGIN / height, caption, fontsize=9, color="#555555")
    return figure


def _caption(genotype: Genotype) -> str:
    said = [genotype.provenance.get(key) for key in ("method", "dataset", "source")]
    text = ", ".join(value for value in said if isinstance(value, str))
    text = " ".join(text.split()).replace("$", r"\$")  # matplotlib reads $ as mathematics
    return text if len(text) <= 150 else f"{text[:147]}..."


@dataclass(frozen=True)
class _Edge:
    """One edge's way: its corners, and where its label stands."""

    operation: str
    corners: tuple[Point, ...]
    label: Point


@dataclass(frozen=True)
class _Layout:
    """Where everything of one cell stands."""

    edges: tuple[_Edge, ...]
    lanes_older: tuple[float, ...]
    lanes_newer: tuple[float, ...]
    top: float
    bottom: float

    @classmethod
    def of(cls, cell: Cell) -> _Layout:
        incoming = {
            (source - INPUT_NODES, target): operation
            for target, edges in enumerate(cell)
            for operation, source in edges
        }
        # Short edges lie nearest to the nodes, so that lanes of one input never cross each other.
        above = [key for key in ((0, 2), (0, 3)) if key in incoming]
        below = [key for key in ((1, 3),) if key in incoming]
        older = [(-2, target) for target in range(INTERMEDIATE_NODES) if (-2, target) in incoming]
        newer = [(-1, target) for target in range(INTERMEDIATE_NODES) if (-1, target) in incoming]
        lanes = dict(zip(above + older, _lanes(1), strict=False))
        lanes |= dict(zip(below + newer, _lanes(-1), strict=False))
        edges = []
        for key, operation in incoming.items():
            side = 1 if lanes.get(key, 0) > 0 else -1
            before = [other for other in lanes if other[1] == key[1] and lanes[other] * side > 0]
            before.sort(key=lambda other: -abs(lanes[other]))
            port = before.index(key) if key in lanes else 0
            edges.append(_route(key, operation, lanes.get(key), port))
        lanes_older = tuple(lanes[key] for key in older)
        lanes_newer = tuple(lanes[key] for key in newer)
        heights = [0.0, *lanes.values()]
        return cls(
            tuple(edges),
            lanes_older or (_FIRST_LANE,),
            lanes_newer or (-_FIRST_LANE,),
            max(*heights, _FIRST_LANE) + _NODE / 2 + 0.05,
            min(*heights, -_FIRST_LANE) - _NODE / 2 - 0.05,
        )

    def draw(self, axes: Axes) -> None:
        self._draw_output(axes)
        for edge in self.edges:
            colour = _COLOURS[edge.operation]
            dashed = (0, (4, 3)) if edge.operation == "none" else "solid"
            _arrow(axes, edge.corners, colour, linestyle=dashed, zorder=2)
        for edge in self.edges:
            axes.text(
                *edge.label,
                edge.operation,
                fontsize=_FONT,
                color=_COLOURS[edge.operation],
                ha="center",
                va="center",
                zorder=4,
                bbox=dict(facecolor="white", edgecolor="none", boxstyle="square,pad=0.12"),
                gid="edge",
            )
        for name, lanes in (("$c_{k-2}$", self.lanes_older), ("$c_{k-1}$", self.lanes_newer)):
            low, high = min(lanes), max(lanes)
            _box(axes, _LEFT + 0.42, (low + high) / 2, 0.8, high - low + _NODE, name, "#CFE3C7")
        for number in range(INTERMEDIATE_NODES):
            _box(axes, number * _PITCH, 0, _NODE, _NODE, str(number), "#C9DDF0")
        _box(axes, _RIGHT - 0.42, 0, 0.8, _NODE, "$c_k$", "#F3E3B3")

    def _draw_output(self, axes: Axes) -> None:
        """The four nodes concatenated: three join one grey lane, the last one goes straight."""
        output = _RIGHT - 0.42
        for number in range(INTERMEDIATE_NODES - 1):
            x = number * _PITCH + 0.21
            corners = ((x, 0), (x, _CONCAT_LANE), (output, _CONCAT_LANE), (output, _NODE / 2))
            _arrow(axes, corners, _GREY, zorder=1)
        last = (INTERMEDIATE_NODES - 1) * _PITCH
        _arrow(axes, ((last, 0), (output - 0.4, 0)), _GREY, zorder=1)


def _lanes(side: int) -> Iterator[float]:
    lane = _FIRST_LANE
    while True:
        yield side * lane
        lane += _LANE


def _route(key: tuple[int, int], operation: str, lane: float | None, port: int) -> _Edge:
    """The way of the edge ``(source, target)``, nodes counted from 0, inputs -2 and -1.

    Args:
        lane: its height; None for an edge between neighbours, which runs straight.
        port: how many edges reach the target on this side left of it.
    """
    source, target = key
    end = target * _PITCH
    if lane is None:
        start = source * _PITCH
        corners: tuple[Point, ...] = ((start + _NODE / 2, 0), (end - _NODE / 2, 0))
        return _Edge(operation, corners, ((start + end) / 2 - 0.06, 0))
    # Incoming on the left half of the node, outgoing on the right half; the longest lane ends
    # rightmost, so that it does not cross the others on its way down.
    x = end - 0.08 - 0.1 * port
    landing = (x, (_NODE / 2) * (1 if lane > 0 else -1))
    if source < 0:
        corners = ((_LEFT + 0.82, lane), (x, lane), landing)
    else:
        x_out = source * _PITCH + (0.02 if target - source > 2 else 0.11)
        corners = ((x_out, 0), (x_out, lane), (x, lane), landing)
    return _Edge(operation, corners, (end - _PITCH / 2 - 0.06, lane))


def _arrow(axes: Axes, corners: tuple[Point, ...], colour: str, **style) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    points, codes = [corners[0]], [Outline.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        points += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    points.append(corners[-1])
    codes.append(Outline.LINETO)
    axes.add_patch(
        FancyArrowPatch(
            path=Outline(points, codes),
            arrowstyle="-|>,head_length=5,head_width=2.6",
            color=colour,
            linewidth=1.4,
            joinstyle="miter",
            shrinkA=0,
            shrinkB=0,
            **style,
        )
    )


def _towards(corner: Point, other: Point) -> Point:
    """The point where the rounding of a corner begins, on the way to ``other``."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = max(abs(dx), abs(dy))
    share = min(_BEND, length / 2) / length
    return corner[0] + share * dx, corner[1] + share * dy


def _box(axes: Axes, x: float, y: float, width: float, height: float, name: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=colour,
            edgecolor="#444444",
            zorder=3,
        )
    )
    axes.text(x, y, name, fontsize=13, ha="center", va="center", zorder=5, gid="node")
