"""Classification as :class:`onebit.commons.task.Task` declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebit.classification.config import FILE_OPTIONS as FILE_OPTIONS
from onebit.classification.config import build_config
from onebit.classification.cost import model_cost as model_cost
from onebit.classification.predictions import agreement as agreement
from onebit.classification.predictor import predictor as predictor
from onebit.classification.runner import score_predictions as score_predictions
from onebit.classification.runner import test as test
from onebit.classification.runner import test_packed_file as test_packed_file
from onebit.classification.runner import train as train
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import config_text
from onebit.commons.errors import InputError
from onebit.commons.task import Job, lacking

LACKS = {
    "detector": "--detector is for detection, not for classification",
    "train_config": "--config is for detection; classification takes --recipe and --cfg-options",
    "score_checkpoint": "--config is not for classification, and neither is --model: "
    "it scores checkpoints of this suite and packed files",
    "import_predictions": "classification imports no predictions: `onebit test classification --predictions` scores them",
    "import_options": "--cfg-options of an import are for reid, not for classification",
    "pack": "a packed classifier is whole: leave out --whole",
    "show": "test classification draws no pictures: leave out --show-dir",
    "show_score": "--show-score is for `test detection --show-dir DIR`",
}
KEYS = {"epochs": "train_cfg.max_epochs", "batch": "train_dataloader.batch_size", "lr": "optim_wrapper.optimizer.lr"}
TRIAL: tuple[str, dict[str, Any]] = (
    "mini-cifar10",
    {
        "train_cfg.max_epochs": 1,
        "train_dataloader.batch_size": 16,
        "train_dataloader.num_batch_per_epoch": 4,
        "test_dataloader.num_batch_per_epoch": 1,
    },
)
PACKAGES = ("python", "torch", "numpy", "mmengine")

train_config = lacking(LACKS["train_config"])
score_checkpoint = lacking(LACKS["score_checkpoint"])
import_predictions = lacking(LACKS["import_predictions"])
show = lacking(LACKS["show"])
pack = lacking(LACKS["pack"])


def operators() -> dict[str, str]:
    """None beside torch's."""
    return {}


def size_options(height: int, width: int) -> dict[str, Any]:
    """Classified images are square."""
    if height != width:
        raise InputError(f"--size {height} {width}: classification takes square images, name one number")
    return {"input_size": height}


def check_predictions(job: Job) -> None:
    """Predictions state no backbone, and nothing in how they are scored can be chosen."""
    if not job.backbone:
        raise InputError("--predictions of classification needs --backbone, whose they are")
    if job.cfg_options:
        raise InputError(f"--predictions of classification take no option {next(iter(job.cfg_options))!r}")


def config_of(job: Job, folder: Path | None) -> tuple[str, int] | None:
    """The number of classes is read from the data."""
    if folder is None:
        return None
    cfg = build_config(job, get_dataset(job.dataset, "classification"), folder)
    return config_text(cfg), cfg.train_cfg.max_epochs
