"""A dataset, a detector, a recipe and a backbone become one MMDetection config."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from backbones import backbone_config, create_backbone
from commons.errors import InputError
from commons.task import Job

CONFIGS = Path(__file__).parent / "configs"


def build_config(job: Job, folder: str | Path) -> Config:
    """Compose ``configs/{models,datasets,recipes}`` and put the backbone in.

    The neck follows the backbone: a 1-bit backbone gets 1-bit lateral convs of the same binarizer
    (``OneBitFPN``), a real-valued backbone MMDetection's standard FPN, so that a real-valued row is
    real-valued throughout. ``job.cfg_options`` are merged last and may change either.

    Args:
        job: names of dataset, backbone and recipe.
        folder: the folder that holds the dataset; relative paths of the config are put below it.

    Raises:
        InputError: unknown backbone or recipe; no such recipe for this dataset.
    """
    backbone = backbone_config(job.backbone, out_indices=(0, 1, 2, 3))
    binarizer = backbone.get("binarizer")
    model = "faster-rcnn_onebit-fpn" if binarizer else "faster-rcnn_fpn"
    cfg = Config.fromfile(CONFIGS / "models" / f"{model}.py")
    for piece in (_piece("datasets", job.dataset), _piece("recipes", job.recipe)):
        cfg.merge_from_dict(piece.to_dict())

    detector = cfg.model
    detector.backbone = backbone
    detector.neck.in_channels = list(create_backbone(job.backbone).feature_channels)
    if binarizer:
        detector.neck.binarizer = binarizer
    detector.roi_head.bbox_head.num_classes = cfg.num_classes
    cfg.merge_from_dict(dict(job.cfg_options))
    for node in _dicts(cfg):
        if node.get("type") == "Resize":
            node["scale"] = tuple(cfg.image_scale)
        if "ann_file" in node:
            _put_below(node, Path(folder))
    return cfg


def _piece(kind: str, name: str) -> Config:
    path = CONFIGS / kind / f"{name}.py"
    if not path.is_file() or name.startswith("_"):
        known = sorted(p.stem for p in path.parent.glob("[!_]*.py"))
        raise InputError(
            f"detection has no {kind[:-1]} {name!r}; there are {', '.join(known)} in {path.parent}"
        )
    return Config.fromfile(path)


def _dicts(node):
    """Every dict inside a config, outermost first."""
    if isinstance(node, (Config, dict)):
        node = node._cfg_dict if isinstance(node, Config) else node
        yield node
        children = list(node.values())
    else:
        children = node if isinstance(node, (list, tuple)) else []
    for child in children:
        yield from _dicts(child)


def _put_below(node: dict, folder: Path) -> None:
    """Make the paths of a dataset (below its ``data_root``) or of a metric start at ``folder``."""
    key = "data_root" if "data_root" in node else "ann_file"
    node[key] = str(folder / node[key])
