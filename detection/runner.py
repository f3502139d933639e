"""Train and score one row of a detection board with mmengine's Runner."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from onebit import backbones
from onebit.backbones import deploy
from onebit.commons.acceleration import compiler_errors
from onebit.commons.checkpoints import require_asked, require_classes, require_fit, require_row
from onebit.commons.datasets import Dataset, OwnBoxes, get_dataset
from onebit.commons.distributed import unwrapped
from onebit.commons.engine import (
    build_runner,
    config_text,
    latest_checkpoint,
    load_row,
    load_weights,
    loss_curve,
    score,
)
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import disk_error_message, write_atomic
from onebit.commons.task import Job, Outcome, left_out
from onebit.detection import errors, pictures, pretrained, stabilizers
from onebit.detection import predictions as prediction_files
from onebit.detection.checks import category_ids, check_dataset, classes_of, leaves
from onebit.detection.config import FILE_OPTIONS, JUDGE_OPTION, build_config, dataset_config
from onebit.detection.cost import summaries
from onebit.detection.detectors import detector_of
from onebit.detection.metrics import facts
from onebit.detection.parts import onebit_convs, parts_of
from onebit.detection.user_config import data_of


def train(job: Job) -> Outcome:
    """Train a detector with ``job.backbone`` on ``job.dataset`` and score it.

    The very network that is trained is scored before its first step too, unless the recipe says
    ``score_untrained = False``. ``resume`` goes on from the last epoch and ends where an
    uninterrupted run does. What MMDetection prints goes to ``output.log`` in the work folder.

    Raises:
        InputError: unknown name, missing or broken dataset, resume with another config.
        WorkError: the loss is not finite, or the disk is full.
    """
    dataset = get_dataset(job.dataset, task="detection")
    cfg = build_config(job, dataset.find(job.data_root).resolve())
    text = config_text(cfg)  # before MMDetection's builders write into it
    checked = _checked(dataset, cfg, ["train", "test"])
    checksum = dataset.checksum(job.data_root)
    work_dir = Path(job.work_dir)
    with output_to_log(work_dir), _threads(cfg.get("threads")), compiler_errors():
        row = {**_row(job, cfg), "data": checksum}
        runner = build_runner(cfg, row, work_dir=work_dir, resume=job.resume, defer_losses=True)
        detector = unwrapped(runner.model)
        _require_parts(detector, cfg)
        detector.init_weights()  # the runner's own call, when training starts, is then a no-op
        if "pretrained" in cfg:
            start = job.cfg_options[pretrained.OPTION]
            pretrained.load(detector.backbone, start, job.backbone)
        untrained = _score_untrained(runner, cfg, job)
        runner.train()
        dataset.require_unchanged(job.data_root, checksum)
        loop = runner.test_loop
        metrics = score(runner.model, loop.dataloader, loop.evaluator, f"{job.backbone} test")
        kept = keep_predictions(loop.evaluator, work_dir / "predictions.json")
        details = dict(
            train_images=len(runner.train_dataloader.dataset),
            loss_curve=loss_curve(runner),
            checked=checked,
            **facts(loop.evaluator.metrics[0]),
        )
        return _outcome(
            runner.model,
            cfg,
            job,
            metrics,
            latest_checkpoint(work_dir),
            text,
            untrained=untrained,
            epochs=runner.epoch,
            details=details,
            predictions=kept,
        )


def test(checkpoint: Path, job: Job, packed: bool = False) -> Outcome:  # noqa: PT028
    """Score a checkpoint that :func:`train` wrote.

    Args:
        checkpoint: the file.
        job: an empty ``dataset``, ``backbone`` or ``recipe`` is the checkpoint's own;
            ``cfg_options`` are laid over those of the checkpoint.
        packed: score what :func:`onebit.backbones.deploy` makes of the detector, on the CPU.

    Raises:
        InputError: not such a checkpoint, or one of another backbone, recipe or number of classes; missing or
            broken dataset; ``packed`` and no 1-bit network.
    """
    row, weights = load_row(checkpoint)
    if "config" in row:
        raise InputError(f"{checkpoint} was trained by a config of its own: name it with --config {row['config']}")
    if pretrained.OPTION in job.cfg_options:
        raise InputError(f"{pretrained.OPTION} is for training: {checkpoint} has its own weights")
    require_row(checkpoint, row, "dataset", "backbone", "recipe", "seed", backbone=job.backbone)
    require_asked(checkpoint, row, task="detection", backbone=job.backbone, recipe=job.recipe)
    job = replace(
        job,
        dataset=job.dataset or row["dataset"],
        backbone=row["backbone"],
        recipe=row["recipe"],
        recorded=row["cfg_options"].taken(FILE_OPTIONS, job.cfg_options),
    )
    dataset = get_dataset(job.dataset, task="detection")
    folder = dataset.find(job.data_root).resolve()
    cfg = build_config(job, folder, pretrained=row.get(pretrained.OPTION))
    require_classes(checkpoint, row, dataset.name, _classes(cfg))
    text = config_text(cfg)
    checked = _checked(dataset, cfg, ["test"])
    with output_to_log(Path(job.work_dir)), _threads(cfg.get("threads")):
        log_to(Path(job.work_dir) / "test.log")
        register_all_modules(init_default_scope=True)
        with torch.device("meta"):
            require_fit(MODELS.build(copy.deepcopy(cfg.model)), weights, checkpoint)
        detector = MODELS.build(cfg.model)
        load_weights(detector, weights, checkpoint)
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=row["seed"])
        evaluator = Evaluator([METRICS.build(cfg.test_evaluator)])
        evaluator.dataset_meta = loader.dataset.metainfo
        scored = deploy(detector) if packed else detector.to(get_device())
        metrics = score(scored, loader, evaluator, f"{job.backbone} test")
        # Not the file that training kept, which a record names by its hash.
        name = f"test_{'packed_' if packed else ''}predictions.json"
        kept = keep_predictions(evaluator, Path(job.work_dir) / name)
        details = dict(checked=checked, **facts(evaluator.metrics[0]), **left_out(job))
        return _outcome(
            detector,
            cfg,
            job,
            metrics,
            Path(checkpoint),
            text,
            predictions=kept,
            untrained=None,
            epochs=cfg.train_cfg.max_epochs,
            details=details,
        )


def score_predictions(predictions: Path, job: Job) -> Outcome:
    """Score detections in a file, whoever made them; no network is built.

    The metrics of a file that :func:`train` or :func:`test` kept are theirs to the last digit.

    Args:
        predictions: COCO results JSON; see :mod:`onebit.detection.predictions` for VOC's ids.
        job: ``backbone`` and ``recipe`` may be empty: then the dataset's config alone counts, and
            of the options only ``test_evaluator.judge``. An empty ``dataset`` is the data of ``job.config``.

    Returns:
        an outcome without checkpoint, cost and epochs: a file says nothing of them.

    Raises:
        InputError: not such a file, or one that does not fit the dataset.
    """
    dataset = get_dataset(job.dataset, task="detection") if job.dataset else None
    cfg = build_config(job, dataset.find(job.data_root).resolve()) if dataset and job.backbone else _test_data(job)
    text = config_text(cfg)
    checked = _checked(dataset, cfg, ["test"])
    with output_to_log(Path(job.work_dir)):
        log_to(Path(job.work_dir) / "test.log")
        register_all_modules(init_default_scope=True)
        source = DATASETS.build({**cfg.test_dataloader.dataset, "pipeline": []})
        metric = METRICS.build(cfg.test_evaluator)
        metrics = metric.score_file(Path(predictions), source)
        return Outcome(
            details=dict(
                checked=checked, per_class=metrics.pop("per_class"), detections=len(metric.detections), **facts(metric)
            ),
            metrics=metrics,
            untrained=None,
            main_metric=cfg.main_metric,
            epochs=0,
            split=cfg.split,
            protocol=cfg.protocol,
            data_checksum=dataset.checksum(job.data_root) if dataset else "",
            config=text,
            checkpoint=None,
            cost={},
            num_classes=len(_classes(cfg)),
            predictions=Path(predictions),
        )


def show(outcome: Outcome, job: Job, folder: Path, count: int, score: float | None = None) -> list[Path]:
    """Draw a scored row, and sum up what it gets wrong: :mod:`onebit.detection.errors` says how.

    Args:
        outcome: of :func:`train`, :func:`test` or :func:`score_predictions`.
        job: names the dataset; an empty one is the data of ``job.config``.
        folder: gets the pictures, ``confusion.png``, ``errors.txt`` and ``errors.json``.
        count: pictures of images at most; the summary is of all images.
        score: detections below it are left out, by default below 0.3.

    Returns:
        the pictures of images.

    Raises:
        InputError: missing or broken dataset.
        WorkError: the folder cannot be written.
    """
    score = 0.3 if score is None else score
    cfg = _test_data(job)
    register_all_modules(init_default_scope=True)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints while it reads
        source = DATASETS.build({**cfg.test_dataloader.dataset, "pipeline": []})
    detections = json.loads(outcome.predictions.read_bytes())
    scenes = errors.scenes(source, detections, score)
    summary = errors.summarize(scenes, errors.class_names(source), score)
    folder = Path(folder)
    paths = pictures.write_scenes(scenes, summary.classes, folder, count)
    pictures.write_confusion(summary, folder / "confusion.png")
    write_atomic(folder / "errors.txt", summary.to_text())
    write_atomic(folder / "errors.json", summary.to_json())
    return paths


def _test_data(job: Job) -> Config:
    """How the scored data of a job is read and scored: of its dataset, or of the user's own config."""
    if not job.dataset:
        return data_of(job)
    folder = get_dataset(job.dataset, task="detection").find(job.data_root).resolve()
    return dataset_config(job.dataset, folder, judge=job.options.get(JUDGE_OPTION))


