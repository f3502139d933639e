"""Train and score the rows of a board that are missing, one record each."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from onebit.commons.datasets import Dataset
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import disk_error_message, remove_stale, sha256_file, write_atomic
from onebit.commons.task import Job, Outcome, recipe_file
from onebit.leaderboards.boards import Board, runner
from onebit.leaderboards.recording.file_options import for_record
from onebit.leaderboards.recording.record import KeptFile, Record, options_tag, row_name
from onebit.leaderboards.recording.run_file import now
from onebit.leaderboards.running import pools
from onebit.leaderboards.running.clock import Clock
from onebit.leaderboards.running.environment import code_version, environment
from onebit.leaderboards.running.locks import holding

OVERWRITE = ("only-missing", "always", "never")
#: (backbone, seed)
Row = tuple[str, int]
#: A row that failed left its traceback here, in its work folder.
FAILURE_LOG = "failure.log"
#: In a work folder: the row is not done. Holds the hash of the record that a rerun will replace.
_UNFINISHED = "unfinished"
#: Errors that the next rows would meet too.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class Sweep:
    """What `onebit bench` was asked for.

    Attributes:
        out: the leaderboard folder; records go to ``out/records``, tables to ``out/tables``.
        overwrite: ``only-missing`` skips finished rows, ``always`` runs all of them afresh,
            ``never`` refuses to start when one exists.
        retry_failed: run rows again whose record says that they failed.
        workers: rows that run at the same time.
        details: what goes into the details of every record besides.
        slurm: run rows as jobs on Slurm with these options, see
            :func:`onebit.leaderboards.running.pools.slurm_parameters`; None runs them here.
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
    slurm: Mapping[str, str] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> Path:
        return self.out / "records"

    @cached_property
    def recorded_options(self) -> dict[str, Any]:
        """``cfg_options`` as records have them."""
        return for_record(self.cfg_options)

    def rows(self) -> list[Row]:
        """(backbone, seed) of every row, each once however often it was named."""
        return list(dict.fromkeys((b, seed) for b in self.backbones for seed in self.seeds))

    def row_name(self, backbone: str, seed: int) -> str:
        return row_name(self.dataset.name, backbone, self.recipe, options_tag(self.recorded_options), seed)

    def record_path(self, backbone: str, seed: int) -> Path:
        return self.records / self.board.name / f"{self.row_name(backbone, seed)}.json"


def check(sweep: Sweep) -> tuple[dict[Row, Record], dict[Row, Record | None]]:
    """Find what is wrong before the first row is trained.

    Returns:
        the records of finished rows; and the rows that have to run, each with the record that it
        has already.

    Raises:
        InputError: missing dataset, unknown backbone or recipe, records in the way.
    """
    recipe_file(sweep.board.task, sweep.recipe)
    # All of the board: a broken record must not show up hours later, when the table is made.
    present = {r.file_name(): r for r in Record.load_all(sweep.records, sweep.board.name)}
    found = {row: present.get(sweep.record_path(*row).name) for row in sweep.rows()}
    if sweep.overwrite == "never":
        for row, record in found.items():
            if record:
                raise InputError(f"{sweep.record_path(*row)} exists and --overwrite never was asked for")
    finished = {row: record for row, record in found.items() if _finished(sweep, record)}
    missing = {row: record for row, record in found.items() if row not in finished}
    if missing:
        from onebit import backbones  # not before: a finished board costs no import of torch

        for backbone in dict.fromkeys(backbone for backbone, _ in missing):
            backbones.describe(backbone)
            if "/" in backbone:
                raise InputError(f"{backbone}: a row's backbone has a plain name; run from the folder of the cell file")
        sweep.dataset.find(sweep.data_root)
    return finished, missing


def _finished(sweep: Sweep, record: Record | None) -> bool:
    if record is None or sweep.overwrite == "always":
        return False
    return record.status == "done" or not sweep.retry_failed


def bench(sweep: Sweep) -> Iterator[tuple[Record, bool]]:
    """Yield every row's record and whether it was run now (else: found finished).

    A row that fails yields, and leaves, a record that says why; the next rows still run. A full
    disk or an interrupt ends the sweep; the same call goes on where it stopped. Several sweeps may
    fill one board at the same time: each row runs in one of them. Rows that another sweep is
    running come last; with several workers, finished rows come first and the others as they end.
    """
    finished, missing = check(sweep)
    in_order = sweep.workers == 1 and sweep.slurm is None
    if in_order:  # rows are claimed one by one: finished ones are named where they stand
        rows = sweep.rows()
    else:
        yield from ((record, False) for record in finished.values())
        rows = list(missing)
    busy = []
    for row, result in _run(sweep, rows, finished, missing, wait=False):
        if result is None:
            busy.append(row)
        else:
            yield result
    if busy:
        print(f"waiting for {len(busy)} row(s) that another bench is running", file=sys.stderr)
    for _, result in _run(sweep, busy, finished, missing, wait=True):
        yield result


