"""What a recipe with `adapt` takes from the data: epochs, size of images, anchors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onebit.commons.datasets import Dataset, OwnBoxes
from onebit.commons.errors import InputError

#: Images are scaled to a multiple of this, pixels: the stride of the backbone's coarsest map.
MULTIPLE = 32


def adapted(dataset: Dataset, adapt: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a recipe, from what is known of a dataset.

    Images are as large as half of them are, in steps of 32 pixels and at most ``adapt["side"]``. The smallest anchor,
    of a detector that has anchors, is the largest of the recipe's choices that is not above the tenth of the objects
    that is smallest, at this size. So many epochs
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
    least, most = adapt["epochs"]
    epochs = min(max(round(adapt["images"] / facts["images"]), least), most)
    options = {"image_scale": (side, side), "train_cfg.max_epochs": epochs, "train_cfg.val_interval": epochs}
    if anchors := adapt.get("anchors"):
        (_, smallest), *choices = anchors["choices"]
        fitting = [value for pixels, value in choices if pixels <= facts["object"] * side]
        options[anchors["option"]] = [smallest, *fitting][-1]
    return options
