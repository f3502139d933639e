"""The cells that ship, each a JSON file beside this one with its provenance.

Only cells whose origin is certain are here: a published cell as its authors released it, or one
that our own search found and that says so in its provenance.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from backbones.genotype import Genotype
from commons.errors import InputError

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
    if name not in list_cells():
        near = difflib.get_close_matches(str(name), list_cells(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(list_cells())}"
        raise InputError(f"unknown cell {name!r}; {hint}")
    return Genotype.load(FOLDER / f"{name}.json")
