"""The cells that ship, each a JSON file beside this one with its provenance.

Only cells whose origin is certain are here: a published cell as its authors released it, one that our
own search found and that says so in its provenance, or one drawn at random to compare these with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from onebit.backbones.cells.genotype import Genotype
from onebit.commons import guards

FOLDER = Path(__file__).resolve().parent


def list_cells() -> list[str]:
    """Names of the cells that ship, e.g. ``dcp_nas_imagenet``."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def load_cell(name: str) -> Genotype:
    """One of the cells that ship.

    Raises:
        InputError: unknown name; the message lists near matches.
    """
    return Genotype.load(FOLDER / f"{guards.known('cell', name, list_cells())}.json")


#: The name of a cell that ships, a file, a genotype, or what :meth:`Genotype.to_dict` gives.
CellSource = str | os.PathLike | Genotype | Mapping


def resolve_cell(cell: CellSource) -> tuple[Genotype, str]:
    """A cell and what to call it, however it was given.

    Args:
        cell: the name of a cell that ships, a :class:`Genotype`, what :meth:`Genotype.to_dict`
            gives, or the path of a genotype's JSON file.

    Returns:
        The genotype, and the name of the shipped cell that it equals; of any other its file's name,
        or ``given``.

    Raises:
        InputError: unknown name, or a genotype that cannot be read.
    """
    name = "given"
    if isinstance(cell, Genotype):
        genotype = cell
    elif isinstance(cell, Mapping):
        genotype = Genotype.from_dict(cell)
    elif isinstance(cell, os.PathLike) or (isinstance(cell, str) and cell.endswith(".json")):
        genotype, name = Genotype.load(cell), Path(cell).name
    else:
        return load_cell(cell), cell
    same = (shipped for shipped in list_cells() if load_cell(shipped) == genotype)
    return genotype, next(same, name)
