"""Two lines of a board, or two sets of them, side by side in words: `onebit compare`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from onebit.commons.errors import InputError
from onebit.leaderboards.boards import Board
from onebit.leaderboards.showing.line import Line
from onebit.leaderboards.showing.statistics import Comparison, Summary, compare, compare_networks, summarize


def pairs(lines: Sequence[Line], a: str, b: str, where: str) -> list[tuple[Line, Line]]:
    """Lines of backbones ``a`` and ``b`` that share dataset, detector, recipe and options.

    Args:
        where: what the lines are of, for error messages.

    Raises:
        InputError: a backbone without a line, or no two lines that share all of these.
    """
    _require(lines, (a, b), where)
    found = [
        (first, second)
        for first in lines
        for second in lines
        if (first.backbone, second.backbone) == (a, b) and first is not second and _protocol(first) == _protocol(second)
    ]
    if not found:
        raise InputError(f"no two lines of {a} and {b} on {where} share dataset, recipe and options")
    return found


def is_pattern(name: str) -> bool:
    """Whether ``name`` stands for a set of backbones (``random_*_c8_l6``)."""
    return any(sign in name for sign in "*?[")


def sets(lines: Sequence[Line], a: str, b: str, where: str) -> list[tuple[list[Line], list[Line]]]:
    """Lines of the backbones that ``a`` and ``b`` match, of one dataset, recipe and options each.

    What ``a`` matches is left out of ``b``, so that a network can stand against all others.

    Raises:
        InputError: a name that matches no line, or no two sets that share all of these.
    """
    _require(lines, (a, b), where)
    found = []
    for protocol in dict.fromkeys(map(_protocol, lines)):
        of = [line for line in lines if _protocol(line) == protocol]
        first = [line for line in of if fnmatchcase(line.backbone, a)]
        second = [line for line in of if fnmatchcase(line.backbone, b) and line not in first]
        if first and second:
            found.append((first, second))
    if not found:
        raise InputError(f"no lines of {a} and others of {b} on {where} share dataset, recipe and options")
    return found


def _require(lines: Sequence[Line], wanted: Sequence[str], where: str) -> None:
    names = sorted({line.backbone for line in lines})
    for name in wanted:
        if not any(fnmatchcase(each, name) for each in names):
            near = difflib.get_close_matches(name, names, n=3) or names
            there = f"; there are {', '.join(near)}" if near else ""
            raise InputError(f"no records of {name!r} on {where}{there}")


def _protocol(line: Line) -> tuple:
    return line.dataset, line.detector, line.recipe, line.cfg_options


def describe(board: Board, a: Line, b: Line, metrics: Sequence[str]) -> str:
    """The comparison of two lines, one paragraph per metric."""
    title = f"{_title(a)}: {_name(a)} against {_name(b)}"
    out = [title]
    for metric in metrics:
        left, right = a.summary(metric), b.summary(metric)
        comparison = compare(a.values[metric], b.values[metric])
        out.append(f"  {board.metrics[metric]:<8}  {_mean(left)} against {_mean(right)} %")
        out.append(f"            {_verdict(comparison)}")
    return "\n".join(out)


def describe_sets(
    board: Board, a: Sequence[Line], b: Sequence[Line], names: tuple[str, str], metrics: Sequence[str]
) -> str:
    """The comparison of two sets of lines, one paragraph per metric.

    A network's value is its mean over the seeds that all networks of both sets have, so that the
    noise of seeds is the same in all values.
    """
    title = f"{_title(a[0])}: {_set(a, names[0])} against {_set(b, names[1])}"
    out = [title]
    for metric in metrics:
        seeds = sorted(set.intersection(*(set(line.values[metric]) for line in (*a, *b))))
        if not seeds:
            out.append(f"  {board.metrics[metric]:<8}  no seed that all of these networks have")
            continue
        left, right = ([summarize([line.values[metric][s] for s in seeds]).mean for line in side] for side in (a, b))
        over = f"means over seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        out.append(f"  {board.metrics[metric]:<8}  {_networks(left)} against {_networks(right)} %, {over}")
        out.append(f"            {_verdict(compare_networks(left, right), 'what networks differ by')}")
        if len(left) == 1:
            above = sum(left[0] > value for value in right)
            out.append(f"            above {above} of {len(right)}")
    return "\n".join(out)


def _title(line: Line) -> str:
    """What lines that are compared share."""
    parts = (line.dataset, line.detector, f"recipe {line.recipe}", line.cfg_options)
    return ", ".join(part for part in parts if part)


def _set(lines: Sequence[Line], name: str) -> str:
    return _name(lines[0]) if len(lines) == 1 else f"{name} ({len(lines)} networks)"


def _networks(values: Sequence[float]) -> str:
    summary = summarize(values)
    if summary.std is None:
        return f"{100 * summary.mean:.2f}"
    return f"{100 * summary.mean:.2f} ± {100 * summary.std:.2f} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def _name(line: Line) -> str:
    return line.backbone if line.source == "measured" else f"{line.backbone} ({line.source})"


def _mean(summary: Summary) -> str:
    if summary.mean is None:
        return "- (n = 0)"
    std = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{std} (n = {summary.n})"


def _verdict(comparison: Comparison, noise: str = "seed noise") -> str:
    if comparison.difference is None:
        return comparison.test
    points = f"difference {100 * comparison.difference:+.2f} points"
    if comparison.p is None:
        return f"{points}: {comparison.test}"
    interval = ""
    if comparison.low is not None:
        interval = f", 95 % interval {100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}"
    size = f"LARGER than {noise}" if comparison.beyond_noise else f"within {noise}"
    p = "p < 0.001" if comparison.p < 0.001 else f"p = {comparison.p:.3f}"
    return f"{points}{interval}: {size} ({p}, {comparison.test})"
