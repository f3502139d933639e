"""From a job to the complete config of one row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from commons import config_options
from commons.errors import InputError
from commons.task import Job
from reid.checkpoint import classification_sha256
from reid.evaluation_options import Evaluation
from reid.model import LOSSES
from reid.training import SCHEDULES

RECIPES = Path(__file__).parent / "configs" / "recipes"

#: The sampler that a loss needs when the recipe names none.
SAMPLERS = {"softmax": "RandomSampler", "triplet": "RandomIdentitySampler"}


def load_recipe(name: str) -> Config:
    """Read a recipe.

    Raises:
        InputError: there is none of that name.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.py"))
    if name not in names:
        raise InputError(f"unknown re-ID recipe {name!r}; expected one of {', '.join(names)}")
    return Config.fromfile(RECIPES / f"{name}.py")


def build_config(job: Job) -> Config:
    """The recipe, what the job names, and the job's overrides, in this order.

    Where the row starts from a checkpoint, the config names it by ``init_from_sha256``: its path
    says nothing about the row.

    Raises:
        InputError: unknown recipe, an override of something the recipe does not have, a value out
            of range, a checkpoint that cannot be started from.
    """
    cfg = load_recipe(job.recipe)
    cfg.merge_from_dict(
        dict(recipe=job.recipe, dataset=job.dataset, backbone=job.backbone, seed=job.seed)
    )
    cfg = with_options(cfg, job.cfg_options)
    check(cfg)
    if cfg.data.train_sampler is None:
        cfg.data.train_sampler = SAMPLERS[cfg.model.loss]
    path = cfg.pop("init_from")
    cfg.init_from_sha256 = classification_sha256(path, job.backbone) if path else ""
    return cfg


def init_from(job: Job) -> Path | None:
    """The checkpoint the job's backbone starts from; :func:`build_config` has checked it."""
    path = with_options(load_recipe(job.recipe), job.cfg_options).init_from
    return Path(path) if path else None


def check(cfg: Config) -> None:
    """Find values that would only fail in the middle of the work.

    Raises:
        InputError: naming the value.
    """
    for name, value, choices in (
        ("loss", cfg.model.loss, LOSSES),
        ("schedule", cfg.schedule, SCHEDULES),
    ):
        if value not in choices:
            raise InputError(f"unknown {name} {value!r}; expected one of {', '.join(choices)}")
    for name, value, least in (
        ("epochs", cfg.epochs, 1),
        ("warmup_epochs", cfg.warmup_epochs, 0),
        ("fixbase_epochs", cfg.fixbase_epochs, 0),
        ("step_epochs", cfg.step_epochs, 1),
        ("height", cfg.height, 1),
        ("width", cfg.width, 1),
        ("data.batch_size_train", cfg.data.batch_size_train, 2),
        ("data.batch_size_test", cfg.data.batch_size_test, 1),
        ("data.num_instances", cfg.data.num_instances, 2),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} {value!r}: expected a whole number of at least {least}")
    Evaluation.of(cfg)
    if cfg.model.loss == "triplet":
        _check_triplet(cfg)
    Evaluation.of(cfg)


def _check_triplet(cfg: Config) -> None:
    if cfg.data.train_sampler not in (None, SAMPLERS["triplet"]):
        raise InputError(
            f"the triplet loss needs several images of an identity in every batch: expected "
            f"data.train_sampler={SAMPLERS['triplet']}, found {cfg.data.train_sampler}"
        )
    batch, instances = cfg.data.batch_size_train, cfg.data.num_instances
    if batch % instances or batch // instances < 2:
        raise InputError(
            f"the triplet loss needs batches of at least two identities with data.num_instances "
            f"images each: {batch} images are not a multiple, at least twofold, of {instances}"
        )


def with_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """``cfg`` with dotted overrides; see :func:`commons.config_options.with_options`."""
    return config_options.with_options(cfg, options, free=("optimizer.", "model.backbone_options."))
