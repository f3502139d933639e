"""Fill the search board: search, train the cell that was found, write down both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebit.commons.datasets import Dataset
from onebit.commons.errors import InputError
from onebit.commons.files import remove_stale
from onebit.commons.task import Job
from onebit.leaderboards.boards import runner
from onebit.leaderboards.recording.run_file import now
from onebit.leaderboards.recording.search_record import BOARD, SearchRun, row_name
from onebit.leaderboards.running.environment import code_version, environment
from onebit.leaderboards.running.locks import holding

#: Of the network that is trained of every cell: 8 channels, 6 cells.
NETWORK = "c8_l6"


@dataclass(frozen=True)
class SearchSweep:
    """What `onebit bench search` was asked for.

    Attributes:
        out: the leaderboard folder; records go to ``out/records/search``.
        overwrite: see :class:`onebit.leaderboards.running.bench.Sweep`.
        options: of every method.
        cfg_options: changes of the preset.
    """

    dataset: Dataset
    methods: Sequence[str]
    preset: str
    seeds: Sequence[int]
    data_root: Path
    out: Path
    work_root: Path
    overwrite: str = "only-missing"
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        """The common short training: the same for every cell of a dataset."""
        return "mini" if self.dataset.kind == "drawn" else "short"

    def rows(self) -> list[tuple[str, int]]:
        """(method, seed) of every row, each once however often it was named."""
        return list(dict.fromkeys((m, seed) for m in self.methods for seed in self.seeds))

    def row_name(self, method: str, seed: int) -> str:
        return row_name(self.dataset.name, method, self.preset, self.options, self.cfg_options, seed)

    def record_path(self, method: str, seed: int) -> Path:
        return self.out / "records" / BOARD / f"{self.row_name(method, seed)}.json"


def bench(sweep: SearchSweep) -> Iterator[tuple[SearchRun, bool]]:
    """Yield every row's record and whether it was run now (else: found finished).

    An interrupted sweep goes on where it stopped when it is called again.

    Raises:
        InputError: anything wrong with any row, before the first is run; records in the way.
    """
    missing = [row for row in sweep.rows() if not sweep.record_path(*row).exists()]
    if sweep.overwrite == "never" and len(missing) < len(sweep.rows()):
        there = next(row for row in sweep.rows() if row not in missing)
        raise InputError(f"{sweep.record_path(*there)} exists and --overwrite never was asked for")
    if sweep.overwrite == "always":
        missing = sweep.rows()
    if missing:
        from onebit.classification.search.runner import check

        for method, seed in missing:
            check(_search_job(sweep, method, seed))
    for row in sweep.rows():
        path = sweep.record_path(*row)
        with holding(path):
            remove_stale(path.parent, path.name)
            if row not in missing or (path.exists() and sweep.overwrite != "always"):
                yield SearchRun.load(path), False
            else:
                yield run_row(sweep, *row), True


def _search_job(sweep: SearchSweep, method: str, seed: int):
    from onebit.classification.search.job import SearchJob

    return SearchJob(
        method=method,
        dataset=sweep.dataset.name,
        preset=sweep.preset,
        seed=seed,
        data_root=sweep.data_root,
        work_dir=sweep.work_root / BOARD / sweep.row_name(method, seed) / "search",
        resume=True,
        options=sweep.options,
        cfg_options=sweep.cfg_options,
    )


def run_row(sweep: SearchSweep, method: str, seed: int) -> SearchRun:
    """Search and train, each resumed if an earlier call was interrupted; save the record."""
    from onebit.classification.search.runner import search

    job = _search_job(sweep, method, seed)
    folder = job.work_dir.parent
    if sweep.record_path(method, seed).exists():  # the row had ended: start afresh
        shutil.rmtree(folder, ignore_errors=True)
    found = search(job)
    *_, cell = found.save(folder / "cell.json")
    training = Job(
        dataset=sweep.dataset.name,
        backbone=f"{cell}_{NETWORK}",
        recipe=sweep.recipe,
        seed=seed,
        data_root=sweep.data_root,
        work_dir=folder / "train",
        resume=True,
    )
    start = time.monotonic()
    outcome = runner("classification").train(training)
    network = outcome.details["network"]
    run = SearchRun(
        method=method,
        dataset=sweep.dataset.name,
        data_checksum=found.data_checksum,
        preset=sweep.preset,
        options=dict(sweep.options),
        cfg_options=dict(sweep.cfg_options),
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
        weight_bits=network["weight_bits"],
        activation_bits=network["activation_bits"],
        recipe=sweep.recipe,
        train_epochs=outcome.epochs,
        train_seconds=time.monotonic() - start,
        metrics=outcome.metrics,
        main_metric=outcome.main_metric,
        ops_strict=outcome.cost["strict"]["ops"],
        memory_bits_strict=outcome.cost["strict"]["memory_bits"],
        code=code_version(),
        environment=environment("classification", dataset=sweep.dataset.name),
        created=now(),
    )
    run.save(sweep.out / "records")
    return run