def keep_predictions(evaluator: Evaluator, path: Path) -> Path | None:
    """Write what was scored last; None where the evaluator is not one of this suite's."""
    detections = getattr(evaluator.metrics[0], "detections", None)
    return None if detections is None else prediction_files.write(path, detections)


def _classes(cfg: Config) -> tuple[str, ...]:
    """The names of the classes, in the order of the labels."""
    return classes_of(next(leaves(cfg.test_dataloader.dataset)))


def _checked(dataset: Dataset | None, cfg: Config, loaders: Sequence[str]) -> dict[str, Any]:
    """What the checks found in the data, and what was met when labels of one's own were read."""
    found = check_dataset(cfg, loaders)
    return {**found, "labels": dict(dataset.counts)} if isinstance(dataset, OwnBoxes) else found


def _row(job: Job, cfg: Config) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    options = {**cfg.get("adapted", {}), **job.options}
    # By its hash: where it lay says nothing about the row.
    start = {pretrained.OPTION: cfg.pretrained.to_dict()} if options.pop(pretrained.OPTION, None) else {}
    return dict(
        cfg.row.to_dict(),
        task="detection",
        seed=job.seed,
        num_classes=cfg.num_classes,
        classes=list(_classes(cfg)),
        category_ids=category_ids(next(leaves(cfg.test_dataloader.dataset))),
        **start,
        **(dict(cfg_options=options) if options else {}),
    )


