"""Train and score the rows of a board that are missing, one record each."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commons import progress
from commons.datasets import Dataset
from commons.errors import InputError, WorkError
from commons.files import sha256_file, write_atomic
from commons.task import Job, Outcome
from leaderboards.boards import Board, runner
from leaderboards.clock import Clock
from leaderboards.environment import code_version, environment
from leaderboards.record import KeptFile, Record, load_all, options_tag, row_name

OVERWRITE = ("only-missing", "always", "never")


@dataclass(frozen=True)
class Sweep:
    """What `onebit bench` was asked for.

    Attributes:
        out: the leaderboard folder; records go to ``out/records``, tables to ``out/tables``.
        overwrite: ``only-missing`` skips finished rows, ``always`` runs all of them afresh,
            ``never`` refuses to start when one exists.
        retry_failed: run rows again whose record says that they failed.
        workers: rows that run at the same time.
    """

    board: Board
    dataset: Dataset
    backbones: Sequence[str]
    recipe: str
    seeds: Sequence[int]
    data_root: Path
    out: Path
    work_root: Path
    overwrite: str = "only-missing"
    retry_failed: bool = False
    workers: int = 1
    cfg_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> Path:
        return self.out / "records"

    def rows(self) -> list[tuple[str, int]]:
        """(backbone, seed) of every row, each once however often it was named."""
        return list(dict.fromkeys((b, seed) for b in self.backbones for seed in self.seeds))

    def row_name(self, backbone: str, seed: int) -> str:
        return row_name(
            self.dataset.name, backbone, self.recipe, options_tag(dict(self.cfg_options)), seed
        )

    def record_path(self, backbone: str, seed: int) -> Path:
        return self.records / self.board.name / f"{self.row_name(backbone, seed)}.json"


def check(sweep: Sweep) -> None:
    """Find what is wrong before the first row is trained.

    Raises:
        InputError: missing dataset, unknown backbone or recipe, records in the way.
    """
    import backbones

    sweep.dataset.find(sweep.data_root)
    for backbone in sweep.backbones:
        backbones.describe(backbone)
        if "/" in backbone:
            raise InputError(
                f"{backbone}: a row's backbone has a plain name; run from the folder of the cell file"
            )
    check_recipe(sweep.board.task, sweep.recipe)
    list(load_all(sweep.records, sweep.board.name))  # a broken record must not show up hours later
    if sweep.overwrite == "never":
        for row in sweep.rows():
            if sweep.record_path(*row).exists():
                raise InputError(
                    f"{sweep.record_path(*row)} exists and --overwrite never was asked for"
                )


def check_recipe(task: str, recipe: str) -> None:
    """Raises InputError with the recipes there are when ``recipe`` is not one of ``task``."""
    folder = Path(__file__).resolve().parent.parent / task / "configs" / "recipes"
    names = sorted(p.stem for p in folder.glob("*.py"))
    if recipe not in names:
        near = difflib.get_close_matches(recipe, names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown recipe {recipe!r} of {task}; {hint}there are {', '.join(names)}")


def bench(sweep: Sweep) -> Iterator[tuple[Record, bool]]:
    """Yield every row's record and whether it was run now (else: found finished).

    A row that fails yields, and leaves, a record that says why; the next rows still run. A full
    disk or an interrupt ends the sweep; the same call goes on where it stopped. With several
    workers, finished rows come first and the others as they end.
    """
    check(sweep)
    finished = {}
    for row in sweep.rows():
        path = sweep.record_path(*row)
        if path.exists() and sweep.overwrite == "only-missing":
            record = Record.load(path)
            if record.status == "done" or not sweep.retry_failed:
                finished[row] = record
    if sweep.workers == 1:
        for row in sweep.rows():
            yield (finished[row], False) if row in finished else (run_row(sweep, *row), True)
        return
    for record in finished.values():
        yield record, False
    missing = [row for row in sweep.rows() if row not in finished]
    if missing:
        yield from _in_parallel(sweep, missing)


def _in_parallel(sweep: Sweep, rows: list[tuple[str, int]]) -> Iterator[tuple[Record, bool]]:
    """Run rows in processes of their own, each with its share of the processors."""
    threads = max(1, (os.cpu_count() or 1) // sweep.workers)
    pool = ProcessPoolExecutor(
        min(sweep.workers, len(rows)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(threads,),
    )
    try:
        for done in as_completed([pool.submit(run_row, sweep, *row) for row in rows]):
            yield done.result(), True
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()  # its row is resumed from its last checkpoint
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(threads: int) -> None:
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    progress.silence()  # bars of several processes would overwrite each other


def run_row(sweep: Sweep, backbone: str, seed: int) -> Record:
    """Train and score one row, resuming it if an earlier call was interrupted; save its record."""
    work_dir = sweep.work_root / sweep.row_name(backbone, seed)
    unfinished = work_dir / "unfinished"
    if sweep.record_path(backbone, seed).exists() and not unfinished.exists():
        # The row had ended: --overwrite always and --retry-failed start afresh.
        shutil.rmtree(work_dir, ignore_errors=True)
    job = Job(
        dataset=sweep.dataset.name,
        backbone=backbone,
        recipe=sweep.recipe,
        seed=seed,
        data_root=sweep.data_root,
        work_dir=work_dir,
        resume=work_dir.exists(),
        cfg_options=sweep.cfg_options,
    )
    write_atomic(unfinished, "")
    try:
        record = _timed(sweep, job)
    except InputError:
        if not job.resume:  # nothing was trained: leave nothing behind
            shutil.rmtree(work_dir, ignore_errors=True)
        raise
    record.save(sweep.records)
    unfinished.unlink()
    return record


def _timed(sweep: Sweep, job: Job) -> Record:
    with Clock(job.work_dir / "wall_seconds") as clock:
        try:
            outcome = runner(sweep.board.task).train(job)
        except WorkError as error:
            if isinstance(error.__cause__, OSError):  # a full disk would fail the next rows too
                raise
            return _failed(sweep, job, error, clock.seconds)
        return record_of(sweep.board, job, outcome, clock.seconds)


def record_of(board: Board, job: Job, outcome: Outcome, wall_seconds: float) -> Record:
    """The record of a finished row."""
    return Record(
        status="done",
        **_identity(board, job),
        data_checksum=outcome.data_checksum,
        split=outcome.split,
        protocol=outcome.protocol,
        config_sha256=hashlib.sha256(outcome.config.encode()).hexdigest(),
        epochs=outcome.epochs,
        main_metric=outcome.main_metric,
        metrics=outcome.metrics,
        untrained=outcome.untrained,
        cost=outcome.cost,
        checkpoint_sha256=sha256_file(outcome.checkpoint),
        predictions=_kept(outcome.predictions),
        wall_seconds=wall_seconds,
        details={
            "num_classes": outcome.num_classes,
            "checkpoint": outcome.checkpoint.name,
            **outcome.details,
        },
    )


def _kept(path: Path | None) -> KeptFile | None:
    return path and KeptFile(file=path.name, sha256=sha256_file(path))


def _failed(sweep: Sweep, job: Job, error: WorkError, wall_seconds: float) -> Record:
    return Record(
        status="failed",
        error=str(error),
        **_identity(sweep.board, job),
        data_checksum=sweep.dataset.checksum(job.data_root),
        split="",
        protocol="",
        config_sha256=None,
        epochs=0,
        main_metric=next(iter(sweep.board.metrics)),
        metrics={},
        untrained=None,
        cost={},
        checkpoint_sha256=None,
        wall_seconds=wall_seconds,
    )


def _identity(board: Board, job: Job) -> dict[str, Any]:
    import backbones

    return dict(
        board=board.name,
        dataset=job.dataset,
        backbone=job.backbone,
        **backbones.describe(job.backbone),
        recipe=job.recipe,
        cfg_options=dict(job.cfg_options),
        seed=job.seed,
        code=code_version(),
        environment=environment(board.task),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
