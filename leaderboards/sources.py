"""A network from what a user names: a backbone, a checkpoint, or a packed file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commons.errors import InputError

#: Boards whose images are so small that networks have the stem for them.
_SMALL = {"cifar10"}


def load_network(source: str, classes: int | None = None, stem: str = "imagenet"):
    """Build the network that ``source`` names.

    Args:
        source: a backbone's name, or the path of a checkpoint of this suite's trainers.
        classes: of a classifier to add to a backbone by name.
        stem: of a backbone by name.

    Returns:
        the network in eval mode (a backbone, or a :class:`backbones.classifier.Classifier`), its
        description (see :func:`backbones.packed.description`), and whether its weights are trained.

    Raises:
        InputError: unknown name, not a checkpoint, or one that does not fit its network.
    """
    import backbones
    from backbones.classifier import Classifier
    from backbones.packed import description

    if _is_checkpoint(source):
        if classes is not None:
            raise InputError(f"--classes goes with a backbone's name; {source} is a checkpoint")
        return (*_from_checkpoint(Path(source)), True)
    network = backbones.create_backbone(source, out_indices=(3,), stem=stem)
    if classes is not None:
        network = Classifier(network, classes)
    about = description(source, classes, out_indices=(3,), stem=stem)
    return network.eval(), about, False


def _is_checkpoint(source: str) -> bool:
    return Path(source).suffix in (".pth", ".pt")


def _from_checkpoint(path: Path) -> tuple[Any, dict[str, Any]]:
    import backbones
    from backbones.classifier import Classifier
    from backbones.packed import description
    from commons.datasets import get_dataset
    from commons.engine import load_row, load_weights

    row, weights = load_row(path)
    small = get_dataset(row["dataset"]).board in _SMALL
    options: dict[str, Any] = {"stem": "cifar" if small else "imagenet"}
    for key, value in row.get("cfg_options", {}).items():
        if key.startswith("model.backbone."):
            options[key.removeprefix("model.backbone.")] = value
    kept = {k: v for k, v in weights.items() if k.startswith("backbone.")}
    classes = None
    if row["task"] == "classification":
        options["out_indices"] = (3,)
        classes = row["num_classes"]
        kept |= {k: v for k, v in weights.items() if k.startswith("classifier.")}
    network = backbones.create_backbone(row["backbone"], **options)
    if classes is None:
        kept = {k.removeprefix("backbone."): v for k, v in kept.items()}
    else:
        network = Classifier(network, classes)
    load_weights(network, kept, path)
    return network.eval(), description(row["backbone"], classes, **options)
