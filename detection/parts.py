"""Which parts of a detector are 1-bit: one named choice, in the config, the record and the cost.

The backbone is not among them: its name says what it is. The box head's fully connected layers and
all output layers stay real-valued in every choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.necks import FPN
from torch import nn

from onebit.backbones import OneBitConv2d

RPN, HEAD = "neck+rpn", "neck+head"
#: Choice of any detector to what it means, the default of 1-bit backbones second.
SHARED_PARTS = {
    "none": "standard FPN and heads, real-valued",
    "lateral": "3x3 1-bit lateral convs in the FPN (DCP-NAS, Sec. 4.1)",
    "neck": "lateral and output convs of the FPN",
}
#: The same, with what Faster R-CNN and one-stage detectors have besides.
PARTS = {
    **SHARED_PARTS,
    RPN: "the FPN's convs and the 3x3 conv of the RPN",
    HEAD: "the FPN's convs and the stacks of 3x3 convs of a one-stage detector's head",
}


#: Where the stacks of convs stand in MMDetection's one-stage heads: RetinaNet's, FCOS's and the like, YOLOX's.
TOWERS = ("cls_convs", "reg_convs", "multi_level_cls_convs", "multi_level_reg_convs")


def default_parts(onebit_backbone: bool) -> str:
    """``lateral`` for a 1-bit backbone, ``none`` for a real-valued one."""
    return "lateral" if onebit_backbone else "none"


def parts_of(detector: nn.Module) -> str:
    """The choice that ``detector`` was built with, read off its modules.

    ``other`` where it is none of these, as may be in somebody's own config.
    """
    lateral = output = False
    neck = getattr(detector, "neck", None)
    rest = [] if neck is None else [neck]
    if isinstance(neck, FPN):
        behind = (*neck.fpn_convs, *getattr(neck, "downsample_convs", ()), *getattr(neck, "pafpn_convs", ()))
        lateral, output = _all_onebit(neck.lateral_convs), _all_onebit(behind)
        rest = []
    rpn = getattr(getattr(detector, "rpn_head", None), "rpn_conv", None)
    rpn = _all_onebit([] if rpn is None else [rpn])
    head = getattr(detector, "bbox_head", None)
    towers = [part for name in TOWERS for part in getattr(head, name, ())]
    if towers:
        rest.append(nn.ModuleList(part for name, part in head.named_children() if name not in TOWERS))
    elif head is not None:
        rest.append(head)
    if hasattr(detector, "roi_head"):
        rest.append(detector.roi_head)
    elsewhere = any(isinstance(m, OneBitConv2d) for part in rest for m in part.modules())
    names = {
        (False, False, False, False): "none",
        (True, False, False, False): "lateral",
        (True, True, False, False): "neck",
        (True, True, True, False): RPN,
        (True, True, False, True): HEAD,
    }
    return "other" if elsewhere else names.get((lateral, output, rpn, _all_onebit(towers)), "other")


def _all_onebit(parts: Iterable[nn.Module]) -> bool | None:
    """Whether all convs are 1-bit; None where some are."""
    convs = [m for part in parts for m in part.modules() if isinstance(m, nn.Conv2d)]
    found = {isinstance(conv, OneBitConv2d) for conv in convs}
    return None if len(found) == 2 else found == {True}


def onebit_convs(detector: nn.Module) -> dict[str, dict[str, Any]]:
    """Per part of the detector that has 1-bit convs: how many, their binarizers and pad values."""
    parts: dict[str, list[OneBitConv2d]] = {}
    for name, module in detector.named_modules():
        if isinstance(module, OneBitConv2d):
            parts.setdefault(name.split(".")[0], []).append(module)
    return {
        part: dict(
            count=len(convs),
            binarizers=sorted({conv.binarizer.name for conv in convs}),
            pad_values=sorted({conv.pad_value for conv in convs}),
        )
        for part, convs in parts.items()
    }
