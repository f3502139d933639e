"""A dataset, a detector, a recipe and a backbone become one MMDetection config."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from onebit.backbones import MODELS, OneBitConv2d, backbone_config, create_backbone
from onebit.backbones.file_schema import network_kinds, network_wholes
from onebit.commons import acceleration, guards
from onebit.commons.config_options import with_options
from onebit.commons.datasets import OWN_BOXES, Dataset, get_dataset
from onebit.commons.errors import InputError
from onebit.commons.file_options import Schema, one_of, quantity, up_to, word
from onebit.commons.task import Job, recipe_file
from onebit.detection import pretrained as pretrained_backbone
from onebit.detection import stabilizers
from onebit.detection.adapting import adapted
from onebit.detection.detectors import DETECTORS, FASTER_RCNN
from onebit.detection.detectors import OPTION as DETECTOR_OPTION
from onebit.detection.metrics import JUDGES, check_judge
from onebit.detection.parts import PARTS, default_parts

CONFIGS = Path(__file__).parent / "configs"
#: The config key, and option, that chooses the 1-bit parts.
PARTS_OPTION = "onebit_parts"
#: What the config of a dataset has to say.
DATASET_KEYS = ("train_dataloader", "test_dataloader", "test_evaluator", "test_cfg", "image_scale", "num_classes")
#: The option that chooses who computes COCO's AP.
JUDGE_OPTION = "test_evaluator.judge"
#: Below these an option may set what the recipe does not: MMDetection or mmengine checks the keys.
FREE = (
    "model.",
    "optim_wrapper.",
    "param_scheduler",
    "auto_scale_lr.",
    "train_dataloader.",
    "test_dataloader.",
    "default_hooks.",
    "visualizer.",
    "env_cfg.",
    "find_unused_parameters",
    *acceleration.KEYS,
    "load_from",
    "threads",
)
_TRAINING = r"(optim_wrapper|param_scheduler|auto_scale_lr|train_dataloader|default_hooks|visualizer|env_cfg)"
#: What a record or a checkpoint may set of a row.
FILE_OPTIONS = Schema(
    {
        **network_kinds(r"model\.backbone\."),
        r"model\.(neck|rpn_head|bbox_head|roi_head\.bbox_head)\.binarizer": word,
        r"model(\.\w+)+": quantity,
        r"train_dataloader\.num_workers": up_to(64),
        rf"{_TRAINING}(\.\w+)+": quantity,
        DETECTOR_OPTION: one_of(*DETECTORS),
        PARTS_OPTION: one_of(*PARTS),
        re.escape(JUDGE_OPTION): one_of(*JUDGES),
        rf"{stabilizers.OPTION}\.norm": word,
        rf"{stabilizers.OPTION}\.(warmup|clip_grad|loss_weights\.\w+)": quantity,
        r"train_cfg\.(max_epochs|val_interval)": up_to(100_000),
        "image_scale": up_to(10_000),
        "threads": up_to(256),
        "score_untrained|find_unused_parameters|sync_bn|compile": guards.switch,
        "amp": one_of(*acceleration.AMP[1:]),
        r"test_dataloader\.batch_size": up_to(4096),
        r"test_dataloader\.num_workers": up_to(64),
    },
    network_wholes(r"model\.backbone\."),
    unused=(rf"({_TRAINING}|amp|compile|load_from|{pretrained_backbone.OPTION}|model\.(\w+\.)*init_cfg)\b",),
)


def build_config(
    job: Job, folder: str | Path, pretrained: Mapping[str, Any] | None = None, classes: Sequence[str] | None = None
) -> Config:
    """Compose ``configs/{models,parts,datasets,recipes}`` and put the backbone in.

    The option ``detector`` is one of :data:`onebit.detection.detectors.DETECTORS`, Faster R-CNN unless asked
    otherwise. Which parts beside the backbone are 1-bit is the option ``onebit_parts``, one of
    the detector's choices, with the backbone's binarizer: ``lateral`` unless asked
    otherwise, and ``none`` for a real-valued backbone, so that a real-valued row is real-valued
    throughout. ``pretrained=PATH`` names the checkpoint that the backbone starts from
    (:mod:`onebit.detection.pretrained`), ``stabilizers.NAME`` what is in :mod:`onebit.detection.stabilizers`, and
    ``test_evaluator.judge`` who computes COCO's AP (:data:`onebit.detection.metrics.JUDGES`).
    The job's options are merged last.

    Args:
        job: names of dataset, backbone and recipe, which the config keeps as ``row``, and options.
        folder: the folder that holds the dataset; relative ``data_root``s of the config begin there.
        pretrained: what a checkpoint says it started from, instead of the option ``pretrained``.
        classes: of data of one's own that is not at hand: the names that a checkpoint states.

    Raises:
        InputError: unknown backbone, dataset, recipe or detector, an option that does not fit, or a
            checkpoint that cannot be started from.
    """
    backbone = backbone_config(job.backbone, out_indices=(0, 1, 2, 3))
    if classes is not None and job.dataset.startswith(f"{OWN_BOXES.board}-"):
        dataset: Dataset = replace(OWN_BOXES, name=job.dataset, classes=tuple(classes))
    else:
        dataset = get_dataset(job.dataset, "detection")
    with torch.device("meta"):  # only its channels and layers are asked for
        network = create_backbone(job.backbone)
    onebit = [m.binarizer.name for m in network.modules() if isinstance(m, OneBitConv2d)]
    options = job.options
    start = options.pop(pretrained_backbone.OPTION, None)
    chosen = stabilizers.take(options)
    judge = options.pop(JUDGE_OPTION, None)
    kind = guards.choice(DETECTOR_OPTION, options.pop(DETECTOR_OPTION, FASTER_RCNN), tuple(DETECTORS))
    parts = _parts(options.pop(PARTS_OPTION, None), kind, job.backbone, bool(onebit))
    cfg = Config()  # not a model's own: the runner dumps a config with a file name once more
    model = (_piece("models", kind), _piece("parts", DETECTORS[kind].parts[parts]))
    for piece in (*model, _dataset_piece(dataset), _read(recipe_file("detection", job.recipe))):
        cfg.merge_from_dict(copy.deepcopy(piece))
    cfg.merge_from_dict(cfg.pop("of_detector", {}).get(kind, {}))
    cfg.row = dict(dataset=job.dataset, backbone=job.backbone, recipe=job.recipe)

    detector = cfg.model
    detector.backbone = backbone
    detector.neck.in_channels = list(network.feature_channels)
    for part in ("neck", "rpn_head", "bbox_head"):
        if "binarizer" in detector.get(part, ()):
            detector[part].binarizer = onebit[0]
    class_head(detector).num_classes = cfg.num_classes
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="onebit.MethodLossHook")]
    adapt = cfg.pop("adapt", None)
    if adapt:
        cfg.adapted = adapted(dataset, adapt)
        options = {**cfg.adapted, **options}
    cfg = with_options(cfg, options, free=FREE)
    acceleration.check(cfg)
    stabilizers.apply(cfg, chosen)
    set_judge(cfg, judge)
    if start and not pretrained:
        with torch.device("meta"):
            network = MODELS.build(copy.deepcopy(cfg.model.backbone))
        pretrained = pretrained_backbone.describe(start, network, job.backbone)
    if pretrained:
        cfg.pretrained = dict(pretrained)
    _place(cfg, folder)
    return cfg


def class_head(model: dict[str, Any]) -> dict[str, Any]:
    """Of a model's config, the head that knows the classes."""
    return model["roi_head"]["bbox_head"] if "roi_head" in model else model["bbox_head"]


