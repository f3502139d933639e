"""Checks of a table of trained cells, for `onebit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onebit.classification.cells_table import table
from onebit.classification.cells_table.training import SETTINGS, Setting, cost_columns, load_images, train
from onebit.commons.errors import InputError

#: So many cells have their costs counted again, unless all are asked for.
COUNTED = 5
#: How far an accuracy may be off when a training is repeated. On one machine it is the same to the last digit; on another
#: processor a rounded sum turns a sign, and the training differs from then on as one of another seed does.
TOLERANCE = 0.05


def problems(path: Path, full: bool = False) -> list[str]:
    """What does not hold in a table, as sentences; empty when it is sound.

    Its form, its setting, the hash of every cell, one text per cell, and what cells cost.

    Args:
        full: count the costs of all cells again instead of some that the table itself draws.
    """
    try:
        lines = table.read(path)
        if not lines:
            return []
        setting = setting_of(lines[0]["config"])
    except InputError as error:
        return [str(error)]
    found = []
    cells: dict[str, tuple[int, dict[str, Any], Any]] = {}
    for number, line in enumerate(lines, 2):
        try:
            genotype = table.decode(line["genotype"])
        except InputError as error:
            found.append(f"line {number}: {error}")
            continue
        if genotype.hash != line["genotype_hash"] or table.encode(genotype) != line["genotype"]:
            found.append(f"line {number}: genotype_hash is not that of the genotype")
        first = cells.setdefault(genotype.hash, (number, line, genotype))
        if any(line[key] != first[1][key] for key in ("params", "memory_bits", "ops_strict")):
            found.append(f"line {number}: the cell costs something else than in line {first[0]}")
    drawn = list(cells.values())
    if not full:
        chosen = np.random.default_rng(len(lines)).permutation(len(drawn))[:COUNTED]
        drawn = [drawn[i] for i in chosen]
    for number, line, genotype in drawn:
        for key, value in cost_columns(genotype, setting).items():
            if line[key] != value:
                found.append(f"line {number}: {key} is {line[key]:g}, but the cell has {value:g}")
    return found


def setting_of(config: str) -> Setting:
    """The setting with this hash.

    Raises:
        InputError: none of this version of the suite.
    """
    for setting in SETTINGS.values():
        if setting.hash == config:
            return setting
    known = ", ".join(f"{setting.hash} ({setting.dataset})" for setting in SETTINGS.values())
    raise InputError(f"config is {config}, of none of the settings of this version, which are {known}")


def find_line(path: Path, name: str) -> dict[str, Any] | None:
    """The line of a training by ``<genotype hash or its beginning>--seed<N>``; None where there is none."""
    cell, _, seed = name.partition("--seed")
    lines = table.read(path) if path.exists() else []
    own = [line for line in lines if line["genotype_hash"].startswith(cell) and str(line["seed"]) == seed]
    return own[0] if cell and len(own) == 1 else None


def retrain(line: dict[str, Any], data_root: Path, tolerance: float | None = None) -> tuple[list[str], list[str]]:
    """Train the cell of a line again and compare accuracies and loss.

    Returns:
        what does not hold, and what was computed, as sentences.

    Raises:
        InputError: data that is missing, or a setting of another version.
    """
    setting = setting_of(line["config"])
    limit = TOLERANCE if tolerance is None else tolerance
    again = train(table.decode(line["genotype"]), line["seed"], setting, load_images(setting, data_root))
    now = {f"valid_{epoch}": value for epoch, value in enumerate(again.valid, 1)}
    now |= {"test": again.test}
    wrong = [
        f"trained again: {key} is {line[key]} in the table and {value} now (tolerance {limit:g})"
        for key, value in now.items()
        if abs(line[key] - value) > limit
    ]
    exactly = all(line[key] == value for key, value in now.items())
    shown = ", ".join(f"{key} {value:.4f}" for key, value in now.items())
    return wrong, [] if wrong else [
        f"trained again: {shown} " + ("to the last digit" if exactly else f"(tolerance {limit:g})")
    ]
