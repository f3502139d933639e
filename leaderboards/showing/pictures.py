"""Accuracy against operations or memory: one dataset, one counting convention per picture.

Measured points are filled and have error bars over seeds, reported points are hollow; each kind has
its own Pareto front, for a printed cost and one that we counted are not the same quantity. Colour
and shape say W/A, so that neither is needed alone (colours: Okabe and Ito's palette).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onebit.commons.errors import InputError
from onebit.leaderboards.boards import Board
from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.labels import Point, place
from onebit.leaderboards.showing.layout import memory_unit, ops_unit
from onebit.leaderboards.showing.line import AS_PRINTED, Line, PlainLine
from onebit.leaderboards.showing.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

AXES = ("ops", "memory")
#: ``paper``: the convention of the board's paper; reported costs as printed.
CONVENTIONS = ("strict", "paper")
FORMATS = ("svg", "png")

#: Marker and colour by (weight bits, activation bits).
STYLES = {(32, 32): ("s", "#D55E00"), (1, 1): ("o", "#0072B2"), (1, 32): ("^", "#009E73"), (4, 4): ("D", "#CC79A7")}
OTHER = ("v", "#E69F00")
#: Text and axes; in a page it becomes the page's text colour.
FOREGROUND = "#1b1b1c"


def points(board: Board, lines: Sequence[Line], x: str, convention: str, metric: str) -> list[Point]:
    """The lines that have both the metric and the cost."""
    unit = ops_unit(board)[1] if x == "ops" else memory_unit(board)[1]
    labels = _labels(lines)
    found = []
    for line, label in zip(lines, labels, strict=True):
        name = "strict"
        if convention == "paper":
            name = AS_PRINTED if line.reported else board.paper_convention
        cost = (line.ops if x == "ops" else line.memory_bits).get(name)
        summary: Summary = line.summary(metric)
        if cost and summary.mean is not None:
            error = None if summary.std is None else 100 * summary.std
            found.append(Point(line, cost / unit, 100 * summary.mean, error, label))
    return found


def _labels(lines: Sequence[Line]) -> list[str]:
    """Names, with the detector, the recipe and the options where the name alone is not unique."""
    names = []
    for line in lines:
        shown = line.binarizer if line.reported else None
        names.append(f"{line.backbone} ({shown})" if shown else line.backbone)
    labels = []
    for line, name in zip(lines, names, strict=True):
        if names.count(name) > 1 and not line.reported:
            name = " ".join(filter(None, (name, line.detector, line.recipe, line.cfg_options)))
        if names.count(name) > 1 and line.weight_bits:
            name = f"{name} {line.weight_bits}/{line.activation_bits}"
        labels.append(name)
    return labels


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none is both at most as costly and better, or cheaper and as
    good. In order of cost; of equal ones the first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def draw(
    board: Board,
    lines: Sequence[Line],
    x: str = "ops",
    convention: str = "strict",
    metric: str | None = None,
    links: Callable[[Point], str] | None = None,
) -> Figure:
    """The picture of the lines of one dataset.

    Args:
        lines: measured or reported; those without the cost or the metric are left out.
        x: one of :data:`AXES`.
        convention: one of :data:`CONVENTIONS`.
        metric: key of the board's metrics; default the first.
        links: where a click on a point leads, in SVG; default nowhere.

    Raises:
        InputError: no line has both the metric and the cost under the convention.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    metric = metric or next(iter(board.metrics))
    found = points(board, lines, x, convention, metric)
    if not found:
        hint = "; --convention paper shows reported lines as printed" if convention == "strict" else ""
        raise InputError(
            f"nothing to draw on {board.name}: no line has {metric} and {x} under the convention {convention}{hint}"
        )
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.8), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        measured = [p for p in found if not p.line.reported]
        reported = [p for p in found if p.line.reported]
        fronts = _front(axes, reported, (0, (4, 3))) + _front(axes, measured, "solid")
        _mark(axes, found, links)
        _frame(axes, board, found, x, convention, metric)
        _legend(axes, measured, reported)
        front = {id(p) for group in (measured, reported) for p in pareto_front(group)}
        # What is on a front is labelled first, then ours; in a crowd the rest may stay unlabelled.
        place(axes, sorted(found, key=lambda p: (id(p) not in front, p.line.reported)), fronts)
    return figure


