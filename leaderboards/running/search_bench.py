"""The rows of the search board: a search, and the training of the cell that it found."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.commons.task import Job
from onebit.leaderboards.boards import runner
from onebit.leaderboards.recording.run_file import now
from onebit.leaderboards.recording.search_record import BOARD, SearchRun, row_name
from onebit.leaderboards.running.environment import code_version, environment
from onebit.leaderboards.running.sweep import Row, Sweep

if TYPE_CHECKING:
    from onebit.classification.search.job import SearchJob

#: Of the network that is trained of every cell: 8 channels, 6 cells.
NETWORK = "c8_l6"


@dataclass(frozen=True, kw_only=True)
class SearchSweep(Sweep[SearchRun]):
    """Methods that search; a row searches and trains its cell.

    Attributes:
        options: of every method.
        cfg_options: changes of the preset.
    """

    methods: Sequence[str]
    preset: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """The common short training: the same for every cell of a dataset."""
        return "mini" if self.dataset.kind == "drawn" else "short"

    @property
    def folder(self) -> str:
        return BOARD

    @property
    def names(self) -> Sequence[str]:
        return self.methods

    def row_name(self, name: str, seed: int) -> str:
        return row_name(self.dataset.name, name, self.preset, self.options, self.cfg_options, seed)

    def work_dir(self, name: str, seed: int) -> Path:
        return self.work_root / BOARD / self.row_name(name, seed)

    def label(self, record: SearchRun) -> str:
        return f"{record.method} seed {record.seed}"

    def check(self, missing: Sequence[Row]) -> None:
        if missing:
            from onebit.classification.search.runner import check

            for name, seed in missing:
                check(self._search(name, seed, self.work_dir(name, seed)))

    def _search(self, name: str, seed: int, work_dir: Path) -> SearchJob:
        from onebit.classification.search.job import SearchJob

        return SearchJob(
            method=name,
            dataset=self.dataset.name,
            preset=self.preset,
            seed=seed,
            data_root=self.data_root,
            work_dir=work_dir / "search",
            resume=True,
            options=self.options,
            cfg_options=self.cfg_options,
        )

    def run(self, name: str, seed: int, work_dir: Path, resume: bool) -> SearchRun:
        """Search and train, each from where an interrupted call left it."""
        from onebit.classification.search.runner import search

        found = search(self._search(name, seed, work_dir))
        *_, cell = found.save(work_dir / "cell.json")
        training = Job(
            dataset=self.dataset.name,
            backbone=f"{cell}_{NETWORK}",
            recipe=self.recipe,
            seed=seed,
            data_root=self.data_root,
            work_dir=work_dir / "train",
            resume=True,
        )
        start = time.monotonic()
        outcome = runner("classification").train(training)
        network = outcome.details["network"]
        return SearchRun(
            method=name,
            dataset=self.dataset.name,
            data_checksum=found.data_checksum,
            preset=self.preset,
            options=dict(self.options),
            cfg_options=dict(self.cfg_options),
            config_sha256=found.config_sha256,
            seed=seed,
            epochs=len(found.history),
            wall_seconds=found.wall_seconds,
            images_seen=found.images_seen,
            images_per_second=found.images_per_second,
            peak_memory_bytes=found.peak_memory_bytes,
            gpu_days=found.gpu_days,
            genotype=found.genotype.to_dict(),
            network=NETWORK,
            binarizer=network["binarizer"],
            weight_bits=network["weight_bits"],
            activation_bits=network["activation_bits"],
            recipe=self.recipe,
            train_epochs=outcome.epochs,
            train_seconds=time.monotonic() - start,
            metrics=outcome.metrics,
            main_metric=outcome.main_metric,
            ops_strict=outcome.cost["strict"]["ops"],
            memory_bits_strict=outcome.cost["strict"]["memory_bits"],
            code=code_version(),
            environment=environment("classification", dataset=self.dataset.name),
            created=now(),
        )
