"""From the scores of a search to a discrete cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onebit.commons import guards
from onebit.commons.errors import InputError

DERIVATIONS = ("all14", "top2")


def derive_cell(
    scores: np.ndarray, derivation: str, operations: Sequence[str], keep_none: bool
) -> list[list[tuple[str, int]]]:
    """One discrete cell from the scores [14, operations] of one cell type.

    Edges are in the order of their target, then of their source: (0, 2), (1, 2), (0, 3), ...
    Ties go to the operation that comes first, and among edges to the earlier source.
    """
    allowed = np.array([keep_none or name != "none" for name in operations])
    candidates = np.where(allowed, scores, -np.inf)
    best = candidates.argmax(axis=1)
    strength = candidates.max(axis=1)
    nodes, start = [], 0
    for number in (2, 3, 4, 5):
        sources = list(range(number))
        if derivation == "top2":
            sources = sorted(sources, key=lambda source: -strength[start + source])[:2]
        nodes.append([(operations[best[start + source]], source) for source in sorted(sources)])
        start += number
    return nodes


def checked_scores(scores: Any, edges: int, operations: Sequence[str]) -> np.ndarray:
    """``scores`` as a float64 array [2, edges, operations].

    Raises:
        InputError: another shape, something that is no number, or not all finite.
    """
    if hasattr(scores, "detach"):  # a tensor, of any device and precision
        scores = scores.detach().cpu().double()
    expected = (2, edges, len(operations))
    try:
        array = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"scores: expected an array of numbers {list(expected)}, found {type(scores).__name__} that cannot be one"
        ) from None
    if array.shape != expected:
        raise InputError(
            f"scores: expected the shape {list(expected)} (normal and reduction cell, edges, "
            f"operations {', '.join(operations)}), found {list(array.shape)}"
        )
    if not np.isfinite(array).all():
        cell, edge, operation = np.argwhere(~np.isfinite(array))[0]
        raise InputError(
            f"scores: {array[cell, edge, operation]} at {('normal', 'reduction')[cell]} cell, "
            f"edge {edge}, {operations[operation]}; expected finite numbers"
        )
    return array


def checked_operations(operations: Any, known: Sequence[str], keep_none: bool) -> tuple[str, ...]:
    """``operations`` as a tuple of known names, at least one of which can survive.

    Raises:
        InputError: unknown or repeated names, or none that can survive.
    """
    if isinstance(operations, str) or not isinstance(operations, Sequence):
        raise InputError(f"operations: expected a list of names, found {operations!r}")
    names = tuple(operations)
    for name in names:
        guards.known("operation", name, known)
        if names.count(name) > 1:
            raise InputError(f"operations: {name} is listed twice")
    if not [name for name in names if keep_none or name != "none"]:
        raise InputError(
            f"operations {list(names)}: none of them can survive; expected at least one other "
            "than 'none', or keep_none=True"
        )
    return names
