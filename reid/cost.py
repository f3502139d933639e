"""What retrieval costs."""

from __future__ import annotations

import torch

import backbones
from reid.model import ReIDModel

#: Height and width of person crops in the papers, pixels.
INPUT_SIZE = (256, 128)


def model_cost(
    backbone: str,
    convention: str,
    input_size: tuple[int, int] | None = None,
    num_classes: int | None = None,
) -> backbones.Cost:
    """Cost of the network that turns one crop [3, *input_size] into a feature.

    Args:
        backbone: a backbone's name.
        convention: see :func:`backbones.cost`.
        input_size: height and width in pixels, default 256 x 128.
        num_classes: count the classifier over so many identities too, which only training uses.

    Raises:
        InputError: unknown backbone or convention.
    """
    shape = (3, *(input_size or INPUT_SIZE))
    with torch.device("meta"):  # only shapes matter
        embedding = ReIDModel(backbone, num_classes=1).embedding
    if num_classes is None:
        return backbones.cost(embedding, shape, convention=convention)
    return backbones.cost(embedding.backbone, shape, convention=convention, classes=num_classes)
