"""Records of what was trained, or even scored, by somebody else: they say so, and invent nothing."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import disk_error_message, sha256_file, write_atomic
from onebit.commons.task import Job, Outcome
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.file_options import for_record
from onebit.leaderboards.recording.record import KeptFile, Record, options_tag, row_name
from onebit.leaderboards.running.environment import code_version, environment

#: What stands where a trained row names its recipe.
RECIPE = "imported"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Import:
    """What the user says of an imported row; nobody else can know it.

    Attributes:
        origin: ``imported-checkpoint`` or ``imported-predictions``.
        name: stands where a row names its backbone.
        seed: tells rows of one name apart.
        trained_on: in the user's words, or empty.
        note: likewise.
    """

    origin: str
    name: str
    seed: int = 0
    trained_on: str = ""
    note: str = ""


@contextmanager
def scratch(dataset: str, data_root: Path) -> Iterator[Job]:
    """A job whose work folder lasts as long as the block."""
    with tempfile.TemporaryDirectory(prefix="onebit-import-") as folder:
        yield Job(dataset=dataset, backbone="", recipe="", seed=0, data_root=data_root, work_dir=Path(folder))


def unclaimed(what: Import, outcome: Outcome) -> Outcome:
    """The outcome with a split that does not claim to know what was trained on."""
    scored = outcome.split.split("->")[-1].strip()
    split = f"{what.trained_on or 'not stated'} -> {scored}"
    return dataclasses.replace(outcome, split=split)


def record(what: Import, board: str, job: Job, outcome: Outcome, records: Path, work_root: Path) -> tuple[Record, Path]:
    """Write the record of an imported row, and keep its predictions in the row's work folder.

    Returns:
        the record and its path.

    Raises:
        InputError: a name that a record cannot have, or a row of that name is there already.
    """
    options = for_record(job.cfg_options)
    stem = row_name(job.dataset, what.name, RECIPE, options_tag(options), what.seed)
    target = records / board / f"{stem}.json"
    if target.exists():
        raise InputError(f"{target} exists: choose another --name or --seed, or remove that record first")
    network = outcome.details.get("network", {})
    details = {k: v for k, v in outcome.details.items() if k != "network"}
    details["num_classes"] = outcome.num_classes
    if outcome.checkpoint is not None:
        details["checkpoint"] = _UNSAFE.sub("_", outcome.checkpoint.name)
    if what.note:
        details["note"] = what.note
    kept = outcome.predictions
    try:
        found = Record(
            status="done",
            origin=what.origin,
            board=board,
            dataset=job.dataset,
            data_checksum=outcome.data_checksum,
            split=outcome.split,
            protocol=outcome.protocol,
            backbone=what.name,
            binarizer=network.get("binarizer", "unknown"),
            genotype_hash=None,
            weight_bits=network.get("weight_bits"),
            activation_bits=network.get("activation_bits"),
            recipe=RECIPE,
            cfg_options=options,
            config_sha256=hashlib.sha256(outcome.config.encode()).hexdigest(),
            seed=what.seed,
            epochs=0,
            main_metric=outcome.main_metric,
            metrics=outcome.metrics,
            untrained=None,
            cost=outcome.cost,
            checkpoint_sha256=outcome.checkpoint and sha256_file(outcome.checkpoint),
            checkpoint_hash="file",
            predictions=kept and KeptFile(file=_kept_name(kept), sha256=sha256_file(kept)),
            code=code_version(),
            environment=environment(ALL[board].task, dataset=job.dataset),
            wall_seconds=0.0,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            details=details,
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        where = "--name" if where == "backbone" else where
        raise InputError(f"{where}: {first['msg']}") from error
    folder = work_root / stem
    if kept is not None:
        _copy(kept, folder / _kept_name(kept))
    write_atomic(folder / "config.py", outcome.config)
    return found, found.save(records)


def _kept_name(path: Path) -> str:
    return f"predictions{path.suffix}"


def _copy(source: Path, target: Path) -> None:
    """Put a copy of ``source`` at ``target``, whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise WorkError(disk_error_message(error, target)) from error


def report(outcome: Outcome) -> str:
    """What was scored, in lines."""
    lines = [f"protocol    {outcome.split}; {outcome.protocol}"]
    lines += [f"{name:<11} {value:.4f}" for name, value in outcome.metrics.items()]
    strict = outcome.cost.get("strict")
    if strict:
        lines.append(f"cost        {strict['memory_bits'] / 1e6:.4g} Mbit, {strict['ops'] / 1e6:.4g} M OPs (strict)")
    else:
        reason = outcome.details.get("cost_not_counted", "a file does not say what made it")
        lines.append(f"cost        unknown: {reason}")
    return "\n".join(lines)