def _parts(asked: str | None, detector: str, backbone: str, onebit: bool) -> str:
    """The choice of 1-bit parts, checked against the detector and the backbone."""
    choices = tuple(DETECTORS[detector].parts) if onebit else ("none",)
    parts = default_parts(onebit) if asked is None else asked
    named = f"{PARTS_OPTION} of {detector}" if onebit else f"{PARTS_OPTION} of real-valued {backbone}"
    return guards.choice(named, parts, choices)


def set_judge(cfg: Config, judge: str | None) -> None:
    """Have ``judge`` compute the AP of ``cfg``; None leaves it as it is.

    Raises:
        InputError: no such judge, one that is not installed, or a metric that has no choice of one.
    """
    if judge is None:
        return
    if cfg.test_evaluator.type != "CocoAveragePrecision":
        raise InputError(f"{JUDGE_OPTION} {judge!r}: only COCO's AP has a choice of judges")
    cfg.test_evaluator.judge = check_judge(judge)


def dataset_config(dataset: str, folder: str | Path, judge: str | None = None) -> Config:
    """The dataset's part of a config alone: how it is read and scored.

    Args:
        dataset: its name.
        folder: as in :func:`build_config`.
        judge: as in :func:`set_judge`.

    Raises:
        InputError: unknown dataset, or a judge that it cannot have.
    """
    cfg = Config()
    cfg.merge_from_dict(copy.deepcopy(_dataset_piece(get_dataset(dataset, "detection"))))
    cfg.row = dict(dataset=dataset)
    set_judge(cfg, judge)
    _place(cfg, folder)
    return cfg


def _place(cfg: Config, folder: str | Path) -> None:
    """Put in the recipe's image scale and where the data lies."""
    for node in _dicts(cfg._cfg_dict):
        if node.get("type") == "Resize":
            node["scale"] = tuple(cfg.image_scale)
        if "ann_file" in node:
            node["data_root"] = str(Path(folder) / node["data_root"])


def _dataset_piece(dataset: Dataset) -> dict:
    """How a dataset is read and scored: its reader, a config of ours or one that its package names by path."""
    own = Path(dataset.reader)
    piece = Config.fromfile(own).to_dict() if own.is_file() else _piece("datasets", dataset.reader)
    if missing := [key for key in DATASET_KEYS if key not in piece]:
        raise InputError(f"dataset {dataset.name}: {own} does not say its {', '.join(missing)}")
    if dataset.classes:
        piece = copy.deepcopy(piece)
        piece["num_classes"] = len(dataset.classes)
        for loader in ("train_dataloader", "test_dataloader"):
            for node in _dicts(piece[loader]["dataset"]):
                if "ann_file" in node:
                    node["metainfo"] = dict(classes=dataset.classes)
    return {**piece, "split": dataset.split, "protocol": dataset.protocol, "main_metric": dataset.main_metric}


def _piece(kind: str, name: str) -> dict:
    folder = CONFIGS / kind
    guards.known(f"{kind[:-1]} of detection", name, sorted(path.stem for path in folder.glob("[!_]*.py")))
    return _read(folder / f"{name}.py")


@functools.cache  # finding one of MMDetection's own configs takes a second
def _read(path: Path) -> dict:
    return Config.fromfile(path).to_dict()


def _dicts(node) -> Iterator[dict]:
    """Every dict inside a config, outermost first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _dicts(child)
