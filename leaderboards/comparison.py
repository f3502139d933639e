"""Two lines of a board side by side, in words: `onebit compare`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from commons.errors import InputError
from leaderboards.boards import Board
from leaderboards.lines import Line
from leaderboards.statistics import Comparison, Summary, compare


def pairs(lines: Sequence[Line], a: str, b: str, where: str) -> list[tuple[Line, Line]]:
    """Lines of backbones ``a`` and ``b`` that share dataset, recipe and options.

    Args:
        where: what the lines are of, for error messages.

    Raises:
        InputError: a backbone without a line, or no two lines that share all of these.
    """
    names = sorted({line.backbone for line in lines})
    for name in (a, b):
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3) or names
            there = f"; there are {', '.join(near)}" if near else ""
            raise InputError(f"no records of {name!r} on {where}{there}")
    found = [
        (first, second)
        for first in lines
        for second in lines
        if (first.backbone, second.backbone) == (a, b)
        and first is not second
        and _protocol(first) == _protocol(second)
    ]
    if not found:
        raise InputError(f"no two lines of {a} and {b} on {where} share dataset, recipe and options")  # fmt: skip
    return found


def _protocol(line: Line) -> tuple:
    return line.dataset, line.recipe, line.cfg_options


def describe(board: Board, a: Line, b: Line, metrics: Sequence[str]) -> str:
    """The comparison of two lines, one paragraph per metric."""
    options = f", {a.cfg_options}" if a.cfg_options else ""
    title = f"{a.dataset}, recipe {a.recipe}{options}: {_name(a)} against {_name(b)}"
    out = [title]
    for metric in metrics:
        left, right = a.summary(metric), b.summary(metric)
        comparison = compare(a.values[metric], b.values[metric])
        out.append(f"  {board.metrics[metric]:<8}  {_mean(left)} against {_mean(right)} %")
        out.append(f"            {_verdict(comparison)}")
    return "\n".join(out)


def _name(line: Line) -> str:
    return line.backbone if line.source == "measured" else f"{line.backbone} ({line.source})"


def _mean(summary: Summary) -> str:
    if summary.mean is None:
        return "- (n = 0)"
    std = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{std} (n = {summary.n})"


def _verdict(comparison: Comparison) -> str:
    if comparison.difference is None:
        return comparison.test
    points = f"difference {100 * comparison.difference:+.2f} points"
    if comparison.p is None:
        return f"{points}: {comparison.test}"
    interval = ""
    if comparison.low is not None:
        interval = f", 95 % interval {100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}"
    size = "LARGER than seed noise" if comparison.beyond_noise else "within seed noise"
    p = "p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.3f}"
    return f"{points}{interval}: {size} ({p}, {comparison.test})"
