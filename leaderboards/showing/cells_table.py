"""The table of trained cells in some lines."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from onebit.classification.cells_table import CellsTable
from onebit.classification.cells_table.simulation import BASELINES, simulate
from onebit.classification.cells_table.surrogate import cross_validated_tau
from onebit.commons.errors import InputError

#: Cells that a model has to be fitted to before its rank correlation is shown.
_ENOUGH = 30
#: Shares of the budget at which regrets are shown.
_SHARES = (0.2, 0.4, 1.0)


def summary(table: CellsTable) -> str:
    """What a table holds, how far its cells differ and how far seeds do.

    The variance between cells is that of their means less what seeds add to it.
    """
    frame = table.frame()
    if frame.empty:
        return f"{table.path}: no trainings"
    last = f"valid_{table.epochs}"
    lines = [
        f"{table.path}: {len(frame)} trainings of {frame.genotype_hash.nunique()} cells, {table.epochs} epochs, setting "
        f"{table.config}, {frame.seconds.sum() / 3600:.2f} core hours",
        f"{'kind':<10} {'cells':>5} {'trainings':>9}  valid % (mean, sd, min, max)   test %",
    ]
    for kind, own in frame.groupby("kind", sort=False):
        valid = 100 * own[last]
        deviation = "-" if len(own) == 1 else f"{valid.std():.2f}"
        lines.append(
            f"{kind:<10} {own.genotype_hash.nunique():>5} {len(own):>9}  {valid.mean():.2f}  {deviation}  "
            f"{valid.min():.2f}  {valid.max():.2f}            {100 * own.test.mean():.2f}"
        )
    between, within = variances(frame, last)
    if within is not None:
        lines.append(
            f"random cells: sd between cells {100 * between**0.5:.2f}, between seeds {100 * within**0.5:.2f} points, "
            f"ratio of variances {between / within:.2f}"
        )
    first = frame[frame.seed == 0]
    if len(first) < 3:
        return "\n".join(lines)
    for epoch in range(1, table.epochs):
        lines.append(
            f"Kendall tau of epoch {epoch} and the last: {kendalltau(first[f'valid_{epoch}'], first[last])[0]:.3f}"
        )
    for column in ("params", "ops_strict"):
        lines.append(f"Kendall tau of {column} and the last epoch: {kendalltau(first[column], first[last])[0]:.3f}")
    if len(first) >= _ENOUGH:
        genotypes = table.genotypes()
        tau = cross_validated_tau([genotypes[cell] for cell in first.genotype_hash], list(first[last]))
        lines.append(f"Kendall tau of the additive model (five-fold cross-validation) and the last epoch: {tau:.3f}")
    return "\n".join(lines)


def regrets(table: CellsTable, budget: float | None, runs: int) -> str:
    """Median and quartiles, in points, of what each baseline's best cell lacks to the table's best one.

    Args:
        budget: seconds; None for those of 50 trainings.

    Raises:
        InputError: a table without trainings.
    """
    if not len(table):
        raise InputError(f"{table.path} has no trainings to search in")
    budget = 50 * float(table.frame().seconds.mean()) if budget is None else budget
    shares = [f"{share * budget:.0f} s" for share in _SHARES]
    lines = [
        f"{table.path}: test accuracy below that of the best cell, points, median (quartiles) of {runs} runs",
        f"{'strategy':<22} " + " ".join(f"{share:>22}" for share in shares),
    ]
    for name, strategy in BASELINES.items():
        curves = 100 * simulate(strategy, table, budget, runs)
        cells = []
        for share in _SHARES:
            own = curves[:, round(share * curves.shape[1]) - 1]
            low, middle, high = np.quantile(own, (0.25, 0.5, 0.75)) if not np.isnan(own).any() else (np.nan,) * 3
            cells.append("-" if np.isnan(middle) else f"{middle:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"{name:<22} " + " ".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def variances(frame: pd.DataFrame, column: str) -> tuple[float, float | None]:
    """Between cells and between seeds of one cell, of random cells; the latter None where no cell has two seeds."""
    own = frame[frame.kind == "random"]
    several = own.groupby("genotype_hash").filter(lambda cell: len(cell) > 1)
    if several.empty:
        return float("nan"), None
    groups = several.groupby("genotype_hash")[column]
    freedom = len(several) - groups.ngroups
    within = groups.var().mul(groups.size() - 1).sum() / freedom
    one = own[own.seed == 0][column]
    return max(float(one.var() - within), 0.0), float(within)
