"""Floor 3: the backbones inside MMDetection.

``custom_imports = dict(imports=["onebit"])`` in any MMDetection config makes
``type="onebit.<backbone>"`` and ``type="onebit.OneBitFPN"`` known, and makes MMDetection importable
beside mmcv-lite.

operators   whose operators mmcv calls where it has no compiled ones
plain_operators  NMS, its relatives and RoIAlign in plain torch
plain_convs  deformable and masked convolution, CARAFE and the focal loss in plain torch
necks       FPN and PAFPN with 1-bit convs
heads       the RPN, and the heads of RetinaNet, FCOS and YOLOX, with 1-bit convs
detectors   Faster R-CNN and the one-stage detectors that rows train
parts       which parts of a detector are 1-bit
metrics     VOC and COCO AP in full precision, per class
predictions detections as a file
errors      what is wrong with them, in words and per class
pictures    objects and detections side by side, the confusion matrix
config      a dataset, a detector, a recipe and a backbone become one config
stabilizers what keeps 1-bit training from diverging, as named choices
pretrained  a backbone that starts from a classifier's checkpoint
checks      a dataset is looked through before training
cost        what the whole detector costs
runner      train and score one row
own_config  train by somebody's own MMDetection config
foreign     score a checkpoint that was trained elsewhere
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from onebit.commons.compat import ensure_mmcv, ensure_torchvision

if TYPE_CHECKING:
    from onebit.detection.heads import OneBitFCOSHead, OneBitRetinaHead, OneBitRPNHead, OneBitYOLOXHead
    from onebit.detection.metrics import CocoAveragePrecision, VOCAveragePrecision
    from onebit.detection.necks import OneBitFPN, OneBitPAFPN

# MMDetection imports both: mmcv is the user's choice, and a CPU install of torch may not be able to import torchvision.
ensure_mmcv()
ensure_torchvision()

#: Public names, each with its module, which imports MMDetection (PEP 562).
_LAZY = {
    "CocoAveragePrecision": "onebit.detection.metrics",
    "OneBitFCOSHead": "onebit.detection.heads",
    "OneBitFPN": "onebit.detection.necks",
    "OneBitPAFPN": "onebit.detection.necks",
    "OneBitRPNHead": "onebit.detection.heads",
    "OneBitRetinaHead": "onebit.detection.heads",
    "OneBitYOLOXHead": "onebit.detection.heads",
    "VOCAveragePrecision": "onebit.detection.metrics",
}

__all__ = [
    "CocoAveragePrecision",
    "OneBitFCOSHead",
    "OneBitFPN",
    "OneBitPAFPN",
    "OneBitRPNHead",
    "OneBitRetinaHead",
    "OneBitYOLOXHead",
    "VOCAveragePrecision",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'onebit.detection' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
