"""Training in stages: one after the other, each from the weights that the one before left.

    stages = [
        dict(epochs=256, binarize="activations", weight_decay=1e-5),
        dict(epochs=256, binarize="both", weight_decay=0.0),
    ]

Every stage is a training of its own: its ``epochs``, and the recipe with what else the stage sets
laid over it (``optim_wrapper``, ``param_scheduler``, ``model``, ``ema``, ...; ``weight_decay`` is
short for that of the optimizer). Optimizer and schedule start anew. ``binarize`` says what the
1-bit convolutions binarize: ``activations`` alone, their weights being used as they are, or
``both``, which is the default and what the last stage has to do. Checkpoints of the last stage lie
in the work folder, those of stage N before it in ``stageN`` below, and every one says its stage:
a run that was killed anywhere goes on from there.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from onebit.classification.options import check, expand
from onebit.commons import guards
from onebit.commons.config_options import with_options
from onebit.commons.errors import InputError

BINARIZE = ("activations", "both")


@dataclass(frozen=True)
class Stage:
    """One training of a network.

    Attributes:
        cfg: its complete config.
        work_dir: where its checkpoints go.
        row: what a checkpoint says of it besides: its number, from 1, and ``binarize`` where that
            is not ``both``; nothing where there is only one stage.
        epochs_before: of the stages before it.
    """

    cfg: Config
    work_dir: Path
    row: dict[str, Any] = field(default_factory=dict)
    epochs_before: int = 0


def check_stages(cfg: Config, free: tuple[str, ...]) -> None:
    """Check ``cfg.stages``, and set ``train_cfg.max_epochs`` to the epochs of all of them.

    Raises:
        InputError: stages that cannot be trained, or that set something the recipe does not have.
    """
    stages = cfg.get("stages")
    if not stages:
        return
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise InputError(f"stages {stages!r}: expected a list of dicts")
    for number, stage in enumerate(stages, start=1):
        guards.whole(f"stage {number}: epochs", stage.get("epochs"))
        guards.choice(f"stage {number}: binarize", stage.get("binarize", "both"), BINARIZE)
        check(_with(cfg, stage, free))
    if stages[-1].get("binarize", "both") != "both":
        raise InputError("the last stage: expected binarize='both', found 'activations'")
    cfg.train_cfg.max_epochs = sum(stage.epochs for stage in stages)


def _with(cfg: Config, stage: dict[str, Any], free: tuple[str, ...]) -> Config:
    changes = {k: v for k, v in stage.items() if k not in ("epochs", "binarize", "weight_decay")}
    cfg = copy.deepcopy(with_options(cfg, changes, free))
    cfg.train_cfg.max_epochs = stage["epochs"]
    if "weight_decay" in stage:
        cfg.optim_wrapper.optimizer.weight_decay = stage["weight_decay"]
    if stage.get("binarize", "both") != "both":
        cfg.model.binarize = stage["binarize"]
    return cfg


def stages_of(cfg: Config, work_dir: Path, free: tuple[str, ...]) -> list[Stage]:
    """The trainings that ``cfg`` asks for, in turn; one where it has no ``stages``."""
    if not cfg.get("stages"):
        return [Stage(expand(cfg), work_dir)]
    found: list[Stage] = []
    before = 0
    for number, changes in enumerate(cfg.stages, start=1):
        last = number == len(cfg.stages)
        folder = work_dir if last else work_dir / f"stage{number}"
        staged = expand(check(_with(cfg, changes, free)))
        row: dict[str, Any] = dict(stage=number)
        if staged.model.get("binarize", "both") != "both":
            row["binarize"] = staged.model.binarize
        found.append(Stage(staged, folder, row, before))
        before += changes.epochs
    return found


def forget(stages: list[Stage]) -> None:
    """Remove the checkpoints of earlier runs, the last stage's first: none must find a later one."""
    if is_main_process():
        for stage in reversed(stages):
            for path in stage.work_dir.glob("epoch_*.pth"):
                path.unlink(missing_ok=True)
    barrier()
