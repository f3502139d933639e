"""What a search leaves behind: the cell with its provenance, the scores it came from, a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onebit.backbones.cells.drawing import draw_cells
from onebit.backbones.cells.genotype import Genotype
from onebit.classification.search.job import SearchJob
from onebit.classification.search.loop import CELLS, EDGES
from onebit.commons.files import write_atomic
from onebit.commons.provenance import checkout, versions


@dataclass(frozen=True)
class SearchOutcome:
    """A finished search.

    Attributes:
        genotype: the derived cell; its provenance says how it was found.
        history: [epochs, 2, 14, operations], the scores after each epoch.
        operations: names of the last axis.
        data_checksum: see :meth:`onebit.commons.datasets.Dataset.checksum`.
        config_sha256: of the text of the config that ran, less seed and folders: the same for all
            seeds, another one when the preset was edited.
        wall_seconds: spent in the epochs, those before a resume included; reading the data and
            writing checkpoints are not.
        images_seen: images of training and validation that were put through a network.
        peak_memory_bytes: of the GPU's memory; without GPU, of the process's resident memory.
        gpu_days: wall time on a GPU, times the number of processes; None where there was none.
    """

    genotype: Genotype
    history: Tensor
    operations: tuple[str, ...]
    data_checksum: str
    config_sha256: str
    wall_seconds: float
    images_seen: int
    peak_memory_bytes: int
    gpu_days: float | None

    @property
    def images_per_second(self) -> float:
        return self.images_seen / self.wall_seconds if self.wall_seconds else 0.0

    @classmethod
    def of(
        cls,
        job: SearchJob,
        *,
        options: Mapping[str, Any],
        scores: Tensor,
        history: Tensor,
        operations: Sequence[str],
        derivation: str,
        supernet: Mapping[str, Any],
        processes: int,
        **facts,
    ) -> SearchOutcome:
        """Derive the cell from ``scores`` [2, 14, operations] and write down where it is from.

        Args:
            options: of the method, all of them.
            derivation: see :meth:`onebit.backbones.Genotype.derive`.
            supernet: see :attr:`onebit.classification.search.supernet.Supernet.about`: a network named by
                the cell alone is built like it.
            facts: the other attributes but ``gpu_days``.
        """
        gpu_days = None
        if torch.cuda.is_available():
            gpu_days = facts["wall_seconds"] * processes / 86400
        found = cls(
            Genotype.derive(scores, derivation, operations),
            history=history,
            operations=tuple(operations),
            gpu_days=gpu_days,
            **facts,
        )
        provenance = dict(
            source="found by `onebit search` of this suite",
            method=job.method,
            dataset=job.dataset,
            preset=job.preset,
            seed=job.seed,
            options=dict(options),
            cfg_options=dict(job.cfg_options),
            supernet=dict(supernet),
            config_sha256=found.config_sha256,
            data_checksum=found.data_checksum,
            epochs=len(history),
            images_seen=found.images_seen,
            images_per_second=found.images_per_second,
            wall_seconds=found.wall_seconds,
            peak_memory_bytes=found.peak_memory_bytes,
            processes=processes,
            code=checkout(),
            versions=versions(),
        )
        if gpu_days is not None:
            provenance["gpu_days"] = gpu_days
        return replace(found, genotype=replace(found.genotype, provenance=provenance))

    def save(self, path: Path) -> list[Path]:
        """Write ``path`` (the cell), and beside it the score history and a picture.

        The history is a NumPy archive with ``scores`` [epochs, 2, 14, operations] and the names of
        the last three axes, ``cells``, ``edges`` (source-target) and ``operations``.

        Returns:
            the three files; the cell is written last, so that where it is, the others are.

        Raises:
            WorkError: a file cannot be written.
        """
        history, picture, path = written_files(path)
        stream = io.BytesIO()
        names = dict(cells=CELLS, edges=EDGES, operations=self.operations)
        np.savez_compressed(stream, scores=self.history.numpy(), **{k: np.array(v) for k, v in names.items()})
        write_atomic(history, stream.getvalue())
        draw_cells(self.genotype, picture)
        self.genotype.save(path)
        return [history, picture, path]


def written_files(path: Path) -> tuple[Path, Path, Path]:
    """Where the score history, the picture and the cell go that :meth:`SearchOutcome.save` writes."""
    return path.with_suffix(".scores.npz"), path.with_suffix(".svg"), path
