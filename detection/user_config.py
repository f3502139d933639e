"""What a user's own MMDetection config says of the detector and of the data to score.

A config is Python and is run: use only those you trust. What a checkpoint states is laid over it only as far as
:data:`onebit.detection.config.FILE_OPTIONS` lets a file set it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict

from onebit.commons import guards
from onebit.commons.config_options import with_options
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import pretrained, stabilizers
from onebit.detection.checks import leaves
from onebit.detection.config import FILE_OPTIONS, FREE, JUDGE_OPTION, set_judge

#: How data of a kind is scored: the protocol in words, and the metric that ranks.
_EVALUATORS = {
    "CocoDataset": ("COCO box AP, IoU 0.50:0.95, 100 detections per image", "AP"),
    "VOCDataset": (
        "VOC, IoU 0.5, area under curve (map_area) and 11-point (map_11pt), difficult objects ignored",
        "map_area",
    ),
}


def read_config(path: Path) -> Config:
    """Run a config.

    Raises:
        InputError: it cannot be read, or has no model or no test pipeline.
    """
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


def config_of_row(config: Path, row: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Config:
    """The config that a checkpoint was trained by, for scoring and predicting.

    Args:
        config: the user's file.
        row: of a checkpoint of :func:`onebit.detection.own_config.train`, whose options are laid over the config;
            None for a checkpoint of another program.
        options: the user's, laid over those.

    Raises:
        InputError: a config that cannot be read, or an option that does not fit or that no file may set.
    """
    stated = row["cfg_options"].taken(FILE_OPTIONS, options) if row else {}
    both = {**stated, **options}
    both.pop(pretrained.OPTION, None)  # its weights are the checkpoint's
    both.pop(JUDGE_OPTION, None)  # the metric is the suite's
    stabilizers.take(both)  # of training only
    return with_options(read_config(config), both, free=FREE)


def own_data(theirs: Config, config: Path) -> dict[str, Any]:
    """The config's own loaders, scored by the suite's metrics, in full precision.

    Returns:
        ``train_dataloader`` (empty where the config does not train), ``test_dataloader``, ``test_evaluator``,
        ``split``, ``protocol`` and ``main_metric``.

    Raises:
        InputError: no data to score on, or of a kind that the suite does not score.
    """
    tested = theirs.get("test_dataloader") or theirs.get("val_dataloader")
    if not isinstance(tested, dict):
        raise InputError(f"config {config} has no `test_dataloader`: expected data to score on")
    found = list(leaves(tested["dataset"]))
    register_all_modules(init_default_scope=False)
    kind = DATASETS.get(str(found[0].get("type")))
    name = next((n for n in _EVALUATORS if kind and issubclass(kind, DATASETS.get(n))), None)
    if len(found) != 1 or name is None or "ann_file" not in found[0]:
        raise InputError(
            f"config {config} tests on {found[0].get('type')}: expected one CocoDataset or VOCDataset, or --dataset"
        )
    leaf = found[0]
    protocol, main_metric = _EVALUATORS[name]
    evaluator = dict(type="VOCAveragePrecision")
    if name == "CocoDataset":
        evaluator = dict(type="CocoAveragePrecision", data_root=leaf.get("data_root") or "", ann_file=leaf["ann_file"])
    train = theirs.get("train_dataloader") or {}
    trained = " + ".join(str(part.get("ann_file")) for part in leaves(train["dataset"])) if train else "not stated"
    return dict(
        train_dataloader=ConfigDict(train).to_dict(),
        test_dataloader=ConfigDict(tested).to_dict(),
        test_evaluator=evaluator,
        split=f"{trained} -> {leaf['ann_file']}",
        protocol=protocol,
        main_metric=main_metric,
    )


def own_test_data(theirs: Config, config: Path, judge: str | None = None) -> Config:
    """The part of :func:`own_data` that scoring takes, as a config like that of a dataset.

    Raises:
        InputError: as for :func:`own_data`, or a judge that cannot be had.
    """
    cfg = Config({key: value for key, value in own_data(theirs, config).items() if key != "train_dataloader"})
    cfg.row = dict(dataset="")
    set_judge(cfg, judge)
    return cfg


def data_of(job: Job) -> Config:
    """What of ``job.config`` says how its data is read and scored.

    Raises:
        InputError: as for :func:`own_data`.
    """
    assert job.config is not None
    options = dict(job.options)
    judge = options.pop(JUDGE_OPTION, None)
    return own_test_data(config_of_row(job.config, None, options), job.config, judge)