def _run(
    sweep: Sweep, rows: list[Row], finished: dict[Row, Record], missing: dict[Row, Record | None], wait: bool
) -> Iterator[tuple[Row, tuple[Record, bool] | None]]:
    """Claim rows in turn, in processes, or on Slurm; see :func:`claim_row` for the results."""
    if sweep.slurm is None and sweep.workers == 1:
        for row in rows:
            yield row, (finished[row], False) if row in finished else claim_row(sweep, row, missing[row], wait)
        return
    if not rows:
        return
    calls = [(sweep, row, missing[row], wait) for row in rows]
    if sweep.slurm is not None:
        logs = (sweep.work_root / "slurm").resolve()
        results = pools.on_slurm(claim_row, calls, sweep.workers, sweep.slurm, logs)
    else:
        results = pools.in_processes(claim_row, calls, sweep.workers)
    with contextlib.closing(results):
        for index, result in results:
            yield rows[index], result


def claim_row(sweep: Sweep, row: Row, before: Record | None, wait: bool) -> tuple[Record, bool] | None:
    """Run a row unless another process does.

    Args:
        before: the record that the row had when the sweep began. Another one means that another
            process has run the row since.
        wait: for a process that runs the row now.

    Returns:
        the record and whether the row was run here; None where another process is running it.
    """
    path = sweep.record_path(*row)
    with contextlib.ExitStack() as locks:
        # Two locks: sweeps may share records, or work folders, or both.
        for target in (path, sweep.work_root / sweep.row_name(*row)):
            if not locks.enter_context(holding(target, wait)):
                return None
        remove_stale(path.parent, path.name)
        now = Record.load(path) if path.exists() else None
        if now is not None and now != before:
            return now, False
        return run_row(sweep, *row), True


def run_row(sweep: Sweep, backbone: str, seed: int) -> Record:
    """Train and score one row, resuming it if an earlier call was interrupted; save its record.

    Nobody else may be running it: see :func:`claim_row`.
    """
    path = sweep.record_path(backbone, seed)
    work_dir = sweep.work_root / sweep.row_name(backbone, seed)
    marker = work_dir / _UNFINISHED
    replaced = sha256_file(path) if path.exists() else ""
    interrupted = marker.exists() and marker.read_text() == replaced
    if replaced and not interrupted:
        # The row had ended: --overwrite always and --retry-failed start afresh.
        shutil.rmtree(work_dir, ignore_errors=True)
    remove_stale(work_dir, deep=True)
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
    write_atomic(marker, replaced)
    try:
        record = _timed(sweep, job)
    except InputError:
        if not job.resume:  # nothing was trained: leave nothing behind
            shutil.rmtree(work_dir, ignore_errors=True)
        raise
    record.save(sweep.records)
    marker.unlink()
    return record


def _timed(sweep: Sweep, job: Job) -> Record:
    with Clock(job.work_dir / "wall_seconds") as clock:
        try:
            outcome = runner(sweep.board.task).train(job)
            outcome.details = {**outcome.details, **sweep.details}
            return record_of(sweep.board, job, outcome, clock.seconds)
        except InputError:
            raise
        except WorkError as error:
            if isinstance(error.__cause__, OSError):  # a full disk would fail the next rows too
                raise
            return _failed(sweep, job, error, clock.seconds)
        except Exception as error:  # whatever a library raises is this row's failure only
            full = _disk_error(error)
            if full:
                raise WorkError(disk_error_message(full, full.filename or job.work_dir)) from error
            return _failed(sweep, job, error, clock.seconds)


def _disk_error(error: BaseException | None) -> OSError | None:
    """The full disk behind ``error``, if that is what ended the row."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__
    return None


def _reason(error: Exception) -> str:
    """One line: our own errors as they stand, others by their type and first line."""
    lines = str(error).strip().splitlines()
    if isinstance(error, WorkError):
        return " ".join(lines)
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _without_folders(text: str, job: Job) -> str:
    """``text`` without where its folders lie on this machine."""
    for folder, name in ((job.work_dir, "work-dir"), (job.data_root, "data"), (Path.home(), "~")):
        for path in {str(folder.resolve()), str(folder.absolute())} - {"/"}:
            text = text.replace(path, name)
    return text


def record_of(board: Board, job: Job, outcome: Outcome, wall_seconds: float) -> Record:
    """The record of a finished row. What it says of the network is what was built."""
    details = dict(outcome.details)
    return Record(
        status="done",
        **{**_identity(board, job), **details.pop("network", {})},
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
        details={"num_classes": outcome.num_classes, "checkpoint": outcome.checkpoint.name, **details},
    )


def _kept(path: Path | None) -> KeptFile | None:
    return path and KeptFile(file=path.name, sha256=sha256_file(path))


def _failed(sweep: Sweep, job: Job, error: Exception, wall_seconds: float) -> Record:
    write_atomic(job.work_dir / FAILURE_LOG, "".join(traceback.format_exception(error)))
    return Record(
        status="failed",
        error=_without_folders(_reason(error), job),
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
        details={"log": FAILURE_LOG, **sweep.details},
    )


def _identity(board: Board, job: Job) -> dict[str, Any]:
    from onebit import backbones

    return dict(
        board=board.name,
        dataset=job.dataset,
        backbone=job.backbone,
        **backbones.describe(job.backbone),
        recipe=job.recipe,
        cfg_options=for_record(job.cfg_options),
        seed=job.seed,
        code=code_version(),
        environment=environment(board.task, job.backbone, job.dataset),
        created=now(),
    )
