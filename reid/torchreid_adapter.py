"""The only module that knows how torchreid 0.2.5 is laid out inside.

Its code is in ``torchreid.reid.*``; ``torchreid.models`` and the like are attributes, not modules.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from commons.compat import ensure_torchvision

ensure_torchvision()  # torchreid imports torchvision

# ruff: isort: split
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns that its Cython evaluation is missing; ours is used
    from torchreid.reid import models as _models
    from torchreid.reid.data import ImageDataManager
    from torchreid.reid.data.datasets import __image_datasets as _image_datasets
    from torchreid.reid.data.datasets.image import CUHK03, DukeMTMCreID, Market1501
    from torchreid.reid.engine import ImageSoftmaxEngine
    from torchreid.reid.metrics.rank import evaluate_rank
    from torchreid.reid.utils.rerank import re_ranking

__all__ = [
    "CUHK03",
    "DukeMTMCreID",
    "ImageDataManager",
    "ImageSoftmaxEngine",
    "Market1501",
    "append_stdout",
    "evaluate_rank",
    "re_ranking",
    "register_dataset",
    "register_model",
]

#: fn(num_classes, loss, pretrained, use_gpu) -> model, as ``torchreid.models.build_model`` calls it.
Builder = Callable[..., torch.nn.Module]


def register_model(name: str, builder: Builder) -> None:
    """Let ``torchreid.models.build_model(name, ...)`` find ``builder``.

    A network of torchreid's own that has the name already (``resnet18``, ``resnet34``,
    ``resnet50``) stays available as ``torchreid_<name>``.
    """
    table = registered_models()
    if name in table and not getattr(table[name], "onebit", False):
        table[f"torchreid_{name}"] = table[name]
    builder.onebit = True
    table[name] = builder


def registered_models() -> dict[str, Builder]:
    """torchreid's table of networks, to be written to."""
    return getattr(_models, "__model_factory")


def register_dataset(name: str, dataset: type) -> None:
    """Let ``ImageDataManager(sources=name)`` find ``dataset``."""
    _image_datasets[name] = dataset


@contextlib.contextmanager
def append_stdout(path: Path) -> Iterator[None]:
    """Append what torchreid prints meanwhile to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        yield
