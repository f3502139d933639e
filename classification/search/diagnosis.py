"""What often goes wrong in a search, told by numbers of the search itself (ours)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onebit.backbones.cells.genotype import Cell, Genotype

#: A cell that random choice makes more rarely than this has collapsed, if most of its edges have no weights.
RARE = 0.05
#: Mean entropy of alpha, as a share of the largest, from which on it counts as not having moved: normally
#: distributed alphas of 8 operations have it at a deviation of 0.22.
UNMOVED = 0.99
#: Share of the first-order gradient below which the tangent term counts as without effect.
FAINT = 0.01


def diagnose(genotype: Genotype, operations: Sequence[str], measures: Mapping[str, float]) -> dict[str, Any]:
    """The measures of a finished search, and a sentence for each of them that is suspicious.

    Args:
        operations: that the search chose from.
        measures: of the strategy, see :meth:`onebit.classification.search.strategies.base.Strategy.measures`.

    Returns:
        ``edges_without_weights`` by cell, ``measures`` and ``warnings``, a list of texts.
    """
    cells = {"normal": genotype.normal, "reduce": genotype.reduce}
    counts = {name: sum(map(_weightless, _names(cell))) for name, cell in cells.items()}
    warnings = []
    for name, cell in cells.items():
        number, edges = counts[name], len(_names(cell))
        chance = _tail(number, edges, operations, keeps_none="none" in _names(genotype.normal + genotype.reduce))
        if 2 * number > edges and chance < RARE:
            warnings.append(
                f"{number} of {edges} edges of the {name} cell are identities, pooling or none; "
                f"so many or more come by chance in {100 * chance:.2g} % of cells: the search has collapsed"
            )
    if measures.get("alpha_entropy", 0) > UNMOVED:
        warnings.append(
            f"alpha has hardly moved, its entropy is {100 * measures['alpha_entropy']:.1f} % of the largest: "
            "the cell is little more than chance (raise the option arch_lr, or schedule.epochs)"
        )
    if measures.get("tangent_share", 1) < FAINT:
        warnings.append(
            f"the tangent term is {100 * measures['tangent_share']:.2g} % of the gradient of the Child's alpha and "
            "decides nothing (the option lambda=auto fixes its share)"
        )
    return dict(edges_without_weights=counts, measures=dict(measures), warnings=warnings)


def _names(cell: Cell) -> list[str]:
    return [operation for node in cell for operation, _ in node]


def _weightless(operation: str) -> bool:
    """An identity of stride 2 has weights and counts nevertheless: it does not compute."""
    return "conv" not in operation


def _tail(number: int, edges: int, operations: Sequence[str], keeps_none: bool) -> float:
    """Probability that of ``edges`` operations drawn from those that can survive so many or more have no weights."""
    drawn = [_weightless(name) for name in operations if keeps_none or name != "none"]
    p = sum(drawn) / len(drawn)
    return sum(math.comb(edges, k) * p**k * (1 - p) ** (edges - k) for k in range(number, edges + 1))
