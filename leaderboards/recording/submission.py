"""Are rows complete enough to stand on a leaderboard that others read?

What ``onebit verify`` finds out is whether a record is what it was; here is asked whether it says all
that somebody else needs to believe it and to repeat it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from onebit.commons import mini
from onebit.commons.datasets import OWN, Dataset, get_dataset
from onebit.commons.errors import InputError
from onebit.commons.file_options import FileOptions, StatedOptions
from onebit.commons.provenance import DISTRIBUTIONS
from onebit.commons.task import Job, recipes
from onebit.leaderboards.boards import ALL, runner
from onebit.leaderboards.recording.file_options import without_files
from onebit.leaderboards.recording.migration import SCHEMA_VERSION
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import read_content
from onebit.leaderboards.recording.trust import established
from onebit.leaderboards.recording.verification import hash_of, rescore
from onebit.leaderboards.running.environment import code_version

#: The level of trust that a row needs.
ASKED = "re-scored"


@dataclass(frozen=True)
class Rules:
    """What is asked of rows.

    Attributes:
        seeds: how many a line must have; 1 where no claim is made.
        development: let rows on mini and development data pass.
        files: folder of work folders with checkpoints and predictions to hash, or None.
        data_root: where datasets are, whose checksums count as known, or None.
    """

    seeds: int = 3
    development: bool = False
    files: Path | None = None
    data_root: Path | None = None


@dataclass
class Verdict:
    """About one row.

    Attributes:
        path: of the record.
        missing: what keeps it from being accepted.
        notes: what a reviewer should look at.
    """

    path: Path
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(paths: Iterable[Path], rules: Rules) -> list[Verdict]:
    """One verdict per record, in their order."""
    verdicts, rows = [], []
    checksums: dict[str, str | None] = {}
    for path in paths:
        verdict = Verdict(Path(path))
        verdicts.append(verdict)
        try:
            record = Record.load(path)
            version = read_content(Path(path))["schema_version"]
        except InputError as error:
            verdict.missing.append(str(error))
            continue
        rows.append((record, verdict))
        if version != SCHEMA_VERSION:
            verdict.missing.append(f"schema version {version}, current is {SCHEMA_VERSION}: run the row again")
        if record.status != "done":
            verdict.missing.append(f"the row failed: {record.error}")
            continue
        _check_data(record, verdict, rules, checksums)
        _check_provenance(record, verdict)
        _check_backbone(record, verdict)
        _check_recipe(record, verdict, rules)
        _check_files(record, verdict, rules)
        _check_trust(record, verdict, rules)
    _check_seeds(rows, rules.seeds)
    return verdicts


def _dataset(record: Record) -> Dataset | None:
    try:
        return get_dataset(record.dataset)
    except InputError:
        return None


def _check_data(record: Record, verdict: Verdict, rules: Rules, checksums: dict[str, str | None]) -> None:
    dataset = _dataset(record)
    if dataset is None:
        verdict.missing.append(f"dataset {record.dataset} is not one of the suite's")
        return
    if record.board not in ALL or dataset.board != record.board:
        verdict.missing.append(f"dataset {record.dataset} does not belong to board {record.board}")
        return
    if dataset.board in OWN:
        verdict.missing.append(f"{dataset.name} is data of somebody's own")
    elif dataset.kind != "real":
        kind = "a drawn mini dataset" if dataset.kind == "drawn" else "development data"
        text = f"{dataset.name} is {kind}: not comparable with published numbers"
        (verdict.notes if rules.development else verdict.missing).append(text)
    if dataset.name not in checksums:
        checksums[dataset.name] = _known_checksum(dataset, rules.data_root)
    known = checksums[dataset.name]
    if known is None:
        verdict.missing.append(
            f"the data cannot be compared: no checksum of {dataset.name} is known here; name a "
            f"folder that holds it with --data"
        )
    elif record.data_checksum != known:
        verdict.missing.append(f"the data differ: checksum {record.data_checksum[:24]}..., known is {known[:24]}...")
    lacking = [m for m in ALL[record.board].metrics if m not in record.metrics]
    if lacking:
        verdict.notes.append(f"without {', '.join(lacking)}")


def _known_checksum(dataset: Dataset, data_root: Path | None) -> str | None:
    if data_root is not None:
        try:
            return dataset.checksum(data_root)
        except InputError:
            pass  # not there: what is known without it counts
    if dataset.draw:
        with tempfile.TemporaryDirectory() as folder:
            list(mini.write(Path(folder), [dataset.name]))
            return dataset.checksum(folder)
    return dataset.known_checksum


def _check_provenance(record: Record, verdict: Verdict) -> None:
    add = verdict.missing.append
    if record.code.commit is None:
        add("code: no commit; run it from a git checkout")
    elif record.code.dirty is not False:
        add(f"code: commit {record.code.commit[:12]} with local changes")
    environment = record.environment
    task = runner(ALL[record.board].task) if record.board in ALL else None
    lacking = [name for name in task.PACKAGES if not environment.versions.get(name)] if task else []
    if lacking:
        add(f"environment: no version of {', '.join(lacking)}")
    if not environment.device.strip():
        add("environment: no device")
    if environment.threads < 1:
        add("environment: no number of threads")
    if task and task.operators() and not environment.operators:
        add("environment: not said whose NMS and RoIAlign were used")
    if record.origin == "trained":
        if record.untrained is None and _scores_untrained(record):
            add("no score of the untrained network")
        if record.wall_seconds <= 0:
            add("no wall time")
        if record.epochs < 1:
            add("no epochs")
    else:
        verdict.notes.append(f"{record.origin}: this suite scored it and did not train it")
    if record.origin != "imported-predictions":
        conventions = {"strict", ALL[record.board].paper_convention if record.board in ALL else "strict"}
        lacking = sorted(conventions - record.cost.keys())
        if lacking:
            add(f"no cost under {', '.join(lacking)}")


def _recipe_path(record: Record) -> Path | None:
    if record.board not in ALL:
        return None
    return recipes(ALL[record.board].task).get(record.recipe)


def _scores_untrained(record: Record) -> bool:
    """Whether the recipe has the untrained network scored, options included."""
    from mmengine.config import Config

    path = _recipe_path(record)
    recipe = Config.fromfile(path) if path else {}
    value = record.cfg_options.get("score_untrained", recipe.get("score_untrained", True))
    return bool(value)


def _check_backbone(record: Record, verdict: Verdict) -> None:
    from onebit import backbones

    if record.origin == "imported-predictions":
        return
    stated = {
        name: version
        for name, version in record.environment.versions.items()
        if name not in DISTRIBUTIONS and name != "python"
    }
    try:
        packages = backbones.foreign_packages(record.backbone)
    except InputError as error:
        if record.origin == "imported-checkpoint":
            return  # its name is whatever the user gave it
        text = ", ".join(f"{name} {version}" for name, version in stated.items())
        if not stated:
            verdict.missing.append(
                f"backbone {record.backbone} is not this suite's, and no package and version it "
                f"comes from is stated ({error})"
            )
        elif "unknown" in stated.values():
            verdict.missing.append(f"the version of the backbone's package is not stated: {text}")
        else:
            verdict.notes.append(f"backbone from {text}, which is not installed here")
        return
    for name in packages:
        version = stated.get(name)
        if version in (None, "unknown"):
            verdict.missing.append(f"backbone from package {name}, whose version is not stated")
        else:
            verdict.notes.append(f"backbone from {name} {version}")


def _check_recipe(record: Record, verdict: Verdict, rules: Rules) -> None:
    if record.origin != "trained":
        return
    if record.config_sha256 is None:
        verdict.missing.append("no hash of the config that ran")
    if record.cfg_options:
        options = " ".join(f"{key}={value}" for key, value in sorted(record.cfg_options.items()))
        verdict.notes.append(f"recipe {record.recipe} with {options}")
    if without_files(record.cfg_options) != record.cfg_options:
        verdict.notes.append("the config cannot be built here to compare: it names a file")
        return
    if _recipe_path(record) is None:
        verdict.missing.append(f"{record.recipe} is no recipe of this suite")
        return
    stated = StatedOptions(record.cfg_options, "the record")
    try:
        recorded = stated.taken(runner(ALL[record.board].task).FILE_OPTIONS)
    except InputError as error:
        verdict.missing.append(str(error))
        return
    if recorded.left_out:
        verdict.notes.append(f"the config cannot be built here to compare: {', '.join(recorded.left_out)}")
        return
    found = _config_of(record, recorded, rules.data_root)
    if found is None or record.config_sha256 is None:
        return
    text, epochs = found
    if hashlib.sha256(text.encode()).hexdigest() != record.config_sha256:
        same_code = record.code.commit == code_version().commit
        (verdict.missing if same_code else verdict.notes).append(
            f"recipe {record.recipe} and the options listed give another config here than the one "
            f"that ran" + ("" if same_code else f", at commit {str(record.code.commit)[:12]}")
        )
    if epochs != record.epochs:
        verdict.missing.append(f"trained {record.epochs} of {epochs} epochs")


def _config_of(record: Record, recorded: FileOptions, data_root: Path | None) -> tuple[str, int] | None:
    """The config's text as this checkout builds it, and its epochs; None where that takes data."""
    dataset = _dataset(record)
    if dataset is None:  # which is said elsewhere
        return None
    job = Job(
        dataset=record.dataset,
        backbone=record.backbone,
        recipe=record.recipe,
        seed=record.seed,
        data_root=data_root or Path(),
        work_dir=Path(),
        recorded=recorded,
    )
    try:
        return runner(dataset.task).config_of(job, dataset.find(data_root) if data_root else None)
    except InputError:
        return None  # an unknown backbone is said elsewhere


