"""Score a detector that was trained elsewhere, by its MMDetection config and its checkpoint.

The model, the test pipeline and the batch size are the config's; data, ground truth and metrics are
those of the board. A config is Python and is run: use only those you trust. A checkpoint is never
unpickled beyond plain values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from onebit import backbones
from onebit.commons import guards
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import config_errors, config_text, load_weights, plain_errors, read_foreign_checkpoint, score
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome
from onebit.detection.checks import check_dataset
from onebit.detection.config import dataset_config
from onebit.detection.cost import CONVENTIONS, forward_all
from onebit.detection.metrics import facts
from onebit.detection.runner import keep_predictions, log_to, output_to_log

_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
#: Keys of a model's config that hold its number of classes, where a head has one.
_HEADS = ("bbox_head", "query_head", "mask_head")


def score_checkpoint(checkpoint: Path, config: Path, job: Job) -> Outcome:
    """Score a checkpoint of MMDetection on a board's dataset.

    Args:
        checkpoint: written by MMDetection, or a bare state dict.
        config: the MMDetection config it was trained with.
        job: names the dataset; ``backbone`` and ``recipe`` are not used.

    Returns:
        an outcome whose ``epochs`` is 0 (not known here), whose ``cost`` is empty where it cannot
        be counted (``details["cost_not_counted"]`` says why), and whose ``details["network"]`` says
        what is known of its bits.

    Raises:
        InputError: a config or checkpoint that cannot be read, that do not fit each other, or whose
            classes are not the dataset's; missing or broken dataset.
    """
    dataset = get_dataset(job.dataset, task="detection")
    ours = dataset_config(job.dataset, dataset.find(job.data_root).resolve())
    theirs = read_config(config)
    weights, stated = _read_checkpoint(checkpoint)
    cfg = scored_config(ours, theirs)
    text = config_text(cfg)
    checked = check_dataset(cfg, ["test"])
    work_dir = Path(job.work_dir)
    with output_to_log(work_dir), plain_errors(work_dir):
        log_to(work_dir / "test.log")
        register_all_modules(init_default_scope=False)
        scope = theirs.get("default_scope", "mmdet")
        with DefaultScope.overwrite_default_scope(scope), config_errors():
            detector = MODELS.build(cfg.model)
            source = DATASETS.build({**cfg.test_dataloader.dataset, "pipeline": []})
            classes = tuple(source.metainfo["classes"])
            check_classes(cfg.model, stated, classes, checkpoint, dataset.name)
            load_weights(detector, weights, checkpoint)
            loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
            evaluator = Evaluator([METRICS.build(cfg.test_evaluator)])
            evaluator.dataset_meta = source.metainfo
            metrics = score(detector.to(get_device()), loader, evaluator, f"{config.stem} test")
        cost, reason = cost_of(detector, cfg)
        details = dict(
            checked=checked,
            per_class=metrics.pop("per_class"),
            network=network_of(detector, counted=not reason),
            classes_stated=stated is not None,
            **facts(evaluator.metrics[0]),
            **(dict(cost_not_counted=reason) if reason else {}),
        )
        return Outcome(
            metrics=metrics,
            untrained=None,
            main_metric=cfg.main_metric,
            epochs=0,
            split=cfg.split,
            protocol=cfg.protocol,
            data_checksum=dataset.checksum(job.data_root),
            config=text,
            checkpoint=Path(checkpoint),
            cost=cost,
            num_classes=len(classes),
            details=details,
            predictions=keep_predictions(evaluator, work_dir / "predictions.json"),
        )


def read_config(path: Path) -> Config:
    guards.file("config", path)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        text = " ".join(str(error).split())[:300]
        raise InputError(f"cannot read config {path}: {type(error).__name__}: {text}") from error
    if not isinstance(cfg.get("model"), dict):
        raise InputError(f"config {path} has no `model`: expected one of MMDetection")
    if test_pipeline(cfg) is None:
        raise InputError(
            f"config {path} has no test pipeline: expected `test_dataloader.dataset.pipeline` or `test_pipeline`"
        )
    return cfg


def test_pipeline(cfg: Config) -> list[dict] | None:
    """How images are prepared for scoring; None where a config does not say it."""
    dataset = (cfg.get("test_dataloader") or {}).get("dataset") or {}
    return dataset.get("pipeline") or cfg.get("test_pipeline")


def _read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...] | None]:
    """The weights, and the classes that the checkpoint says it knows."""
    content, weights = read_foreign_checkpoint(path)
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    of_dataset = meta.get("dataset_meta")
    of_dataset = of_dataset if isinstance(of_dataset, dict) else {}
    stated = of_dataset.get("classes") or of_dataset.get("CLASSES") or meta.get("CLASSES")
    weights = {str(k).removeprefix("module."): v for k, v in weights.items()}
    return weights, tuple(map(str, stated)) if isinstance(stated, (list, tuple)) else None


def scored_config(ours: Config, theirs: Config) -> Config:
    """Their network and pipeline, our data and metrics."""
    pipeline = [dict(step) for step in test_pipeline(theirs) if step["type"] != "LoadAnnotations"]
    if not pipeline or pipeline[-1]["type"] != "PackDetInputs":
        raise InputError("the test pipeline of the config must end with PackDetInputs")
    keys = pipeline[-1].get("meta_keys", ())
    pipeline[-1]["meta_keys"] = tuple(dict.fromkeys((*_META_KEYS, *keys)))
    # Last, so that the ground truth is that of the image as it lies on disk.
    pipeline.insert(-1, dict(type="LoadAnnotations", with_bbox=True))
    loader = ours.test_dataloader.to_dict()
    loader["dataset"]["pipeline"] = pipeline
    loader["batch_size"] = (theirs.get("test_dataloader") or {}).get("batch_size", 1)
    cfg = Config(dict(ours.to_dict(), model=theirs.model.to_dict(), test_dataloader=loader))
    for key in ("train_dataloader", "train_pipeline", "test_pipeline", "image_scale"):
        cfg.pop(key, None)
    return cfg


def check_classes(
    model: dict, stated: tuple[str, ...] | None, classes: tuple[str, ...], checkpoint: Path, dataset: str
) -> None:
    """Raise InputError unless the detector's classes are those of the dataset, in its order."""
    if stated is not None and stated != classes:
        same = ", in another order" if sorted(stated) == sorted(classes) else ""
        first = next(
            (i for i, (a, b) in enumerate(zip(stated, classes, strict=False)) if a != b), min(len(stated), len(classes))
        )
        there = [(c[first] if first < len(c) else "nothing") for c in (stated, classes)]
        raise InputError(
            f"{checkpoint} knows {len(stated)} classes{same}, {dataset} has {len(classes)}: class "
            f"{first} is {there[0]} and not {there[1]}"
        )
    for head in _heads(model):
        if head["num_classes"] != len(classes):
            raise InputError(
                f"the config's {head.get('type', 'head')} knows {head['num_classes']} classes, "
                f"{dataset} has {len(classes)}"
            )


