"""What a recipe with `adapt` takes from the data: epochs, size of images, anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onebit.commons.datasets import Dataset, OwnBoxes
from onebit.commons.errors import InputError

#: Images are scaled to a multiple of this, pixels: the stride of the coarsest map that proposals come from.
MULTIPLE = 32
#: Side of the smallest anchor on the finest map, pixels, per unit of its scale: that map's stride.
STRIDE = 4


def adapted(dataset: Dataset, adapt: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a recipe, from what is known of a dataset.

    Images are as large as half of them are, in steps of 32 pixels and at most ``adapt["side"]``. The smallest anchor
    is the largest choice that is not above the tenth of the objects that is smallest, at this size. So many epochs
    are trained that about ``adapt["images"]`` images are seen, within ``adapt["epochs"]``. There are no options where
    the data is not at hand: then a checkpoint states what it was trained with.

    Args:
        dataset: with :attr:`onebit.commons.datasets.OwnBoxes.facts`.
        adapt: of the recipe.

    Raises:
        InputError: a dataset of the suite, of which no facts are kept.
    """
    if not isinstance(dataset, OwnBoxes):
        raise InputError(f"this recipe adapts to data of one's own; {dataset.name} has recipe {dataset.recipe}")
    facts = dataset.facts
    if not facts:
        return {}
    side = min(max(MULTIPLE * round(facts["side"] / MULTIPLE), MULTIPLE), adapt["side"])
    fitting = [scale for scale in adapt["scales"] if STRIDE * scale <= facts["object"] * side]
    least, most = adapt["epochs"]
    epochs = min(max(round(adapt["images"] / facts["images"]), least), most)
    return {
        "image_scale": (side, side),
        "model.rpn_head.anchor_generator.scales": [max(fitting, default=min(adapt["scales"]))],
        "train_cfg.max_epochs": epochs,
        "train_cfg.val_interval": epochs,
    }
