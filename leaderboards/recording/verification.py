"""What can be re-checked of a record without training again; ``docs/records.md`` says what it proves."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError, OnebitError
from onebit.commons.file_options import Schema, StatedOptions, up_to
from onebit.commons.files import read_small, sha256_file
from onebit.commons.task import Job, Outcome
from onebit.leaderboards.boards import ALL, runner
from onebit.leaderboards.recording import trust
from onebit.leaderboards.recording.file_options import without_files
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import LARGEST, canonical
from onebit.leaderboards.running.environment import code_version

#: How far a metric may be from the recorded one. From kept predictions it is computed anew from
#: the same numbers; a network that runs again on other hardware, or with another number of threads,
#: puts out other last digits, and a few images change sides.
PREDICTIONS_TOLERANCE = 1e-9
CHECKPOINT_TOLERANCE = 2e-3
#: On the machine that trained a row the same seed gives it again to the last digit; another processor adds in
#: another order, and a training carries that on: there a row that differs by more is no forgery yet.
RETRAINED_TOLERANCE = 2e-3
#: The share of the kept predictions that the checkpoint must put out again, whatever its metrics.
AGREEMENT = 0.99
#: More than any machine that trains here; a record may claim any number.
MOST_THREADS = 256
#: A dataset without objects of a size has no AP of it.
_BY_SIZE = ("APs", "APm", "APl")


def form_problems(path: Path) -> list[str]:
    """Whether the file has exactly the bytes that were written for its content."""
    text = path.read_bytes()
    if text != canonical(json.loads(text)):
        return ["its bytes are not those it was written with, though its values are"]
    return []


def _described(record: Record) -> dict[str, Any]:
    """What the network of a record is: its name's, or what its options made of it.

    A row that failed is described by its name: it may have had no network.

    Raises:
        InputError: there is no such network.
    """
    from onebit.backbones.cells.genotype import Genotype

    if record.status != "done":
        return _description(record.backbone, "{}")
    try:
        options = _network_options(_stated(record))
        if "search" in record.details:  # the cell's file lay in the work folder
            options["cell"] = Genotype.from_dict(record.details["search"]["genotype"]).to_dict()
        name = options.pop("name", record.backbone)
        return _description(name, json.dumps(options, sort_keys=True))
    except InputError:
        raise
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"{record.backbone} takes no options {record.cfg_options}: {error}") from error


@functools.cache
def _description(backbone: str, options: str) -> dict[str, Any]:
    from onebit import backbones

    return backbones.describe(backbone, **json.loads(options))


def _network_options(stated: StatedOptions) -> dict[str, Any]:
    """Those of a row's options that are arguments of its backbone, in every task's spelling."""
    from onebit.backbones.file_schema import network_kinds, network_wholes

    backbone = r"model\.backbone(_options)?\."
    schema = Schema(
        {r"model\.last_stride": up_to(2), **network_kinds(backbone)},
        network_wholes(backbone),
        unused=(r"model\.(?!backbone)",),  # of what else the task builds
    )
    options = stated.taken(schema, below="model")
    if not options:
        return {}
    from mmengine.config import Config

    cfg = Config()
    cfg.merge_from_dict(dict(options))
    model = cfg.to_dict().get("model", {})
    found = {**model.get("backbone", {}), **model.get("backbone_options", {})}
    if "last_stride" in model:
        found["last_stride"] = model["last_stride"]
    return found


def problems(record: Record, work_root: Path) -> list[str]:
    """What does not hold in ``record``, as sentences; empty when it is sound.

    The backbone must still mean what it meant, dataset and metrics must be the board's, and where
    the row's checkpoint or predictions lie in ``work_root`` they must be those that were scored.
    """
    found = []
    board = ALL.get(record.board)
    try:
        if board is None:
            found.append(f"there is no board {record.board}")
        elif get_dataset(record.dataset).board != record.board:
            found.append(f"dataset {record.dataset} does not belong to board {record.board}")
        elif record.main_metric not in board.metrics:
            found.append(
                f"main_metric is {record.main_metric!r}, but board {record.board} has {', '.join(board.metrics)}"
            )
        # An imported row has the name that a user gave it.
        described = _described(record) if record.origin == "trained" else {}
    except InputError as error:
        return [*found, str(error)]
    if board and record.status == "done":
        missing = [m for m in board.metrics if m not in record.metrics and m not in _BY_SIZE]
        if missing:
            found.append(f"metrics of board {record.board} are missing: {', '.join(missing)}")
    for key, value in {"cell": None, **described}.items():
        if key == "cell" and record.cell is None:  # records of version 1 did not name it
            continue
        if key == "cell" and "search" in record.details:  # it is named after its file
            continue
        if getattr(record, key) != value:
            found.append(f"{key} is {getattr(record, key)!r}, but {record.backbone} has {value!r}")
    return found + _changed_files(record, work_root)


def _changed_files(record: Record, work_root: Path) -> list[str]:
    found = []
    for what, (path, sha256) in kept_files(record, work_root).items():
        if path.is_file() and hash_of(record, what, path) != sha256:
            verb = ("are", "were") if what == "predictions" else ("is", "was")
            found.append(f"{path} {verb[0]} not the {what} that {verb[1]} scored (SHA-256 differs)")
    return found


def hash_of(record: Record, what: str, path: Path) -> str | None:
    """SHA-256 of a kept ``checkpoint`` or ``predictions``, as the record states it; None of what has no weights."""
    if what != "checkpoint" or record.checkpoint_hash == "file":
        return sha256_file(path)
    from onebit.commons.checkpoints import weights_sha256  # imports torch

    try:
        return weights_sha256(path)
    except InputError:
        return None


def missing_files(record: Record, work_root: Path) -> list[str]:
    """Those of checkpoint and predictions that the record names, or should name, and that are not there."""
    files = kept_files(record, work_root)
    needed = ["predictions"] if record.origin == "imported-predictions" else ["checkpoint", *files]
    return [what for what in dict.fromkeys(needed) if what not in files or not files[what][0].is_file()]


def kept_files(record: Record, work_root: Path) -> dict[str, tuple[Path, str | None]]:
    """Checkpoint and predictions of a row: where they should lie, and their SHA-256.

    Raises:
        InputError: one of them is a link out of the row's work folder.
    """
    folder = work_root / Path(record.file_name()).stem
    named = {}
    if record.details.get("checkpoint"):
        named["checkpoint"] = record.details["checkpoint"], record.checkpoint_sha256
    if record.predictions:
        named["predictions"] = record.predictions.file, record.predictions.sha256
    found = {}
    for what, (name, sha256) in named.items():
        path = folder / name
        if path.resolve().parent != folder.resolve():
            raise InputError(f"{path} leads out of its folder, to {path.resolve()}")
        found[what] = path, sha256
    return found


def data_problems(record: Record, data_root: Path, full: bool = False) -> list[str]:
    """Whether the dataset below ``data_root`` is the one of the record.

    Args:
        full: read every byte again instead of trusting sizes and times that are known.

    Raises:
        InputError: it is missing.
    """
    now = get_dataset(record.dataset).checksum(data_root, cached=not full)
    if now != record.data_checksum:
        return [f"data_checksum is {record.data_checksum}, but {record.dataset} below {data_root} has {now}"]
    return []


def rescore(
    record: Record, work_root: Path, data_root: Path, tolerance: float | None = None
) -> tuple[list[str], list[str]]:
    """Compute the metrics of a row again, from its predictions and from its checkpoint.

    Where the predictions give the metrics and the checkpoint the predictions, ``re-scored`` is remembered of it.

    Args:
        tolerance: in place of :data:`PREDICTIONS_TOLERANCE` and :data:`CHECKPOINT_TOLERANCE`.

    Returns:
        what does not hold, and what was computed, as sentences.
    """
    if record.status == "failed":
        return [], ["a failed row has nothing to score"]
    task = runner(ALL[record.board].task)
    if changed := _changed_files(record, work_root):
        return changed, []
    kept = {what: path for what, (path, _) in kept_files(record, work_root).items()}
    if record.origin != "trained":
        kept.pop("checkpoint", None)  # another program's: only its predictions are ours to score
    elif record.checkpoint_sha256 is None or "checkpoint" not in kept:
        return ["cannot be scored again: it names no checkpoint"], []
    wrong = [f"{what} cannot be scored again: {p} is missing" for what, p in kept.items() if not p.is_file()]
    wrong += [] if kept else ["cannot be scored again: no predictions were kept"]
    done: list[str] = []
    for what, path in kept.items():
        if not path.is_file():
            continue
        limit = PREDICTIONS_TOLERANCE if what == "predictions" else CHECKPOINT_TOLERANCE
        limit = limit if tolerance is None else tolerance
        # Elsewhere, so that nothing that a hash of the record covers can be overwritten.
        with tempfile.TemporaryDirectory() as folder:
            again = task.score_predictions if what == "predictions" else task.test
            try:
                outcome = again(path, _job(record, data_root, Path(folder)))
                differences = _differences(record, outcome, limit, scored=what)
                if what == "checkpoint" and outcome.predictions and _is_file(kept.get("predictions")):
                    differences += _disagreement(task.agreement(kept["predictions"], outcome.predictions))
            except Exception as error:  # a forged file can make a library raise anything
                wrong.append(f"{what} cannot be scored: {_first_line(error)}")
                continue
        wrong += [f"{what}: {d}" for d in differences]
        if not differences:
            shown = ", ".join(f"{k} {v:.4f}" for k, v in sorted(outcome.metrics.items()))
            left_out = outcome.details.get("options_left_out")
            without = f"; the config was not compared: {', '.join(left_out)}" if left_out else ""
            done.append(f"{what}: {shown} (tolerance {limit:g}){without}")
    if not wrong and record.origin != "trained":
        done.append("what put these predictions out is its importer's word")
    elif not wrong and tolerance is None:
        trust.remember(record, "re-scored")
    return wrong, done


def retrain(record: Record, data_root: Path, tolerance: float | None = None) -> tuple[list[str], list[str]]:
    """Train a row again as its record says, and compare all that comes out; see :func:`rescore`.

    A config of another text is wrong at the commit that trained the row; later ones may name more options in it.
    One process and as many threads as the record states: sums of floats depend on how they are split.

    Args:
        tolerance: in place of :data:`RETRAINED_TOLERANCE`.

    Raises:
        InputError: it was not trained here, or not from what the record alone tells.
    """
    import torch

    if record.status != "done" or record.origin != "trained":
        raise InputError(f"{record.path} cannot be trained again: it is {record.status}, {record.origin}")
    if without_files(record.cfg_options) != record.cfg_options:
        raise InputError(f"{record.path} cannot be trained again from itself: its options name a file")
    if left_out := _job(record, data_root, Path()).recorded.left_out:
        raise InputError(f"{record.path} cannot be trained again: no file may set {', '.join(left_out)}")
    limit = RETRAINED_TOLERANCE if tolerance is None else tolerance
    threads = torch.get_num_threads()
    torch.set_num_threads(min(max(record.environment.threads, 1), MOST_THREADS))
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = runner(ALL[record.board].task).train(_job(record, data_root, Path(folder) / "row"))
    finally:
        torch.set_num_threads(threads)
    wrong = _differences(record, outcome, limit, scored="checkpoint")
    notes = [w for w in wrong if w.startswith("config_sha256") and record.code.commit != code_version().commit]
    wrong = [w for w in wrong if w not in notes]
    for name, said in (record.untrained or {}).items():
        now = (outcome.untrained or {}).get(name)
        if now is None or not math.isclose(said, now, rel_tol=0, abs_tol=limit):
            wrong.append(f"{name} of the untrained network is {said} in the record and {now} now (tolerance {limit:g})")
    if wrong:
        return [f"trained again: {w}" for w in wrong], []
    if tolerance is None:
        trust.remember(record, "re-trained")
    exactly = "to the last digit" if record.metrics == outcome.metrics else f"(tolerance {limit:g})"
    shown = ", ".join(f"{k} {v:.4f}" for k, v in sorted(outcome.metrics.items()))
    note = f"; the text of its config is another than at commit {str(record.code.commit)[:12]}" if notes else ""
    return [], [f"trained again: {shown} {exactly}{note}"]


def _job(record: Record, data_root: Path, work_dir: Path) -> Job:
    """What a record asks for; of an imported row only the predictions are known, not what made them."""
    trained = record.origin == "trained"
    return Job(
        dataset=record.dataset,
        backbone=record.backbone if trained else "",
        recipe=record.recipe if trained else "",
        seed=record.seed,
        data_root=data_root,
        work_dir=work_dir,
        recorded=_stated(record).taken(runner(ALL[record.board].task).FILE_OPTIONS),
    )


def _stated(record: Record) -> StatedOptions:
    return StatedOptions(without_files(record.cfg_options), "the record")


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _disagreement(share: float) -> list[str]:
    if share >= AGREEMENT:
        return []
    return [f"it gives only {share:.4f} of the kept predictions (at least {AGREEMENT:g} is asked for)"]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, OnebitError) else f"{type(error).__name__}: {lines[0]}"


def _differences(record: Record, outcome: Outcome, limit: float, scored: str) -> list[str]:
    found = []
    for name in sorted({*record.metrics, *outcome.metrics}):
        said, now = record.metrics.get(name), outcome.metrics.get(name)
        if said is None or now is None or not math.isclose(said, now, rel_tol=0, abs_tol=limit):
            found.append(f"{name} is {said} in the record and {now} now (tolerance {limit:g})")
    keys = ["main_metric", "protocol", "data_checksum"]
    if record.origin == "trained":  # what an imported row was trained on is its importer's word
        keys.append("split")
    if scored == "checkpoint":
        keys += ["cost", "epochs"]
    for key in keys:
        said, now = getattr(record, key), getattr(outcome, key)
        # A record's values have been through JSON: tuples became lists.
        if json.dumps(said, sort_keys=True) != json.dumps(now, sort_keys=True):
            found.append(f"{key} is {said!r} in the record and {now!r} now")
    if scored == "checkpoint" and "options_left_out" not in outcome.details:
        now = hashlib.sha256(outcome.config.encode()).hexdigest()
        if record.config_sha256 != now:
            found.append(f"config_sha256 is {record.config_sha256} in the record and {now} by the recipe of now")
    said = record.details.get("num_classes")
    if said != outcome.num_classes:
        found.append(f"details.num_classes is {said} in the record and {outcome.num_classes} now")
    return found


def table_problems(path: Path, records: Path) -> list[str]:
    """Whether a CSV table holds what follows from the records, and nothing else.

    Its column ``trust`` may claim at most what is established here.
    """
    from onebit.leaderboards.showing.tables import get_table

    try:
        table = get_table(path.stem)
        expected = table.csv(table.lines(table.load(records)))
    except InputError as error:
        return [str(error)]
    text = read_small(path, LARGEST).decode(errors="replace")
    claims = [row.get("trust") or "" for row in csv.DictReader(io.StringIO(text))]
    ours = list(csv.DictReader(io.StringIO(expected)))
    if len(claims) == len(ours):
        for number, (claim, row) in enumerate(zip(claims, ours, strict=True), start=1):
            if claim != row["trust"] and not trust.parse(row["trust"]).covers(claim):
                return [f"line {number} claims trust {claim!r}, but {row['trust'] or 'none'} is established here"]
            row["trust"] = claim  # less than is established here is no falsehood
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(ours[0]) if ours else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(ours)
        expected = stream.getvalue() if ours else expected
    if text != expected:
        return ["it does not follow from the records; `onebit bench` and `onebit table --format csv` write it"]
    return []
