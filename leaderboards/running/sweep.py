"""Rows that are missing are run, one record each: here, in several processes, or on Slurm."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from onebit.commons.datasets import Dataset
from onebit.commons.errors import InputError
from onebit.commons.files import remove_stale, sha256_file, write_atomic
from onebit.leaderboards.recording.kinds import record_class
from onebit.leaderboards.recording.run_file import RunFile
from onebit.leaderboards.running import pools
from onebit.leaderboards.running.locks import holding

OVERWRITE = ("only-missing", "always", "never")
#: (what it is of, seed)
Row = tuple[str, int]
#: In a work folder: the row is not done. Holds the hash of the record that a rerun will replace.
_UNFINISHED = "unfinished"
R = TypeVar("R", bound=RunFile)


@dataclass(frozen=True, kw_only=True)
class Sweep(Generic[R]):
    """What `onebit bench` was asked for. A subclass names a row, checks it and runs it.

    Attributes:
        out: the leaderboard folder; records go to ``out/records``, tables to ``out/tables``.
        overwrite: ``only-missing`` skips finished rows, ``always`` runs all of them afresh,
            ``never`` refuses to start when one exists.
        workers: rows that run at the same time.
        slurm: run rows as jobs on Slurm with these options, see
            :func:`onebit.leaderboards.running.pools.slurm_parameters`; None runs them here.
    """

    dataset: Dataset
    seeds: Sequence[int]
    data_root: Path
    out: Path
    work_root: Path
    overwrite: str = "only-missing"
    workers: int = 1
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    slurm: Mapping[str, str] | None = None

    @property
    def folder(self) -> str:
        """The name of the folder of its records."""
        raise NotImplementedError

    @property
    def names(self) -> Sequence[str]:
        """What its rows are of: backbones, or methods of search."""
        raise NotImplementedError

    def row_name(self, name: str, seed: int) -> str:
        """The stem of a row's record and the name of its work folder."""
        raise NotImplementedError

    def check(self, missing: Sequence[Row]) -> None:
        """Find what is wrong before the first of the rows that have to run.

        Raises:
            InputError: an unknown name, a missing dataset.
        """
        raise NotImplementedError

    def run(self, name: str, seed: int, work_dir: Path, resume: bool) -> R:
        """Run one row and return its record.

        Args:
            resume: ``work_dir`` holds what an interrupted call left.
        """
        raise NotImplementedError

    def is_finished(self, record: R) -> bool:
        """Whether ``only-missing`` leaves the row of a record alone."""
        return True

    def label(self, record: R) -> str:
        """A row in a few words."""
        raise NotImplementedError

    @property
    def records(self) -> Path:
        return self.out / "records"

    def rows(self) -> list[Row]:
        """Every row, each once however often it was named."""
        return list(dict.fromkeys((name, seed) for name in self.names for seed in self.seeds))

    @property
    def total(self) -> int:
        return len(self.rows())

    def record_path(self, name: str, seed: int) -> Path:
        return self.records / self.folder / f"{self.row_name(name, seed)}.json"

    def work_dir(self, name: str, seed: int) -> Path:
        return self.work_root / self.row_name(name, seed)


def check(sweep: Sweep[R]) -> tuple[dict[Row, R], dict[Row, R | None]]:
    """Find what is wrong before the first row is run.

    Returns:
        the records of finished rows; and the rows that have to run, each with the record that it
        has already.

    Raises:
        InputError: see :meth:`Sweep.check`; records in the way.
    """
    # All of the board: a broken record must not show up hours later, when the table is made.
    present = {r.file_name(): r for r in record_class(sweep.folder).load_all(sweep.records, sweep.folder)}
    found: dict[Row, Any] = {row: present.get(sweep.record_path(*row).name) for row in sweep.rows()}
    for row, record in found.items():
        if record and sweep.overwrite == "never":
            raise InputError(f"{sweep.record_path(*row)} exists and --overwrite never was asked for")
    skipped = sweep.overwrite != "always"
    finished = {row: record for row, record in found.items() if record and skipped and sweep.is_finished(record)}
    missing = {row: record for row, record in found.items() if row not in finished}
    sweep.check(list(missing))
    return finished, missing


def bench(sweep: Sweep[R]) -> Iterator[tuple[R, bool]]:
    """Yield every row's record and whether it was run now (else: found finished).

    A row of a board that fails yields, and leaves, a record that says why; the next rows still run. A full
    disk or an interrupt ends the sweep; the same call goes on where it stopped. Several sweeps may
    fill one board at the same time: each row runs in one of them. Rows that another sweep is
    running come last; with several workers, finished rows come first and the others as they end.

    Raises:
        InputError: see :func:`check`.
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
    sweep: Sweep[R], rows: list[Row], finished: dict[Row, R], missing: dict[Row, R | None], wait: bool
) -> Iterator[tuple[Row, Any]]:
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


def claim_row(sweep: Sweep[R], row: Row, before: R | None, wait: bool) -> tuple[R, bool] | None:
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
        for target in (path, sweep.work_dir(*row)):
            if not locks.enter_context(holding(target, wait)):
                return None
        remove_stale(path.parent, path.name)
        now: Any = record_class(sweep.folder).load(path) if path.exists() else None
        if now is not None and now != before:
            return now, False
        return run_row(sweep, row), True


def run_row(sweep: Sweep[R], row: Row) -> R:
    """Run one row, resuming it if an earlier call was interrupted; save its record.

    Nobody else may be running it: see :func:`claim_row`.
    """
    path, work_dir = sweep.record_path(*row), sweep.work_dir(*row)
    marker = work_dir / _UNFINISHED
    replaced = sha256_file(path) if path.exists() else ""
    interrupted = marker.exists() and marker.read_text() == replaced
    if replaced and not interrupted:
        # The row had ended: --overwrite always and --retry-failed start afresh.
        shutil.rmtree(work_dir, ignore_errors=True)
    remove_stale(work_dir, deep=True)
    resume = work_dir.exists()
    write_atomic(marker, replaced)
    try:
        record = sweep.run(*row, work_dir, resume)
    except InputError:
        if not resume and not any(work_dir.rglob("*.pth")):  # nothing was trained: leave nothing behind
            shutil.rmtree(work_dir, ignore_errors=True)
        raise
    record.save(sweep.records)
    marker.unlink()
    return record
