"""Score a detector that was trained elsewhere, or by a config of one's own: by this config and its checkpoint.

The model, the test pipeline and the batch size are the config's. Data and ground truth are those of a dataset of the
suite, or the config's own; the metrics are the suite's. A config is Python and is run: use only those you trust. A checkpoint is never
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
from onebit.backbones import deploy
from onebit.commons import guards
from onebit.commons.checkpoints import ROW, row_of
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import config_errors, config_text, load_weights, plain_errors, read_foreign_checkpoint, score
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome
from onebit.detection.checks import check_dataset
from onebit.detection.config import JUDGE_OPTION, dataset_config
from onebit.detection.cost import CONVENTIONS, forward_all, most_proposals
from onebit.detection.detectors import detector_of
from onebit.detection.metrics import facts
from onebit.detection.runner import keep_predictions, log_to, output_to_log
from onebit.detection.user_config import config_of_row, own_test_data, test_pipeline

_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
#: Keys of a model's config that hold its number of classes, where a head has one.
_HEADS = ("bbox_head", "query_head", "mask_head")


def score_checkpoint(checkpoint: Path, config: Path, job: Job, packed: bool = False) -> Outcome:
    """Score a checkpoint of MMDetection, or of :func:`onebit.detection.own_config.train`.

    Args:
        checkpoint: written by MMDetection, a bare state dict, or ours.
        config: the MMDetection config it was trained with. The options that a checkpoint of ours states are laid over
            it.
        job: names the dataset, or none: then the config's own data is scored. ``cfg_options`` are laid over all;
            ``backbone`` and ``recipe`` are not used.
        packed: score what :func:`onebit.backbones.deploy` makes of the detector, on the CPU.

    Returns:
        an outcome whose ``epochs`` is 0 (not known here), whose ``cost`` is empty where it cannot
        be counted (``details["cost_not_counted"]`` says why), and whose ``details["network"]`` says
        what is known of its bits.

    Raises:
        InputError: a config or checkpoint that cannot be read, that do not fit each other, or whose
            classes are not the dataset's; missing or broken dataset; ``packed`` and no 1-bit network.
    """
    guards.file("config", config)
    row, weights, stated = _read_checkpoint(checkpoint)
    theirs = config_of_row(config, row, job.cfg_options)
    dataset = get_dataset(job.dataset, task="detection") if job.dataset else None
    judge = job.options.get(JUDGE_OPTION)
    if dataset:
        cfg = scored_config(dataset_config(job.dataset, dataset.find(job.data_root).resolve(), judge), theirs)
    else:
        cfg = own_test_data(theirs, config, judge)
        cfg.model = theirs.model.to_dict()
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
            check_classes(cfg.model, stated, classes, checkpoint, job.dataset or f"the data of {config.name}")
            load_weights(detector, weights, checkpoint)
            loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
            evaluator = Evaluator([METRICS.build(cfg.test_evaluator)])
            evaluator.dataset_meta = source.metainfo
            scored = deploy(detector) if packed else detector.to(get_device())
            metrics = score(scored, loader, evaluator, f"{config.stem} test")
        cost, reason = cost_of(detector, cfg)
        details = dict(
            checked=checked,
            per_class=metrics.pop("per_class"),
            detector=detector_of(detector),
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
            data_checksum=dataset.checksum(job.data_root) if dataset else "",
            config=text,
            checkpoint=Path(checkpoint),
            cost=cost,
            num_classes=len(classes),
            details=details,
            # Not the file that training kept.
            predictions=keep_predictions(evaluator, work_dir / f"test_{'packed_' if packed else ''}predictions.json"),
        )


def _read_checkpoint(path: Path) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor], tuple[str, ...] | None]:
    """The row of a checkpoint of one's own config, the weights, and the classes that the checkpoint says it knows."""
    content, weights = read_foreign_checkpoint(path)
    ours = isinstance(content.get(ROW), dict) and "config" in content[ROW]
    row = row_of(content, path) if ours else None
    meta = content.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    of_dataset = meta.get("dataset_meta")
    of_dataset = of_dataset if isinstance(of_dataset, dict) else {}
    stated = of_dataset.get("classes") or of_dataset.get("CLASSES") or meta.get("CLASSES")
    weights = {str(k).removeprefix("module."): v for k, v in weights.items()}
    return row, weights, tuple(map(str, stated)) if isinstance(stated, (list, tuple)) else None


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
    proposals = most_proposals(cfg.model)
    if proposals is not None:
        facts["proposals"] = proposals
    run = forward_all(height, width, proposals)
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
