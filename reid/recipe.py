"""From a job to the complete config of one row."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

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
    """``cfg`` with dotted overrides.

    Raises:
        InputError: an override of something ``cfg`` does not have (optimizer and backbone options
            excepted: their keys are those of the optimizer and the network).
    """
    for option in options:
        if option.startswith(("optimizer.", "model.backbone_options.")):
            continue
        known = _dotted(cfg.to_dict())
        if option not in known:
            near = difflib.get_close_matches(option, known, n=3) or sorted(known)
            raise InputError(
                f"the recipe has no option {option!r}; did you mean {', '.join(near)}?"
            )
    cfg = cfg.copy()
    cfg.merge_from_dict(dict(options))
    return cfg


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        names.append(prefix + key)
        if isinstance(value, Mapping):
            names += _dotted(value, f"{prefix}{key}.")
    return names
