"""What a search leaves behind: the cell with its provenance, the scores it came from, a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onebit.backbones.cells.drawing import draw_cells
from onebit.backbones.cells.genotype import Genotype
from onebit.backbones.cells.score_history import ScoreHistory
from onebit.classification.search.diagnosis import diagnose
from onebit.classification.search.job import SearchJob
from onebit.commons.provenance import checkout, versions


@dataclass(frozen=True)
class SearchOutcome:
    """A finished search.

    Attributes:
        genotype: the derived cell; its provenance says how it was found.
        history: [epochs, 2, 14, operations], the scores after each epoch, float64.
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
    def warnings(self) -> list[str]:
        """What is suspicious about the search, a sentence each."""
        return self.genotype.provenance["diagnosis"]["warnings"]

    @property
    def images_per_second(self) -> float:
        return _rate(self.images_seen, self.wall_seconds)

    @classmethod
    def of(
        cls,
        job: SearchJob,
        *,
        options: Mapping[str, Any],
        history: Tensor,
        operations: Sequence[str],
        derivation: Mapping[str, Any],
        supernet: Mapping[str, Any],
        measures: Mapping[str, float],
        epochs_of_method: int,
        processes: int,
        **facts,
    ) -> SearchOutcome:
        """Derive the cell from the last scores and write down where it is from.

        Args:
            options: of the method, all of them.
            derivation: ``edges`` and ``keep_none``, see :class:`onebit.backbones.cells.score_history.ScoreHistory`.
            supernet: see :attr:`onebit.classification.search.supernet.Supernet.about`: a network named by
                the cell alone is built like it.
            epochs_of_method: how many it would have taken without a budget.
            measures: see :func:`onebit.classification.search.diagnosis.diagnose`.
            facts: the other attributes but ``gpu_days``.
        """
        gpu_days = None
        if torch.cuda.is_available():
            gpu_days = facts["wall_seconds"] * processes / 86400
        provenance = dict(
            source="found by `onebit search` of this suite",
            method=job.method,
            dataset=job.dataset,
            preset=job.preset,
            seed=job.seed,
            options=dict(options),
            cfg_options=dict(job.cfg_options),
            derivation=dict(derivation),
            supernet=dict(supernet),
            config_sha256=facts["config_sha256"],
            data_checksum=facts["data_checksum"],
            epochs=len(history),
            **({} if job.budget is None else dict(budget_seconds=job.budget, epochs_of_method=epochs_of_method)),
            images_seen=facts["images_seen"],
            images_per_second=_rate(facts["images_seen"], facts["wall_seconds"]),
            wall_seconds=facts["wall_seconds"],
            peak_memory_bytes=facts["peak_memory_bytes"],
            processes=processes,
            code=checkout(),
            versions=versions(),
        )
        if gpu_days is not None:
            provenance["gpu_days"] = gpu_days
        genotype = ScoreHistory(history.numpy(), tuple(operations), provenance).derive()
        diagnosis = diagnose(genotype, operations, measures)
        genotype = replace(genotype, provenance={**genotype.provenance, "diagnosis": diagnosis})
        return cls(genotype, history, tuple(operations), gpu_days=gpu_days, **facts)

    def save(self, path: Path) -> list[Path]:
        """Write ``path`` (the cell), and beside it the score history and a picture.

        The history is a file of :class:`onebit.backbones.cells.score_history.ScoreHistory`.

        Returns:
            the three files; the cell is written last, so that where it is, the others are.

        Raises:
            WorkError: a file cannot be written.
        """
        history, picture, path = written_files(path)
        ScoreHistory(self.history.numpy(), self.operations, self.genotype.provenance).save(history)
        draw_cells(self.genotype, picture)
        self.genotype.save(path)
        return [history, picture, path]


def _rate(images: int, seconds: float) -> float:
    return images / seconds if seconds else 0.0


def written_files(path: Path) -> tuple[Path, Path, Path]:
    """Where the score history, the picture and the cell go that :meth:`SearchOutcome.save` writes."""
    return path.with_suffix(".scores.npz"), path.with_suffix(".svg"), path
