"""A network from what a user names: a backbone or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onebit.commons.errors import InputError


def load_network(source: str, classes: int | None = None, stem: str = "imagenet"):
    """Build the network that ``source`` names.

    Args:
        source: a backbone's name, or the path of a checkpoint of this suite's trainers.
        classes: of a classifier to add to a backbone by name.
        stem: of a backbone by name.

    Returns:
        the network in eval mode (a backbone, or a :class:`onebit.backbones.classifier.Classifier`), its
        description (see :func:`onebit.backbones.packed.description`), and whether its weights are trained.

    Raises:
        InputError: unknown name, not a checkpoint, or one that does not fit its network.
    """
    from onebit import backbones
    from onebit.backbones.classifier import Classifier
    from onebit.backbones.packed import description

    if Path(source).suffix == ".safetensors":
        raise InputError(f"{source} is a packed file already: export the checkpoint it was made from")
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
    import torch

    from onebit import backbones
    from onebit.backbones.classifier import Classifier
    from onebit.backbones.packed import description
    from onebit.commons.checkpoints import load_weights, require_fit

    name, options, classes, weights, prediction = _read(path)
    about = {**description(name, classes, **options), **prediction}

    def build():
        network = backbones.create_backbone(name, **options)
        return network if classes is None else Classifier(network, classes)

    with torch.device("meta"):
        require_fit(build(), weights, path)
    network = build()
    load_weights(network, weights, path)
    return network.eval(), about


def _read(path: Path) -> tuple[str, dict[str, Any], int | None, dict[str, Any], dict[str, Any]]:
    """A checkpoint's backbone, the options it was built with, the number of classes of a classifier
    that is to be exported too, the weights of both, and the classes' names and the preparation of images where the
    checkpoint states them.
    """
    from onebit.backbones.file_schema import named_backbone
    from onebit.commons.checkpoints import load_row, require_row

    try:
        row, weights = load_row(path)
    except InputError as error:
        from onebit.reid.checkpoint import load_checkpoint

        try:
            state = load_checkpoint(path)
        except InputError:
            raise error from None
        return _of_reid(state, path)
    require_row(path, row, "task", "dataset", "backbone")
    if row["task"] == "classification":
        from onebit.classification.predictor import network_of

        said = {key: row[key] for key in ("classes", "images") if key in row}
        return (*network_of(row, weights), {"prediction": said} if len(said) == 2 else {})
    name, options = named_backbone(row, out_indices=(0, 1, 2, 3))
    return name, options, None, _below("backbone.", weights), {}


def _of_reid(state: dict, path: Path):
    from onebit.reid.recipe import saved_config

    cfg, _ = saved_config(state["config"], path)
    options = {**cfg.model.backbone_options.to_dict(), "out_indices": (3,)}
    if cfg.model.last_stride != 2:
        options["last_stride"] = cfg.model.last_stride
    return cfg.backbone, options, None, _below("embedding.backbone.", state["state_dict"]), {}


def _below(prefix: str, weights: dict) -> dict:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
