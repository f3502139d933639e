"""From a job to the complete config of one classification row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from onebit.backbones import backbone_config
from onebit.backbones.file_schema import network_kinds, network_wholes
from onebit.backbones.registry import MODELS
from onebit.classification import datasets, hooks, metrics, model  # noqa: F401  registered by import
from onebit.classification.augmentation import BatchAugmentation  # noqa: F401  likewise
from onebit.classification.options import KEYS, check
from onebit.classification.stages import check_stages
from onebit.commons import guards
from onebit.commons.acceleration import AMP
from onebit.commons.config_options import with_options
from onebit.commons.datasets import Dataset
from onebit.commons.errors import InputError
from onebit.commons.file_options import Kind, Schema, one_of, quantity, up_to
from onebit.commons.task import Job, recipe_file

#: Below these a job may set what the recipe does not: mmengine or the network checks the keys.
FREE = (
    "optim_wrapper.",
    "model.backbone.",
    "model.data_preprocessor.",
    "model.auxiliary_weight",
    "train_dataloader.",
    "test_dataloader.",
    "param_scheduler",
    "default_hooks.",
    "visualizer.",
    "env_cfg.",
    "stages",
    "sync_bn",
    "find_unused_parameters",
    *KEYS,
)

_TRAINING = (
    r"(optim_wrapper|param_scheduler|train_dataloader|default_hooks|visualizer|env_cfg|custom_hooks|auto_scale_lr)"
)
_OPTIONS: dict[str, Kind] = {
    r"model\.(label_smoothing|auxiliary_weight)": quantity,
    r"model\.binarize": one_of("activations", "both"),
    **network_kinds(r"model\.backbone\."),
    r"model\.data_preprocessor\.[a-z]\w*": quantity,
    rf"{_TRAINING}(\.\w+)+": quantity,
    r"train_cfg\.max_epochs|epochs": up_to(100_000),
    r"(ema|mixup|cutmix)\.(momentum|alpha)|weight_decay|find_unused_parameters|channels_last|sync_bn": quantity,
    "binarize": one_of("activations", "both"),
    "score_untrained|compile|cuda_graph": guards.switch,
    "amp": one_of(*AMP[1:]),
}
#: What a record or a checkpoint may set of a row.
FILE_OPTIONS = Schema(
    {
        r"(stages\.\d+\.)?train_dataloader\.num_workers": up_to(64),
        **_OPTIONS,
        "input_size": up_to(10_000),
        **{rf"stages\.\d+\.({pattern})": kind for pattern, kind in _OPTIONS.items()},
        r"test_dataloader\.batch_size": up_to(4096),
        r"test_dataloader\.num_workers": up_to(64),
        r"test_dataloader\.num_batch_per_epoch": up_to(2**31),
    },
    network_wholes(r"model\.backbone\."),
    # A teacher, weights to start from, and what else only training reads.
    unused=(
        rf"(stages\.\d+\.)?({_TRAINING}|distillation|amp|compile|cuda_graph|load_from|model\.backbone\.init_cfg)\b",
    ),
)


def build_config(job: Job, dataset: Dataset, folder: Path, backbone: Mapping[str, Any] | None = None) -> Config:
    """Recipe, dataset, backbone and the job's overrides, in this order.

    A recipe sets the schedule, the optimizer, ``train_dataloader.batch_size``,
    ``model.label_smoothing``; ``augmentation`` and ``image_size`` for images held in memory
    (``small``; None leaves them the size they have) and for others (``large``), for the latter
    ``min_crop_area``, where the job's option ``input_size`` goes before ``image_size``; ``train_images``, how many of those held in memory to train on at most; and
    ``auxiliary_weight`` of networks of cells. ``boards`` names other files for some boards. What
    else it can ask for is in :mod:`onebit.classification.options` and :mod:`onebit.classification.stages`.

    Args:
        backbone: config of the backbone, instead of the name in ``job``.

    Raises:
        InputError: unknown recipe or backbone, a dataset whose classes cannot be read, or an override of
            something the config does not have.
    """
    if backbone is None:
        backbone_config(job.backbone)  # an unknown name is refused before anything is written
    cfg = read_recipe(job.recipe, dataset.board)
    layout = datasets.layout_of(dataset, folder)
    classes = datasets.class_names(folder, layout)
    small = layout != "imagenet"
    if backbone is None:
        backbone = dict(
            type="onebit.create_backbone", name=job.backbone, out_indices=(3,), stem=datasets.stem_of(dataset, layout)
        )
    kind = "small" if small else "large"
    augmentation = cfg.pop("augmentation")[kind]
    options = job.options
    size = cfg.pop("image_size")[kind]
    if (asked := options.pop("input_size", None)) is not None:
        size = guards.whole("input_size", asked, 1, 10_000)
    min_area = cfg.pop("min_crop_area")
    if small:
        own = datasets.side_of(dataset, folder)
        source = dict(type="InMemoryImages", layout=layout, size=own, resize=size)
        size = size or own
    else:
        source = dict(type="StreamedImages", size=size, min_area=min_area)
    source["data_root"] = str(folder)
    part = {"images": images} if (images := cfg.pop("train_images", None)) and small else {}
    mean, std = dataset.statistics
    overrides = dict(
        default_scope="mmengine",
        input_size=size,
        model=dict(
            type="onebit.ImageClassifier",
            num_classes=len(classes),
            backbone=dict(backbone),
            data_preprocessor=dict(type="onebit.BatchAugmentation", mean=mean, std=std, **augmentation),
        ),
        train_dataloader=_dataloader("train", {**source, **part}),
        test_dataloader=_dataloader("test", source),
        test_cfg=dict(),
        test_evaluator=dict(type="TopK", num_classes=len(classes)),
    )
    auxiliary_weight = cfg.pop("auxiliary_weight", 0.0)
    cfg.merge_from_dict(overrides)
    if auxiliary_weight and _has_auxiliary_place(cfg.model.backbone):
        cfg.model.auxiliary_weight = auxiliary_weight
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="onebit.MethodLossHook")]
    cfg = with_options(cfg, options, free=FREE)
    if cfg.get("stages") and "train_cfg.max_epochs" in job.options:
        raise InputError(f"train_cfg.max_epochs: recipe {job.recipe} has stages, set stages.0.epochs and so on")
    check(cfg)
    check_stages(cfg, FREE)
    return cfg


def read_recipe(name: str, board: str) -> Config:
    """The recipe's file, or the one that its ``boards`` name for ``board``.

    Raises:
        InputError: there is no such recipe.
    """
    cfg = Config.fromfile(recipe_file("classification", name))
    other = cfg.pop("boards", {}).get(board)
    return Config.fromfile(recipe_file("classification", other)) if other else cfg


def _has_auxiliary_place(backbone: dict) -> bool:
    with torch.device("meta"):
        return bool(getattr(MODELS.build(backbone), "auxiliary_channels", 0))


def _dataloader(split: str, source: dict) -> dict:
    return dict(
        dataset=dict(split=split, **source),
        sampler=dict(type="DefaultSampler", shuffle=split == "train"),
        collate_fn=dict(type="collate_images"),
    )
