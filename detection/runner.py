"""Train and score one row of a detection board with mmengine's Runner."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from commons.datasets import get_dataset
from commons.engine import build_runner, latest_checkpoint
from commons.errors import WorkError
from commons.files import disk_error_message, write_atomic
from commons.progress import Progress
from commons.task import Job, Outcome
from detection.checks import check_dataset
from detection.config import build_config

CONVENTIONS = ("strict", "mmdet-legacy")


def train(job: Job) -> Outcome:
    """Train a detector with ``job.backbone`` on ``job.dataset`` and score it.

    The very network that is trained is scored before its first step too, unless the recipe says
    ``score_untrained = False``. ``resume`` goes on from the last epoch and ends where an
    uninterrupted run does. What MMDetection prints goes to ``output.log`` in the work folder.

    Raises:
        InputError: unknown name, missing or broken dataset, resume with another config.
        WorkError: the loss is not finite, or the disk is full.
    """
    folder = get_dataset(job.dataset, task="detection").find(job.data_root).resolve()
    cfg = build_config(job, folder)
    check_dataset(cfg)
    with _output_to_log(job.work_dir):
        runner = build_runner(
            cfg, work_dir=job.work_dir, seed=job.seed, resume=job.resume, description=job.backbone
        )
        untrained = _untrained(runner, cfg, job)
        runner.train()
        metrics = _score(runner, f"{job.backbone} scored")
        return _outcome(runner, cfg, job, metrics, untrained, latest_checkpoint(job.work_dir))


def test(checkpoint: Path, job: Job) -> Outcome:
    """Score a checkpoint that :func:`train` wrote.

    Args:
        checkpoint: the file.
        job: an empty ``dataset``, ``backbone`` or ``recipe`` is the checkpoint's own.

    Raises:
        InputError: not such a checkpoint, or one of another backbone or recipe; missing or broken
            dataset.
    """
    raise NotImplementedError


def _untrained(runner: Runner, cfg: Config, job: Job) -> dict[str, float] | None:
    """Initialize the network and score it, or read what an interrupted run scored."""
    runner.model.init_weights()  # the runner's own call, at the start of training, is then a no-op
    if not cfg.score_untrained:
        return None
    kept = Path(job.work_dir) / "untrained.json"
    if job.resume and latest_checkpoint(job.work_dir) and kept.exists():
        return json.loads(kept.read_text())
    metrics = _score(runner, f"{job.backbone} untrained")
    metrics.pop("per_class")
    write_atomic(kept, json.dumps(metrics))
    return metrics


@torch.no_grad()
def _score(runner: Runner, description: str) -> dict[str, Any]:
    """What the runner's test loop does, without its hooks, which expect a checkpoint."""
    loop = runner.test_loop
    runner.model.eval()
    with Progress(description, total=len(loop.dataloader)) as progress:
        for batch in loop.dataloader:
            loop.evaluator.process(data_samples=runner.model.test_step(batch), data_batch=batch)
            progress.advance()
    return loop.evaluator.evaluate(len(loop.dataloader.dataset))


@contextlib.contextmanager
def _output_to_log(work_dir: Path) -> Iterator[None]:
    """MMDetection and pycocotools print; the terminal is for one progress bar and errors."""
    work_dir = Path(work_dir)
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


def _outcome(runner, cfg, job, metrics, untrained, checkpoint):
    return metrics, untrained