def _check_files(record: Record, verdict: Verdict, rules: Rules) -> None:
    kept: list[tuple[str, str | None, str | None]] = []
    if record.origin != "imported-predictions":
        kept.append(("checkpoint", record.details.get("checkpoint"), record.checkpoint_sha256))
    if record.predictions:
        kept.append(("predictions", record.predictions.file, record.predictions.sha256))
    else:
        verdict.missing.append("no hash of the kept predictions")
    folder = rules.files and rules.files / Path(record.file_name()).stem
    for what, name, sha256 in kept:
        if sha256 is None:
            verdict.missing.append(f"no hash of the {what}")
        elif folder is not None:
            if not name or not (folder / name).is_file():
                verdict.missing.append(f"{what}: expected {folder / (name or '(not named)')}")
            elif hash_of(record, what, folder / name) != sha256:
                verdict.missing.append(f"{what}: {folder / name} is another file (SHA-256 differs)")


def _check_trust(record: Record, verdict: Verdict, rules: Rules) -> None:
    """Score the row again where its files and data are here, and ask for what that proves."""
    known = established(record)
    if not known.reaches(ASKED) and rules.files and rules.data_root and not verdict.missing:
        verdict.missing += rescore(record, rules.files, rules.data_root)[0]
        known = established(record)
    if known.reaches(ASKED):
        verdict.notes.append(f"trust: {known}")
    elif rules.files and rules.data_root:
        verdict.missing.append(f"trust: {ASKED} is asked for, {known} is reached")
    else:
        verdict.missing.append(
            f"trust: {ASKED} is asked for, {known} is reached; name --files and --data to score it here"
        )


def _check_seeds(rows: list[tuple[Record, Verdict]], least: int) -> None:
    lines: dict[tuple, set[int]] = {}
    for record, _ in rows:
        if record.status == "done":
            lines.setdefault((record.board, *record.key[:-1], record.origin), set()).add(record.seed)
    for record, verdict in rows:
        found = lines.get((record.board, *record.key[:-1], record.origin), set())
        # What was only imported has no seed to vary.
        if record.status == "done" and record.origin == "trained" and len(found) < least:
            verdict.missing.append(
                f"{len(found)} of {least} seeds: more of the same line, or --seeds {len(found)} "
                f"if nothing is claimed from it"
            )
