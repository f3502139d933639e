"""Train and score one row of a detection board with mmengine's Runner."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from backbones import OneBitConv2d
from commons.datasets import get_dataset
from commons.engine import build_runner, config_text, latest_checkpoint
from commons.errors import InputError, WorkError
from commons.files import disk_error_message, write_atomic
from commons.progress import Progress
from commons.task import Job, Outcome
from detection.checkpoints import read_checkpoint
from detection.checks import check_dataset
from detection.config import build_config
from detection.cost import summaries


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
    checked = check_dataset(cfg)
    work_dir = Path(job.work_dir)
    with _output_to_log(work_dir):
        row = dict(cfg.row.to_dict(), task="detection", seed=job.seed)
        runner = build_runner(cfg, row, work_dir=work_dir, resume=job.resume)
        runner.model.init_weights()  # the runner's own call, when training starts, is then a no-op
        untrained = _score_untrained(runner, cfg, job)
        runner.train()
        scores = _score_with(runner, job.backbone)
        checkpoint = latest_checkpoint(work_dir)
        details = dict(
            train_images=len(runner.train_dataloader.dataset),
            loss_curve=_epoch_means(read_checkpoint(checkpoint).losses, runner.epoch),
            checked=checked,
        )
        return _outcome(
            runner.model, cfg, job, scores, checkpoint, text, untrained=untrained,
            epochs=runner.epoch, details=details,
        )  # fmt: skip


def test(checkpoint: Path, job: Job) -> Outcome:
    """Score a checkpoint that :func:`train` wrote.

    Args:
        checkpoint: the file.
        job: an empty ``dataset``, ``backbone`` or ``recipe`` is the checkpoint's own;
            ``cfg_options`` are laid over those it was trained with.

    Raises:
        InputError: not such a checkpoint, or one of another backbone or recipe; missing or broken
            dataset.
    """
    saved = read_checkpoint(checkpoint)
    for key in ("backbone", "recipe"):
        asked = getattr(job, key)
        if asked and asked != saved.row[key]:
            raise InputError(
                f"{checkpoint} is a checkpoint of {key} {saved.row[key]!r}, not of {asked!r}"
            )
    job = replace(
        job,
        dataset=job.dataset or saved.row["dataset"],
        backbone=saved.row["backbone"],
        recipe=saved.row["recipe"],
        cfg_options={**saved.row.get("cfg_options", {}), **job.cfg_options},
    )
    dataset = get_dataset(job.dataset, task="detection")
    cfg = build_config(job, dataset.find(job.data_root).resolve())
    text = config_text(cfg)
    checked = check_dataset(cfg, ["test"])
    with _output_to_log(Path(job.work_dir)):
        _log_to(Path(job.work_dir) / "test.log")
        register_all_modules(init_default_scope=True)
        detector = MODELS.build(cfg.model)
        try:
            detector.load_state_dict(saved.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"the weights in {checkpoint} do not fit: {reason}") from error
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluator = Evaluator([METRICS.build(cfg.test_evaluator)])
        evaluator.dataset_meta = loader.dataset.metainfo
        scores = _score(detector.to(get_device()), loader, evaluator, job.backbone)
        details = dict(loss_curve=_epoch_means(saved.losses, saved.epochs), checked=checked)
        return _outcome(
            detector, cfg, job, scores, Path(checkpoint), text, untrained=None,
            epochs=saved.epochs, details=details,
        )  # fmt: skip


def _score_untrained(runner: Runner, cfg: Config, job: Job) -> dict[str, float] | None:
    """Score the network as it was initialized, or read what an interrupted run scored."""
    if not cfg.score_untrained:
        return None
    kept = Path(job.work_dir) / "untrained.json"
    if job.resume and latest_checkpoint(job.work_dir) and kept.exists():
        return json.loads(kept.read_text())
    metrics, _ = _score_with(runner, f"{job.backbone} untrained")
    write_atomic(kept, json.dumps(metrics))
    return metrics


def _score_with(runner: Runner, description: str) -> tuple[dict[str, float], dict[str, float]]:
    """What the runner's test loop does, without its hooks, which expect a checkpoint."""
    loop = runner.test_loop
    return _score(runner.model, loop.dataloader, loop.evaluator, description)


@torch.no_grad()
def _score(
    detector: nn.Module, loader: DataLoader, evaluator: Evaluator, description: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics, and the AP of each class."""
    detector.eval()
    with Progress(f"scoring {description}", total=len(loader)) as progress:
        for batch in loader:
            evaluator.process(data_samples=detector.test_step(batch), data_batch=batch)
            progress.advance()
    metrics = evaluator.evaluate(len(loader.dataset))
    per_class = metrics.pop("per_class")
    return metrics, per_class


def _outcome(
    detector: nn.Module,
    cfg: Config,
    job: Job,
    scores: tuple[dict[str, float], dict[str, float]],
    checkpoint: Path,
    text: str,
    *,
    untrained: dict[str, float] | None,
    epochs: int,
    details: dict[str, Any],
) -> Outcome:
    metrics, per_class = scores
    detector = getattr(detector, "module", detector)  # out of its distributed wrapper
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
        details={**details, "per_class": per_class, "onebit_parts": _onebit_parts(detector)},
    )


def _onebit_parts(detector: nn.Module) -> dict[str, int]:
    """How many 1-bit convs there are in each part of the detector that has any."""
    parts: dict[str, int] = {}
    for name, module in detector.named_modules():
        if isinstance(module, OneBitConv2d):
            part = name.split(".")[0]
            parts[part] = parts.get(part, 0) + 1
    return parts


def _epoch_means(losses: list[float], epochs: int) -> list[float]:
    """Mean loss of every epoch, from the loss of every step."""
    steps = len(losses) // epochs
    return [sum(losses[i * steps : (i + 1) * steps]) / steps for i in range(epochs)]


def _log_to(path: Path) -> None:
    """What the metrics log goes to ``path``; the terminal gets errors only."""
    logger = MMLogger.get_instance(f"test {path}", log_file=str(path))
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def _output_to_log(work_dir: Path) -> Iterator[None]:
    """MMDetection and pycocotools print; the terminal is for one progress bar and errors."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with (
            open(work_dir / "output.log", "a") as log,
            contextlib.redirect_stdout(log),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    except OSError as error:
        raise WorkError(disk_error_message(error, error.filename or work_dir)) from error