def _score_untrained(runner: Runner, cfg: Config, job: Job) -> dict[str, float] | None:
    """Score the network as it was initialized, or read what an interrupted run scored."""
    if not cfg.score_untrained:
        return None
    kept = Path(job.work_dir) / "untrained.json"
    if job.resume and latest_checkpoint(job.work_dir) and kept.exists():
        return json.loads(kept.read_text())
    loop = runner.test_loop
    metrics = score(runner.model, loop.dataloader, loop.evaluator, f"{job.backbone} untrained")
    metrics.pop("per_class")
    if is_main_process():
        write_atomic(kept, json.dumps(metrics))
    return metrics


def _outcome(
    detector: nn.Module,
    cfg: Config,
    job: Job,
    metrics: dict[str, Any],
    checkpoint: Path,
    text: str,
    *,
    untrained: dict[str, float] | None,
    epochs: int,
    details: dict[str, Any],
    predictions: Path | None,
) -> Outcome:
    per_class = metrics.pop("per_class")
    detector = unwrapped(detector)
    return Outcome(
        metrics=metrics,
        untrained=untrained,
        main_metric=cfg.main_metric,
        epochs=epochs,
        split=cfg.split,
        protocol=cfg.protocol,
        data_checksum=get_dataset(job.dataset).checksum(job.data_root),
        config=text,
        checkpoint=checkpoint,
        cost=summaries(detector, cfg),
        num_classes=cfg.num_classes,
        details={
            **details,
            "per_class": per_class,
            "detector": detector_of(detector),
            "onebit_parts": parts_of(detector),
            "onebit_convs": onebit_convs(detector),
            "network": backbones.describe(detector.backbone),
            "stabilizers": stabilizers.read(cfg),
            **({"pretrained": cfg.pretrained.to_dict()} if "pretrained" in cfg else {}),
        },
        predictions=predictions,
    )


def _require_parts(detector: nn.Module, cfg: Config) -> None:
    """Raise InputError where further options made other parts 1-bit than the row's choice says."""
    found = parts_of(detector)
    if found != cfg.onebit_parts:
        raise InputError(
            f"onebit_parts is {cfg.onebit_parts}, but the options make it {found}: choose with onebit_parts alone"
        )


def log_to(path: Path) -> None:
    """What the metrics log goes to ``path``; the terminal gets errors only."""
    logger = MMLogger.get_instance(f"test {path}", log_file=str(path))
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with ``count`` CPU threads; None leaves the number as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def output_to_log(work_dir: Path) -> Iterator[None]:
    """MMDetection and pycocotools print; the terminal is for one progress bar and errors."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with open(work_dir / "output.log", "a") as log, contextlib.redirect_stdout(log), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError as error:
        raise WorkError(disk_error_message(error, error.filename or work_dir)) from error