def _heads(node: Any, key: str = "") -> list[dict]:
    """Every head of a model's config that states its classes; those of an RPN know one and none."""
    found = []
    if isinstance(node, dict):
        if key in _HEADS and "num_classes" in node:
            found.append(node)
        for child_key, child in node.items():
            found += _heads(child, child_key)
    elif isinstance(node, (list, tuple)):
        for child in node:
            found += _heads(child, key)
    return found


def cost_of(detector: nn.Module, cfg: Config) -> tuple[dict[str, dict[str, Any]], str]:
    """The whole detector's cost at the size its images are scaled to; or why it is not known."""
    sizes = [s["scale"] for s in cfg.test_dataloader.dataset.pipeline if s["type"] == "Resize" and "scale" in s]
    if len(sizes) != 1:
        return {}, "the test pipeline states no single size"
    width, height = sizes[0] if isinstance(sizes[0], (tuple, list)) else (sizes[0],) * 2
    facts: dict[str, Any] = dict(input_shape=[3, height, width])
    if hasattr(detector, "rpn_head") and hasattr(detector, "roi_head"):
        proposals = (cfg.model.get("test_cfg") or {}).get("rpn", {}).get("max_per_img", 1000)
        facts["proposals"] = proposals
        run = forward_all(height, width, proposals)
    else:
        device = next(detector.parameters()).device

        def run(network: nn.Module) -> None:
            network(torch.zeros(1, 3, height, width, device=device), mode="tensor")

    try:
        return {
            convention: {**backbones.cost(detector, forward=run, convention=convention).summary(), **facts}
            for convention in CONVENTIONS
        }, ""
    except Exception as error:  # a layer without a rule, or a detector of another build
        return {}, " ".join(f"{type(error).__name__}: {error}".split())[:300]


def network_of(detector: nn.Module, counted: bool) -> dict[str, Any]:
    """Bits and binarizer; None where a layer is not known, because then neither are its bits."""
    if not counted:
        return dict(binarizer="unknown", weight_bits=None, activation_bits=None)
    described = backbones.describe(detector)
    return {key: described[key] for key in ("binarizer", "weight_bits", "activation_bits")}
