"""Train a detector by somebody's own MMDetection config.

The model, the pipelines, the batch size, the optimizer and the schedule are the config's. So is the
data, or it is a dataset of this suite, read and scored as on its board. A config is Python and is
run: use only those you trust.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from onebit.commons.config_options import with_options
from onebit.commons.datasets import get_dataset
from onebit.commons.distributed import unwrapped
from onebit.commons.engine import (
    build_runner,
    config_errors,
    config_text,
    latest_checkpoint,
    loss_curve,
    plain_errors,
    score,
)
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome
from onebit.detection import pretrained, stabilizers
from onebit.detection.checks import category_ids, check_dataset, classes_of, leaves
from onebit.detection.config import FREE, JUDGE_OPTION, dataset_config, set_judge
from onebit.detection.detectors import detector_of
from onebit.detection.foreign import check_classes, cost_of, network_of, scored_config
from onebit.detection.metrics import facts
from onebit.detection.parts import onebit_convs, parts_of
from onebit.detection.runner import keep_predictions, output_to_log
from onebit.detection.user_config import own_data, read_config

#: What a config states of a training; its validation and its visualizer are not used.
_KEPT = (
    "model",
    "train_cfg",
    "optim_wrapper",
    "param_scheduler",
    "auto_scale_lr",
    "custom_hooks",
    "default_hooks",
    "env_cfg",
    "log_processor",
    "find_unused_parameters",
    "sync_bn",
    "load_from",
)


def train(config: Path, job: Job) -> Outcome:
    """Train what a config describes, and score it.

    Args:
        config: an MMDetection config file.
        job: ``dataset`` may be empty: then the config's own data is used, which must be
            ``CocoDataset`` or ``VOCDataset``; ``backbone`` and ``recipe`` are not used.
            ``cfg_options`` are laid over the config; ``pretrained``, ``stabilizers.NAME`` and
            ``test_evaluator.judge`` are those of :func:`onebit.detection.config.build_config`.

    Returns:
        an outcome like a row's; ``cost`` is empty where it cannot be counted
        (``details["cost_not_counted"]`` says why).

    Raises:
        InputError: a config that cannot be read or that does not fit, missing or broken data,
            resume with another config.
        WorkError: the loss is not finite, or a file cannot be read or written.
    """
    work_dir = Path(job.work_dir)
    options = dict(job.cfg_options)
    start = options.pop(pretrained.OPTION, None)
    chosen = stabilizers.take(options)
    judge = options.pop(JUDGE_OPTION, None)
    theirs = with_options(read_config(config), options, free=FREE)
    register_all_modules(init_default_scope=False)
    cfg = _complete(theirs, Path(config), job)
    with config_errors():
        stabilizers.apply(cfg, chosen)
        set_judge(cfg, judge)
        if start:
            with torch.device("meta"), DefaultScope.overwrite_default_scope(cfg.default_scope):
                backbone = MODELS.build(copy.deepcopy(cfg.model.backbone))
            cfg.pretrained = pretrained.describe(start, backbone)
        checked = check_dataset(cfg)
    text = config_text(cfg)
    with output_to_log(work_dir), plain_errors(work_dir):
        dataset = get_dataset(job.dataset) if job.dataset else None
        data = {"data": dataset.checksum(job.data_root)} if dataset else {}
        leaf = next(leaves(cfg.test_dataloader.dataset))
        classes = classes_of(leaf)
        known = dict(num_classes=len(classes), classes=list(classes), category_ids=category_ids(leaf))
        row = {**_row(cfg, job, config), **data, **known}
        runner = build_runner(cfg, row, work_dir=work_dir, resume=job.resume)
        detector = unwrapped(runner.model)
        with config_errors():
            loop = runner.test_loop
            classes = tuple(loop.dataloader.dataset.metainfo["classes"])
            check_classes(cfg.model, None, classes, config, cfg.row.dataset or "the test data")
        detector.init_weights()
        if start:
            pretrained.load(detector.backbone, start)
        runner.train()
        if dataset:
            dataset.require_unchanged(job.data_root, data["data"])
        metrics = score(runner.model, loop.dataloader, loop.evaluator, f"{config.stem} test")
        kept = keep_predictions(loop.evaluator, work_dir / "predictions.json")
        cost, reason = cost_of(detector, cfg)
        return Outcome(
            details=dict(
                **facts(loop.evaluator.metrics[0]),
                train_images=len(runner.train_dataloader.dataset),
                loss_curve=loss_curve(runner),
                checked=checked,
                per_class=metrics.pop("per_class"),
                detector=detector_of(detector),
                onebit_parts=parts_of(detector),
                onebit_convs=onebit_convs(detector),
                network=network_of(detector, counted=not reason),
                stabilizers=stabilizers.read(cfg),
                **({"pretrained": cfg.pretrained.to_dict()} if start else {}),
                **(dict(cost_not_counted=reason) if reason else {}),
            ),
            metrics=metrics,
            untrained=None,
            main_metric=cfg.main_metric,
            epochs=runner.epoch,
            split=cfg.split,
            protocol=cfg.protocol,
            data_checksum=data.get("data", ""),
            config=text,
            checkpoint=latest_checkpoint(work_dir),
            cost=cost,
            num_classes=len(classes),
            predictions=kept,
        )


def _row(cfg: Config, job: Job, config: Path) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    options = {k: v for k, v in job.cfg_options.items() if k != pretrained.OPTION}
    return dict(
        cfg.row.to_dict(),
        task="detection",
        config=config.name,
        seed=job.seed,
        cfg_options=options,
        **({pretrained.OPTION: cfg.pretrained.to_dict()} if "pretrained" in cfg else {}),
    )


def _complete(theirs: Config, config: Path, job: Job) -> Config:
    """The config that the suite's runner takes."""
    for key in ("train_cfg", "train_dataloader", "optim_wrapper"):
        if not isinstance(theirs.get(key), dict):
            raise InputError(f"config {config} has no `{key}`: expected one that trains")
    if "max_epochs" not in theirs.train_cfg:
        raise InputError(f"config {config} trains by iterations: expected `train_cfg.max_epochs`")
    if "backbone" not in theirs.model:
        raise InputError(f"config {config}: expected a detector with a `backbone`")
    kept = {key: theirs[key] for key in _KEPT if theirs.get(key) is not None}
    cfg = Config(ConfigDict(copy.deepcopy(kept)).to_dict())
    cfg.default_scope = theirs.get("default_scope") or "mmdet"
    hooks = cfg.get("default_hooks", {})
    hooks.pop("visualization", None)  # draws into another visualizer than the suite's
    losses = dict(type="onebit.MethodLossHook")
    if losses not in cfg.get("custom_hooks", []):
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), losses]
    data = _data_of_suite(theirs, job) if job.dataset else own_data(theirs, config)
    cfg.merge_from_dict(data)
    cfg.test_cfg = dict(type="TestLoop")
    cfg.row = dict(dataset=job.dataset, backbone=config.stem, recipe="config")
    return cfg


def _data_of_suite(theirs: Config, job: Job) -> dict[str, Any]:
    """Loaders with the dataset's files and the config's pipelines and batch sizes."""
    folder = get_dataset(job.dataset, task="detection").find(job.data_root).resolve()
    ours = dataset_config(job.dataset, folder)
    test = scored_config(ours, theirs)
    loader = ours.train_dataloader.to_dict()
    their_loader = theirs.train_dataloader
    pipeline = next(leaves(their_loader.dataset)).get("pipeline")
    if not pipeline:
        raise InputError("expected a train pipeline in the config's `train_dataloader.dataset`")
    for leaf in leaves(loader["dataset"]):
        leaf["pipeline"] = ConfigDict(step=pipeline).to_dict()["step"]
    for key in ("batch_size", "num_workers", "persistent_workers"):
        if key in their_loader:
            loader[key] = their_loader[key]
    names = ("split", "protocol", "main_metric", "test_evaluator")
    return dict(
        train_dataloader=loader, test_dataloader=test.test_dataloader.to_dict(), **{key: ours[key] for key in names}
    )
