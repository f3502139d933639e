"""From a job to the complete config of one row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from commons import config_options
from commons.errors import InputError
from commons.task import Job

RECIPES = Path(__file__).parent / "configs" / "recipes"


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

    Raises:
        InputError: unknown recipe, or an override of something the recipe does not have.
    """
    cfg = load_recipe(job.recipe)
    cfg.merge_from_dict(
        dict(recipe=job.recipe, dataset=job.dataset, backbone=job.backbone, seed=job.seed)
    )
    return with_options(cfg, job.cfg_options)


def with_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """``cfg`` with dotted overrides; see :func:`commons.config_options.with_options`."""
    return config_options.with_options(cfg, options, free=("optimizer.", "model.backbone_options."))
