"""Pictures of costs: memory and operations of several networks, stacked by group of layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.backbones.cost import GROUPS, Cost
from onebit.commons.errors import InputError
from onebit.commons.pictures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A group that makes less of every bar than this is drawn as part of "rest".
_SMALLEST_SHARE = 0.002

_COLOURS = {
    "stem": "#0072B2",
    "preprocess": "#56B4E9",
    "depthwise": "#D55E00",
    "pointwise": "#E69F00",
    "convolution": "#7A4419",
    "norm": "#009E73",
    "activation": "#8FD3B6",
    "binarizer": "#6A5ACD",
    "linear": "#A64D79",
    "classifier": "#CC79A7",
    "neck": "#7F6A93",
    "rpn": "#A05050",
    "head": "#444444",
    "rest": "#BBBBBB",
}


def draw_costs(costs: Sequence[tuple[str, Cost]], path: str | os.PathLike) -> Path:
    """Draw one stacked bar per network and convention, memory left and operations right.

    Args:
        costs: pairs of a network's name and its cost, from top to bottom.
        path: ends in ``.svg`` or ``.png``; written whole or not at all.

    Raises:
        InputError: another ending, or nothing to draw.
        WorkError: the file cannot be written.
    """
    return save_figure(lambda: cost_figure(costs), path, "onebit cost")


def group_sums(cost: Cost) -> dict[str, tuple[float, float]]:
    """Memory in Mbit and operations in millions of each group of layers, in drawing order."""
    found = {row.group for row in cost.rows}
    order = [*(group for group in GROUPS if group in found), *sorted(found - set(GROUPS))]
    return {
        group: (
            sum(row.memory_bits for row in cost.rows if row.group == group) / 1e6,
            sum(row.ops for row in cost.rows if row.group == group) / 1e6,
        )
        for group in order
    }


def cost_figure(costs: Sequence[tuple[str, Cost]]) -> Figure:
    """The picture of :func:`draw_costs` as a matplotlib figure, which no window shows.

    Raises:
        InputError: nothing to draw.
    """
    from matplotlib.figure import Figure

    if not costs:
        raise InputError("a picture of costs needs at least one network")
    sums = [group_sums(cost) for _, cost in costs]
    labels = [f"{name}\n{cost.convention}" for name, cost in costs]
    height = 1.5 + 0.62 * len(costs)
    figure = Figure(figsize=(12, height), layout="constrained", facecolor="white")
    panels = figure.subplots(1, 2, sharey=True)
    groups = _drawn_groups(sums)
    for column, (axes, title, unit) in enumerate(zip(panels, ("memory", "operations"), ("Mbit", "M OPs"), strict=True)):
        totals = [sum(values[column] for values in bar.values()) for bar in sums]
        left = [0.0] * len(costs)
        for group in groups:
            widths = [_width(bar, group, groups, column) for bar in sums]
            colour = _COLOURS.get(group, _COLOURS["rest"])
            axes.barh(range(len(costs)), widths, 0.62, left, color=colour, label=group)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for position, total in enumerate(totals):
            axes.text(total, position, f" {_number(total)}", va="center", fontsize=10)
        axes.set_xlim(0, (max(totals) or 1) * 1.14)  # room for the number behind the longest bar
        axes.set_title(f"{title} ({unit})", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(costs)), labels, fontsize=9)
    panels[0].invert_yaxis()
    handles, names = panels[0].get_legend_handles_labels()
    if all(_width(bar, "rest", groups, column) == 0 for bar in sums for column in (0, 1)):
        handles, names = handles[:-1], names[:-1]
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 9), fontsize=9)
    return figure


def _number(total: float) -> str:
    return f"{total:,.0f}" if total >= 1000 else f"{total:.4g}"


def _drawn_groups(sums: Sequence[dict[str, tuple[float, float]]]) -> list[str]:
    """The groups that can be seen in at least one bar; the others go into "rest"."""
    shares: dict[str, float] = {}
    for bar in sums:
        for column in (0, 1):
            total = sum(values[column] for values in bar.values()) or 1
            for group, values in bar.items():
                shares[group] = max(shares.get(group, 0), values[column] / total)
    seen = {group for group, share in shares.items() if share >= _SMALLEST_SHARE and group != "rest"}
    order = [*(group for group in GROUPS if group in seen), *sorted(seen - set(GROUPS))]
    return [*order, "rest"] if set(shares) - seen else order


def _width(bar: dict, group: str, groups: Sequence[str], column: int) -> float:
    if group != "rest":
        return bar[group][column] if group in bar else 0.0
    return sum(values[column] for name, values in bar.items() if name not in groups or name == group)
