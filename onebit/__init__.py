"""onebit-bench: a benchmark suite for 1-bit convolutional networks.

The rooms of the suite are the packages ``onebit.backbones``, ``onebit.classification``,
``onebit.detection``, ``onebit.reid``, ``onebit.leaderboards``, ``onebit.packed`` and ``onebit.commons``. What most users
need stands here and is imported at first use, so that ``import onebit`` stays cheap.

In an MMDetection config, ``custom_imports = dict(imports=["onebit"])`` makes every
``type="onebit.<name>"`` known. ``import onebit.reid`` does the same for torchreid.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from onebit.commons import mmcv_extension

if TYPE_CHECKING:
    from onebit.backbones import (
        CellNet,
        CifarResNet,
        Genotype,
        OneBitConv2d,
        ReActNetA,
        ResNet,
        VGGSmall,
        WideResNet,
        cost,
        create_backbone,
        deploy,
        list_backbones,
        register_binarizer,
        register_family,
    )
    from onebit.backbones.hooks import MethodLossHook, PackActivationsHook
    from onebit.classification.cells_table import CellsTable
    from onebit.commons.datasets import Dataset, register_dataset
    from onebit.detection import (
        CocoAveragePrecision,
        OneBitFCOSHead,
        OneBitFPN,
        OneBitPAFPN,
        OneBitRetinaHead,
        OneBitRPNHead,
        VOCAveragePrecision,
    )
    from onebit.leaderboards.api import bench, load_results
    from onebit.leaderboards.predicting import load

__version__ = "0.2.0.dev0"

#: Public names, each with the module that defines it (PEP 562).
_PUBLIC = {
    "CellNet": "onebit.backbones",
    "CellsTable": "onebit.classification.cells_table",
    "CifarResNet": "onebit.backbones",
    "CocoAveragePrecision": "onebit.detection",
    "Dataset": "onebit.commons.datasets",
    "Genotype": "onebit.backbones",
    "MethodLossHook": "onebit.backbones.hooks",
    "OneBitConv2d": "onebit.backbones",
    "OneBitFCOSHead": "onebit.detection",
    "OneBitFPN": "onebit.detection",
    "OneBitPAFPN": "onebit.detection",
    "OneBitRPNHead": "onebit.detection",
    "OneBitRetinaHead": "onebit.detection",
    "PackActivationsHook": "onebit.backbones.hooks",
    "ReActNetA": "onebit.backbones",
    "ResNet": "onebit.backbones",
    "VGGSmall": "onebit.backbones",
    "VOCAveragePrecision": "onebit.detection",
    "WideResNet": "onebit.backbones",
    "bench": "onebit.leaderboards.api",
    "cost": "onebit.backbones",
    "create_backbone": "onebit.backbones",
    "deploy": "onebit.backbones",
    "list_backbones": "onebit.backbones",
    "load": "onebit.leaderboards.predicting",
    "load_results": "onebit.leaderboards.api",
    "register_binarizer": "onebit.backbones",
    "register_dataset": "onebit.commons.datasets",
    "register_family": "onebit.backbones",
}

__all__ = [  # the keys of _PUBLIC, written out for type checkers
    "CellNet",
    "CellsTable",
    "CifarResNet",
    "CocoAveragePrecision",
    "Dataset",
    "Genotype",
    "MethodLossHook",
    "OneBitConv2d",
    "OneBitFCOSHead",
    "OneBitFPN",
    "OneBitPAFPN",
    "OneBitRPNHead",
    "OneBitRetinaHead",
    "PackActivationsHook",
    "ReActNetA",
    "ResNet",
    "VGGSmall",
    "VOCAveragePrecision",
    "WideResNet",
    "__version__",
    "bench",
    "cost",
    "create_backbone",
    "deploy",
    "list_backbones",
    "load",
    "load_results",
    "register_binarizer",
    "register_dataset",
    "register_family",
]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'onebit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


mmcv_extension.install("onebit.detection.operators")
if "mmengine" in sys.modules:
    # A config of MMDetection names us: make mmengine's registries know the scope `onebit`. Imported
    # in another order, they find `onebit.ResNet` and the like as attributes of this package.
    importlib.import_module("onebit.backbones")
