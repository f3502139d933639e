"""What retrieval costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from onebit import backbones
from onebit.reid.model import ReIDModel

#: Height and width of person crops in the papers, pixels.
INPUT_SIZE = (256, 128)


def model_cost(
    backbone: str,
    convention: str,
    input_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> backbones.Cost:
    """Cost of the network that turns one crop [3, *input_size] into a feature.

    Args:
        backbone: a backbone's name.
        convention: see :func:`onebit.backbones.cost`.
        input_size: height and width in pixels, default 256 x 128.
        num_classes: count the classifier over so many identities too, which only training uses.
        options: of :class:`onebit.reid.model.ReIDModel`: ``neck``, ``feature_dim``, ``last_stride``, ...

    Raises:
        InputError: unknown backbone, convention or option.
    """
    shape = (3, *(input_size or INPUT_SIZE))
    with torch.device("meta"):  # only shapes matter
        model = ReIDModel(backbone, num_classes=1 if num_classes is None else num_classes, **options)
    network = model.embedding
    if num_classes is not None:
        model.classifier.cost_role = "classifier"
        network = nn.Sequential(network, model.classifier)
    return backbones.cost(network, shape, convention=convention)
