"""A dataset, a detector, a recipe and a backbone become one MMDetection config."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config

from backbones import OneBitConv2d, backbone_config, create_backbone
from commons.errors import InputError
from commons.task import Job

CONFIGS = Path(__file__).parent / "configs"


def build_config(job: Job, folder: str | Path) -> Config:
    """Compose ``configs/{models,datasets,recipes}`` and put the backbone in.

    The neck follows the backbone: a 1-bit backbone gets 1-bit lateral convs of the same binarizer
    (``OneBitFPN``), a real-valued backbone MMDetection's standard FPN, so that a real-valued row is
    real-valued throughout. ``job.cfg_options`` are merged last and may change either.

    Args:
        job: names of dataset, backbone and recipe, which the config keeps as ``row``, and options.
        folder: the folder that holds the dataset; relative ``data_root``s of the config begin there.

    Raises:
        InputError: unknown backbone, dataset or recipe, or an option that does not fit.
    """
    backbone = backbone_config(job.backbone, out_indices=(0, 1, 2, 3))
    with torch.device("meta"):  # only its channels and layers are asked for
        network = create_backbone(job.backbone)
    onebit = [m.binarizer.name for m in network.modules() if isinstance(m, OneBitConv2d)]
    model = "faster-rcnn_onebit-fpn" if onebit else "faster-rcnn_fpn"
    cfg = Config()  # not a model's own: the runner dumps a config with a file name once more
    for kind, name in (("models", model), ("datasets", job.dataset), ("recipes", job.recipe)):
        cfg.merge_from_dict(copy.deepcopy(_piece(kind, name)))
    cfg.row = dict(dataset=job.dataset, backbone=job.backbone, recipe=job.recipe)

    detector = cfg.model
    detector.backbone = backbone
    detector.neck.in_channels = list(network.feature_channels)
    if onebit:
        detector.neck.binarizer = onebit[0]
    detector.roi_head.bbox_head.num_classes = cfg.num_classes
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="onebit.MethodLossHook")]
    try:
        cfg.merge_from_dict(dict(job.cfg_options))
    except (KeyError, IndexError, TypeError, AssertionError) as error:
        raise InputError(f"the options {dict(job.cfg_options)} do not fit: {error}") from error
    _place(cfg, folder)
    return cfg


def dataset_config(dataset: str, folder: str | Path) -> Config:
    """The dataset's part of a config alone: how it is read and scored.

    Args:
        dataset: its name.
        folder: as in :func:`build_config`.

    Raises:
        InputError: unknown dataset.
    """
    cfg = Config()
    cfg.merge_from_dict(copy.deepcopy(_piece("datasets", dataset)))
    cfg.row = dict(dataset=dataset)
    _place(cfg, folder)
    return cfg


def _place(cfg: Config, folder: str | Path) -> None:
    """Put in the recipe's image scale and where the data lies."""
    for node in _dicts(cfg._cfg_dict):
        if node.get("type") == "Resize":
            node["scale"] = tuple(cfg.image_scale)
        if "ann_file" in node:
            node["data_root"] = str(Path(folder) / node["data_root"])


@functools.cache  # finding one of MMDetection's own configs takes a second
def _piece(kind: str, name: str) -> dict:
    path = CONFIGS / kind / f"{name}.py"
    if not path.is_file() or name.startswith("_"):
        known = sorted(p.stem for p in path.parent.glob("[!_]*.py"))
        raise InputError(f"detection has no {kind[:-1]} {name!r}; there are {', '.join(known)}")
    return Config.fromfile(path).to_dict()


def _dicts(node) -> Iterator[dict]:
    """Every dict inside a config, outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)
