"""Detection as :class:`onebit.commons.task.Task` declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from onebit.commons.engine import config_text
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome, lacking
from onebit.detection import foreign, runner
from onebit.detection.config import DETECTOR_OPTION, JUDGE_OPTION, build_config
from onebit.detection.config import FILE_OPTIONS as FILE_OPTIONS
from onebit.detection.cost import model_cost as model_cost
from onebit.detection.operators import operator_status
from onebit.detection.own_config import train as train_config  # noqa: F401
from onebit.detection.predictions import agreement as agreement
from onebit.detection.predictor import pack as pack
from onebit.detection.predictor import predictor as predictor
from onebit.detection.runner import score_predictions as score_predictions
from onebit.detection.runner import show as show
from onebit.detection.runner import train as train

LACKS = {
    "test_packed_file": "a packed file is scored by `onebit test classification`; detection has `--packed`",
    "import_options": "--cfg-options of an import are for reid, not for detection",
}
KEYS = {
    "epochs": "train_cfg.max_epochs",
    "batch": "train_dataloader.batch_size",
    "lr": "optim_wrapper.optimizer.lr",
    "detector": DETECTOR_OPTION,
}
TRIAL: tuple[str, dict[str, Any]] = (
    "mini-coco",
    {
        "image_scale": (64, 64),
        "train_cfg.max_epochs": 1,
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_batch_per_epoch": 4,
        "test_dataloader.num_batch_per_epoch": 1,
        "param_scheduler.0.end": 2,
    },
)
PACKAGES = ("python", "torch", "numpy", "mmengine", "mmdet", "pycocotools")

test_packed_file = lacking(LACKS["test_packed_file"])
import_predictions = score_predictions


def operators() -> dict[str, str]:
    """Whose operators the detectors of rows use on this machine."""
    status = operator_status("cuda" if torch.cuda.is_available() else "cpu")
    return {name: status[name] for name in ("nms", "roi_align_forward", "roi_align_backward")}


def test(checkpoint: Path, job: Job, packed: bool = False) -> Outcome:  # noqa: PT028
    """Score a checkpoint of a recipe, or of the user's own config (``job.config``)."""
    if job.config:
        return foreign.score_checkpoint(checkpoint, job.config, job, packed)
    return runner.test(checkpoint, job, packed)


def score_checkpoint(checkpoint: Path, job: Job, model: str | None = None, config: Path | None = None) -> Outcome:
    """Score a checkpoint of MMDetection: :func:`onebit.detection.foreign.score_checkpoint`."""
    if model or not config:
        raise InputError("--model is not for detection: name the MMDetection config with --config")
    return foreign.score_checkpoint(checkpoint, config, job)


def size_options(height: int, width: int) -> dict[str, Any]:
    """Images are scaled to fit into this, and keep their proportions."""
    return {"image_scale": (width, height)}


def check_predictions(job: Job) -> None:
    """How boxes are judged is all that can be chosen."""
    if other := [option for option in job.cfg_options if option != JUDGE_OPTION]:
        raise InputError(f"--predictions of detection take no option {other[0]!r}; there is {JUDGE_OPTION}")


def config_of(job: Job, folder: Path | None) -> tuple[str, int]:
    """Where the data lies is not in the text."""
    cfg = build_config(job, Path())
    return config_text(cfg), cfg.train_cfg.max_epochs
