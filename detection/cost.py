"""What a whole detector costs: backbone, neck and heads, of two stages at a stated number of proposals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from onebit import backbones
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection.config import DETECTOR_OPTION, PARTS_OPTION, build_config, class_head
from onebit.detection.parts import parts_of

CONVENTIONS = ("strict", "mmdet-legacy")
#: Height and width in pixels of Table 13 of the DCP-NAS paper.
INPUT_SIZE = (600, 1000)


def model_cost(
    backbone: str,
    convention: str,
    input_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    proposals: int | None = None,
    onebit_parts: str | None = None,
    detector: str | None = None,
) -> backbones.Cost:
    """Cost of a detector of the VOC board (recipe ``paper``) for one image.

    Under ``mmdet-legacy``, which counts the memory of trainable parameters only, the stem and the
    first stage are frozen, as in the detectors it was used on.

    Args:
        backbone: a backbone's name.
        convention: see :func:`onebit.backbones.cost`.
        input_size: height and width in pixels, default 600 x 1000.
        num_classes: default 20.
        proposals: boxes that the head of Faster R-CNN sees, default 1000 (the recipe's).
        onebit_parts: one of :data:`onebit.detection.parts.PARTS`, default ``lateral`` for a 1-bit
            backbone, ``none`` for a real-valued one.
        detector: one of :data:`onebit.detection.detectors.DETECTORS`, default Faster R-CNN.

    Raises:
        InputError: unknown backbone, convention or detector, parts that do not go with them, or ``proposals`` of a
            detector that has none.
    """
    conventions = (convention,)
    return model_costs(backbone, conventions, input_size, num_classes, proposals, onebit_parts, detector)[convention]


def model_costs(
    backbone: str,
    conventions: Sequence[str],
    input_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    proposals: int | None = None,
    onebit_parts: str | None = None,
    detector: str | None = None,
) -> dict[str, backbones.Cost]:
    """:func:`model_cost` under several conventions, by name."""
    options = {PARTS_OPTION: onebit_parts, DETECTOR_OPTION: detector}
    options = {key: value for key, value in options.items() if value is not None}
    job = Job("voc", backbone, "paper", seed=0, data_root=Path(), work_dir=Path(), cfg_options=options)
    cfg = build_config(job, Path())
    if "mmdet-legacy" in conventions:
        cfg.model.backbone.frozen_stages = 1
    class_head(cfg.model).num_classes = num_classes or cfg.num_classes
    most = most_proposals(cfg.model)
    if most is None and proposals is not None:
        raise InputError(f"proposals: {detector} has none")
    register_all_modules(init_default_scope=True)
    with torch.device("meta"):  # only shapes matter
        built = MODELS.build(cfg.model)
    height, width = input_size or INPUT_SIZE
    run = forward_all(height, width, proposals or most)
    declare_roles(built)
    return backbones.costs(built, forward=run, conventions=conventions)


def summaries(detector: nn.Module, cfg: Config) -> dict[str, dict[str, Any]]:
    """For a record: the detector's cost under each convention, at the recipe's test input."""
    width, height = cfg.image_scale
    proposals = most_proposals(cfg.model)
    run = forward_all(height, width, proposals)
    declare_roles(detector)
    return {
        convention: {
            **backbones.cost(detector, forward=run, convention=convention).summary(),
            "input_shape": [3, height, width],
            **({} if proposals is None else {"proposals": proposals}),
            "onebit_parts": parts_of(detector),
        }
        for convention in CONVENTIONS
    }


def declare_roles(detector: nn.Module) -> None:
    """Tell the counter which layers are the neck's, the RPN's and the head's, for its groups."""
    for name, role in (("neck", "neck"), ("rpn_head", "rpn"), ("roi_head", "head"), ("bbox_head", "head")):
        if hasattr(detector, name):
            getattr(detector, name).cost_role = role


def most_proposals(model: dict[str, Any]) -> int | None:
    """How many proposals a model's config lets the box head see of an image; None where there are none."""
    if "rpn_head" not in model or "roi_head" not in model:
        return None
    return (model.get("test_cfg") or {}).get("rpn", {}).get("max_per_img", 1000)


def forward_all(height: int, width: int, proposals: int | None) -> Callable[[nn.Module], None]:
    """Run every module that multiplies once on one image, with as many proposals as asked for; None of one stage.

    The box head sees features of the shape that RoIAlign puts out; RoIAlign itself, which no
    convention counts, is left out, so that shapes are enough to count.
    """

    def forward(detector: nn.Module) -> None:
        device = next(detector.parameters()).device
        image = torch.zeros(1, 3, height, width, device=device)
        if proposals is None:
            detector(image, mode="tensor")
            return
        maps = detector.extract_feat(image)
        detector.rpn_head(maps)
        roi_head = detector.roi_head
        extractor = roi_head.bbox_roi_extractor
        shape = proposals, extractor.out_channels, *extractor.roi_layers[0].output_size
        features = torch.zeros(shape, device=device)
        if roi_head.with_shared_head:
            features = roi_head.shared_head(features)
        roi_head.bbox_head(features)

    return forward
