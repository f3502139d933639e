"""The rows of a board: trained and scored, one record each."""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import disk_error_message, sha256_file, write_atomic
from onebit.commons.task import Job, Outcome, recipe_file
from onebit.leaderboards.boards import Board, runner
from onebit.leaderboards.recording.file_options import for_record
from onebit.leaderboards.recording.record import KeptFile, Record, options_tag, row_name
from onebit.leaderboards.recording.run_file import now
from onebit.leaderboards.running.clock import Clock
from onebit.leaderboards.running.environment import code_version, environment
from onebit.leaderboards.running.sweep import Row, Sweep

#: A row that failed left its traceback here, in its work folder.
FAILURE_LOG = "failure.log"
#: Errors that the next rows would meet too.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True, kw_only=True)
class BoardSweep(Sweep[Record]):
    """Backbones to be trained for a board.

    Attributes:
        retry_failed: run rows again whose record says that they failed.
        details: what goes into the details of every record besides.
    """

    board: Board
    backbones: Sequence[str]
    recipe: str
    retry_failed: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        return self.board.name

    @property
    def names(self) -> Sequence[str]:
        return self.backbones

    @cached_property
    def recorded_options(self) -> dict[str, Any]:
        """``cfg_options`` as records have them."""
        return for_record(self.cfg_options)

    def row_name(self, name: str, seed: int) -> str:
        return row_name(self.dataset.name, name, self.recipe, options_tag(self.recorded_options), seed)

    def is_finished(self, record: Record) -> bool:
        return record.status == "done" or not self.retry_failed

    def label(self, record: Record) -> str:
        return f"{record.backbone} seed {record.seed}"

    def check(self, missing: Sequence[Row]) -> None:
        recipe_file(self.board.task, self.recipe)
        if not missing:
            return
        from onebit import backbones  # not before: a finished board costs no import of torch

        for backbone in dict.fromkeys(backbone for backbone, _ in missing):
            backbones.describe(backbone)
            if "/" in backbone:
                raise InputError(f"{backbone}: a row's backbone has a plain name; run from the folder of the cell file")
        self.dataset.find(self.data_root)

    def run(self, name: str, seed: int, work_dir: Path, resume: bool) -> Record:
        """Train and score a backbone; what fails is recorded, unless it would fail the next rows too."""
        job = Job(
            dataset=self.dataset.name,
            backbone=name,
            recipe=self.recipe,
            seed=seed,
            data_root=self.data_root,
            work_dir=work_dir,
            resume=resume,
            cfg_options=self.cfg_options,
        )
        with Clock(work_dir / "wall_seconds") as clock:
            try:
                outcome = runner(self.board.task).train(job)
                outcome.details = {**outcome.details, **self.details}
                return record_of(self.board, job, outcome, clock.seconds)
            except InputError:
                raise
            except WorkError as error:
                if isinstance(error.__cause__, OSError):  # a full disk would fail the next rows too
                    raise
                return _failed(self, job, error, clock.seconds)
            except Exception as error:  # whatever a library raises is this row's failure only
                full = _disk_error(error)
                if full:
                    raise WorkError(disk_error_message(full, full.filename or job.work_dir)) from error
                return _failed(self, job, error, clock.seconds)


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
    from onebit.commons.checkpoints import weights_sha256  # imports torch

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
        checkpoint_sha256=weights_sha256(outcome.checkpoint),
        predictions=_kept(outcome.predictions),
        wall_seconds=wall_seconds,
        details={"num_classes": outcome.num_classes, "checkpoint": outcome.checkpoint.name, **details},
    )


def _kept(path: Path | None) -> KeptFile | None:
    return path and KeptFile(file=path.name, sha256=sha256_file(path))


def _failed(sweep: BoardSweep, job: Job, error: Exception, wall_seconds: float) -> Record:
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
