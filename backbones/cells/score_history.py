"""The scores of a search after each of its epochs, as a file that cells can be derived from again."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onebit.backbones.cells.derivation import DERIVATIONS
from onebit.backbones.cells.genotype import INPUT_NODES, INTERMEDIATE_NODES, OPERATIONS, Genotype
from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.files import require_archive, write_atomic

#: Names of the second and third axis of the scores; an edge is source-target.
CELLS = ("normal", "reduce")
EDGES = tuple(
    f"{source}-{target}" for target in range(INPUT_NODES, INPUT_NODES + INTERMEDIATE_NODES) for source in range(target)
)
#: Bytes that a file may unpack to; 10,000 epochs have 18 million.
LARGEST = 2**26
_NAMES = ("scores", "cells", "edges", "operations")


@dataclass(frozen=True)
class ScoreHistory:
    """What a search thought of every operation.

    Attributes:
        scores: [epochs, 2, 14, operations]: normal and reduction cell, edges in the order of :data:`EDGES`; larger is
            better.
        operations: names of the last axis.
        provenance: of the search, as its cell has it; its ``derivation`` says how that cell was made: ``edges``
            (``top2`` or ``all14``) and ``keep_none``.
    """

    scores: np.ndarray
    operations: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def derive(self, edges: str | None = None, keep_none: bool | None = None, epoch: int | None = None) -> Genotype:
        """The cell that the scores of one epoch stand for, see :meth:`Genotype.derive`.

        Args:
            edges, keep_none: as the search's own cell was made where None; ``top2`` and no where it does not say.
            epoch: counted from 1; the last one where None.

        Raises:
            InputError: an argument out of range, or scores that are not finite.
        """
        own = self.provenance.get("derivation")
        own = own if isinstance(own, Mapping) else {}
        edges = own.get("edges", "top2") if edges is None else edges
        keep_none = own.get("keep_none", False) if keep_none is None else keep_none
        guards.choice("derivation, edges", edges, DERIVATIONS)
        guards.switch("derivation, keep_none", keep_none)
        epoch = len(self.scores) if epoch is None else guards.whole("epoch", epoch, 1, len(self.scores))
        about = dict(self.provenance)
        if (edges, keep_none, epoch) != (own.get("edges"), own.get("keep_none"), own.get("epoch", epoch)):
            about.pop("diagnosis", None)  # it judges the search's own cell
        how = dict(edges=edges, keep_none=keep_none, epoch=epoch)
        return Genotype.derive(
            self.scores[epoch - 1], edges, self.operations, keep_none=keep_none, provenance={**about, "derivation": how}
        )

    def save(self, path: str | os.PathLike) -> Path:
        """Write a NumPy archive: ``scores``, the names of its last three axes, and ``provenance`` as JSON.

        Raises:
            WorkError: it cannot be written.
        """
        stream = io.BytesIO()
        names = dict(cells=CELLS, edges=EDGES, operations=self.operations)
        arrays: dict[str, Any] = {key: np.array(value) for key, value in names.items()}
        arrays["provenance"] = np.array(json.dumps(dict(self.provenance)))
        np.savez_compressed(stream, scores=self.scores, **arrays)
        return write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> ScoreHistory:
        """The inverse of :meth:`save`. Nothing in the file is executed; one without ``provenance`` is older.

        Raises:
            InputError: no such file, or not the scores of a search.
        """
        wrong = f"{path}: not the scores of a search (`onebit search` writes CELL.scores.npz)"
        try:
            require_archive(path, LARGEST)
            with np.load(path, allow_pickle=False) as archive:
                scores, *names = (archive[name] for name in _NAMES)
                about = json.loads(str(archive["provenance"])) if "provenance" in archive else {}
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"no file {path}") from None
        except Exception as error:  # zip, numpy and JSON each have errors of their own
            raise InputError(f"{wrong}: {' '.join(str(error).split())[:200]}") from None
        cells, edges, operations = (tuple(map(str, each.ravel().tolist())) for each in names)
        if (cells, edges) != (CELLS, EDGES):
            raise InputError(f"{wrong}: expected the cells {', '.join(CELLS)} and the edges {', '.join(EDGES)}")
        for name in operations:
            guards.choice(f"{path}: operation", name, OPERATIONS)
        shape = (len(CELLS), len(EDGES), len(operations))
        if scores.ndim != 4 or not len(scores) or scores.shape[1:] != shape or scores.dtype.kind != "f":
            raise InputError(
                f"{wrong}: scores of shape {list(scores.shape)}, expected floats [epochs, 2, 14, operations]"
            )
        if not isinstance(about, Mapping):
            raise InputError(f"{wrong}: its provenance is no JSON object")
        return cls(scores.astype(np.float64), operations, about or {"source": f"derived from {Path(path).name}"})