def draw_overall(lines: Sequence[PlainLine]) -> Figure:
    """The picture of ``onebit table overall``: a bar for each method, a mark for each dataset, one part per kind of data.

    Raises:
        InputError: there is no line.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from onebit.leaderboards.showing.overall_table import TABLE, datasets_of

    parts = TABLE.by_data(lines)
    if not parts:
        raise InputError("nothing to draw: no 1-bit network whose real-valued twin was trained likewise")
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 2.6 * len(parts)), dpi=_DPI, layout="constrained")
        for axes, (kind, own) in zip(figure.subplots(len(parts), squeeze=False)[:, 0], parts.items(), strict=True):
            names = [f"{line.values['method']}\n({line.values['datasets']})" for line in own]
            axes.bar(names, [100 * line.values["overall"] for line in own], color="#0072B2", alpha=0.35, width=0.6)
            for dataset, marker in zip(datasets_of(own), itertools.cycle("os^Dv<>P"), strict=False):
                there = [
                    (n, 100 * line.values[dataset])
                    for n, line in zip(names, own, strict=True)
                    if dataset in line.values
                ]
                axes.plot(*zip(*there, strict=True), marker, color=FOREGROUND, markersize=5, label=dataset)
            axes.axhline(100, color=FOREGROUND, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.set(ylim=(0, 115), ylabel="% of the real-valued twin", title=formats.HEADINGS[kind])
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        figure.supxlabel("bar: quadratic mean over datasets, whose number stands behind the method", fontsize=8)
    return figure


_DPI = 160
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": FOREGROUND,
    "axes.labelcolor": FOREGROUND,
    "axes.edgecolor": FOREGROUND,
    "xtick.color": FOREGROUND,
    "ytick.color": FOREGROUND,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a `$` in a name is a `$`
}


def _style(line: Line) -> tuple[str, str]:
    return STYLES.get((line.weight_bits, line.activation_bits), OTHER)


def _mark(axes: Axes, found: Sequence[Point], links: Callable[[Point], str] | None) -> None:
    """Draw the points, those of one look together: an artist each would take seconds for hundreds."""
    looks: dict[tuple, list[Point]] = {}
    for point in found:
        looks.setdefault((*_style(point.line), point.line.reported), []).append(point)
    for (shape, colour, reported), alike in looks.items():
        bars = [p for p in alike if p.error is not None]
        if bars:
            axes.errorbar(
                [p.x for p in bars],
                [p.y for p in bars],
                yerr=[p.error for p in bars],
                ecolor=colour,
                elinewidth=1.2,
                capsize=3,
                fmt="none",
                zorder=2,
            )
        face = "none" if reported else colour
        markers = axes.scatter(
            [p.x for p in alike],
            [p.y for p in alike],
            s=42,
            marker=shape,
            facecolors=face,
            edgecolors=colour,
            linewidths=1.5,
            zorder=3,
        )
        if links:
            markers.set_urls([links(p) for p in alike])


def _front(axes: Axes, group: Sequence[Point], style: object) -> list[Line2D]:
    front = pareto_front(group)
    if len(front) < 2:
        return []
    return axes.step(
        [p.x for p in front],
        [p.y for p in front],
        where="post",
        color=FOREGROUND,
        alpha=0.55,
        linewidth=1.1,
        linestyle=style,
        zorder=1,
    )


def _frame(axes: Axes, board: Board, found: Sequence[Point], x: str, convention: str, metric: str) -> None:
    unit = ops_unit(board)[0] + " OPs" if x == "ops" else memory_unit(board)[0]
    what = "operations" if x == "ops" else "memory"
    axes.set_xscale("log")
    axes.set_xlabel(f"{what}, {unit}, {_rule(board, found, convention)}, log scale")
    axes.set_ylabel(f"{board.metrics[metric]}, %")
    low, high = min(p.x for p in found), max(p.x for p in found)
    room = max((high / low) ** 0.16, 1.25)
    axes.set_xlim(low / room, high * room)
    bottom = min(p.y - (p.error or 0) for p in found)
    top = max(p.y + (p.error or 0) for p in found)
    margin = max(0.12 * (top - bottom), 1.0)
    axes.set_ylim(bottom - margin, top + margin)
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    # Plain numbers, and between the powers of ten only as many as a short axis needs.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color="#808080", alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(_title(found), loc="left", fontsize=11, fontweight="bold")


def _rule(board: Board, found: Sequence[Point], convention: str) -> str:
    if convention == "strict":
        return "convention strict"
    printed = next((p.line.source for p in found if p.line.reported), None)
    if printed is None:
        return f"convention {board.paper_convention}"
    if all(p.line.reported for p in found):
        return f"as printed in {printed}"
    return f"convention {board.paper_convention}, reported as printed"


def _title(found: Sequence[Point]) -> str:
    datasets = list(dict.fromkeys(p.line.dataset for p in found))
    return ", ".join(datasets)


def _bits(bits: tuple[int | None, int | None]) -> str:
    """W/A; an imported row may not say it."""
    return "W/A not known" if None in bits else f"{bits[0]}/{bits[1]}"


def _legend(axes: Axes, measured: Sequence[Point], reported: Sequence[Point]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for group, word, hollow in ((measured, "measured", False), (reported, "reported", True)):
        bits = dict.fromkeys((p.line.weight_bits, p.line.activation_bits) for p in group)
        for key in sorted(bits, key=lambda b: (-(b[0] or 0), -(b[1] or 0))):
            marker, colour = STYLES.get(key, OTHER)
            face = "none" if hollow else colour
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="none",
                    marker=marker,
                    markeredgecolor=colour,
                    markerfacecolor=face,
                    markeredgewidth=1.5,
                    label=f"{word} {_bits(key)}",
                )
            )
        if len(pareto_front(group)) > 1:
            handles.append(
                Line2D(
                    [],
                    [],
                    color=FOREGROUND,
                    alpha=0.55,
                    linewidth=1.1,
                    linestyle=(0, (4, 3)) if hollow else "solid",
                    label=f"Pareto front, {word}",
                )
            )
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)


def image(figure: Figure, form: str, transparent: bool = False) -> bytes:
    """The picture as a file's content; the same figure gives the same bytes.

    Args:
        form: one of :data:`FORMATS`. SVG keeps its text as text.
        transparent: no background.
    """
    from matplotlib import rc_context

    stream = io.BytesIO()
    if form == "png":
        figure.savefig(stream, format="png", transparent=transparent, metadata={"Software": None})
        return stream.getvalue()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "onebit"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=transparent)
    # Verdana has DejaVu's widths, for readers without DejaVu.
    return stream.getvalue().replace(b"'DejaVu Sans'", b"'DejaVu Sans', Verdana, sans-serif")
