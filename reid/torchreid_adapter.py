"""The only module that knows how torchreid is laid out inside.

There are two layouts. Torchreid 1.4 as its authors publish it keeps its code in ``torchreid.data``,
``torchreid.engine`` and so on. What PyPI has as 0.2.5 is the same code moved to ``torchreid.reid.*``;
``torchreid.models`` and the like are attributes there, not modules.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch

from onebit.commons.compat import ensure_torchvision

__all__ = [
    "CUHK03",
    "LAYOUT",
    "MSMT17",
    "DukeMTMCreID",
    "ImageDataManager",
    "ImageDataset",
    "ImageSoftmaxEngine",
    "ImageTripletEngine",
    "Market1501",
    "append_stdout",
    "evaluate_rank",
    "re_ranking",
    "register_dataset",
    "register_model",
    "test_transform",
]

ensure_torchvision()  # torchreid imports torchvision

#: The package that holds ``data``, ``engine``, ``models``, ...
LAYOUT = "torchreid.reid" if importlib.util.find_spec("torchreid.reid") else "torchreid"


def _module(name: str) -> ModuleType:
    with warnings.catch_warnings():
        # It warns that its Cython evaluation is missing; ours is used.
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{LAYOUT}.{name}")


_models = _module("models")
_datasets = _module("data.datasets")
ImageDataManager = _module("data").ImageDataManager
ImageDataset = _module("data.datasets.dataset").ImageDataset
CUHK03, DukeMTMCreID, Market1501, MSMT17 = (
    getattr(_datasets, name) for name in ("CUHK03", "DukeMTMCreID", "Market1501", "MSMT17")
)
ImageSoftmaxEngine = _module("engine").ImageSoftmaxEngine
ImageTripletEngine = _module("engine").ImageTripletEngine
evaluate_rank = _module("metrics.rank").evaluate_rank
re_ranking = _module("utils.rerank").re_ranking

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
    """Let ``ImageDataManager(sources=name)`` find ``dataset``; a name may be registered again."""
    getattr(_datasets, "__image_datasets")[name] = dataset


def test_transform(height: int, width: int) -> Callable:
    """What ``ImageDataManager`` does to a PIL image for testing: [3, height, width], normalized."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it builds
        return _module("data.transforms").build_transforms(height, width)[1]


@contextlib.contextmanager
def append_stdout(path: Path) -> Iterator[None]:
    """Append what torchreid prints meanwhile to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        yield
