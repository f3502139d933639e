"""The detectors that rows train: their configs, and the parts of each that may be 1-bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmdet.registry import MODELS
from torch import nn

from onebit.commons.datasets.detection import FASTER_RCNN
from onebit.detection.parts import HEAD, RPN, SHARED_PARTS

#: The config key, and option, that chooses the detector; without it, it is :data:`FASTER_RCNN`.
OPTION = "detector"


@dataclass(frozen=True)
class Detector:
    """A detector, whose config is ``configs/models/<name>.py``.

    Attributes:
        kind: MMDetection's class.
        parts: choice of 1-bit parts, of :data:`onebit.detection.parts.PARTS`, to its config in ``configs/parts``.
    """

    kind: str
    parts: Mapping[str, str]


_SHARED = {name: name for name in SHARED_PARTS}
DETECTORS = {
    FASTER_RCNN: Detector("FasterRCNN", {**_SHARED, RPN: "neck-rpn"}),
    "retinanet": Detector("RetinaNet", {**_SHARED, HEAD: "neck-retinanet"}),
    "fcos": Detector("FCOS", {**_SHARED, HEAD: "neck-fcos"}),
}


def detector_of(network: nn.Module) -> str:
    """The name of a detector that was built; of one that is none of :data:`DETECTORS`, that of its class."""
    return next((n for n, d in DETECTORS.items() if type(network) is MODELS.get(d.kind)), type(network).__name__)
