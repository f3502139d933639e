"""What a classifier costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from onebit import backbones

#: Height and width in pixels unless another size is asked for.
INPUT_SIZE = (224, 224)


def model_cost(
    backbone: str,
    convention: str,
    input_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    stem: str = "imagenet",
) -> backbones.Cost:
    """Cost of backbone and classifier for one image [3, *input_size].

    Args:
        backbone: a backbone's name.
        convention: see :func:`onebit.backbones.cost`.
        input_size: height and width in pixels, default 224 x 224.
        num_classes: without it the backbone alone is counted.

    Raises:
        InputError: unknown backbone or convention.
    """
    shape = (3, *(input_size or INPUT_SIZE))
    return backbones.cost(backbone, shape, convention=convention, classes=num_classes, out_indices=(3,), stem=stem)


def summaries(
    backbone: nn.Module, conventions: Sequence[str], size: tuple[int, int], num_classes: int
) -> dict[str, dict[str, Any]]:
    """For a record: what ``backbone`` with a classifier costs, by convention.

    Args:
        backbone: the network itself, on any device.
        size: height and width in pixels.
    """
    counted = backbones.costs(backbone, (3, *size), conventions, classes=num_classes)
    return {convention: cost.summary() for convention, cost in counted.items()}
