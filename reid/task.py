"""Re-identification as :class:`onebit.commons.task.Task` declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebit.commons.engine import config_text
from onebit.commons.task import Job, lacking
from onebit.reid.cost import model_cost as model_cost
from onebit.reid.features import agreement as agreement
from onebit.reid.foreign import score_checkpoint as score_checkpoint
from onebit.reid.foreign import score_features as import_predictions  # noqa: F401
from onebit.reid.predictor import pack as pack
from onebit.reid.predictor import predictor as predictor
from onebit.reid.recipe import FILE_OPTIONS as FILE_OPTIONS
from onebit.reid.recipe import build_config
from onebit.reid.runner import score_predictions as score_predictions
from onebit.reid.runner import show as show
from onebit.reid.runner import test as test
from onebit.reid.runner import train as train

LACKS = {
    "detector": "--detector is for detection, not for reid",
    "train_config": "--config is for detection; reid takes --recipe and --cfg-options",
    "test_packed_file": "a packed file is scored by `onebit test classification`; reid has `--packed`",
    "show_score": "--show-score is for `test detection --show-dir DIR`",
}
KEYS = {"epochs": "epochs", "batch": "data.batch_size_train", "lr": "optimizer.lr"}
TRIAL: tuple[str, dict[str, Any]] = ("mini-market1501", {"epochs": 1, "height": 64, "width": 32})
PACKAGES = ("python", "torch", "numpy", "torchreid")

train_config = lacking(LACKS["train_config"])
test_packed_file = lacking(LACKS["test_packed_file"])


def operators() -> dict[str, str]:
    """None beside torch's."""
    return {}


def size_options(height: int, width: int) -> dict[str, Any]:
    """Crops are stretched to this."""
    return {"height": height, "width": width}


def check_predictions(job: Job) -> None:
    """The file names its backbone, and :func:`score_predictions` itself tells which options it can take."""


def config_of(job: Job, folder: Path | None) -> tuple[str, int]:
    """Nothing of it depends on the data."""
    cfg = build_config(job)
    return config_text(cfg), cfg.epochs
