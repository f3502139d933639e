"""Schedules of what is no learning rate."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from onebit.commons import guards
from onebit.commons.distributed import unwrapped
from onebit.commons.errors import InputError


@HOOKS.register_module(force=True)
class DropPathSchedule(Hook):
    """Raise a network's ``drop_path_prob`` linearly, epoch by epoch, from 0 towards ``final``.

    In epoch e of E, counted from 0, it is final * e / E (DARTS). Ask for it with
    ``default_hooks.drop_path.type=DropPathSchedule default_hooks.drop_path.final=0.2``.

    Args:
        final: a probability, less than 1. DARTS has 0.2 on CIFAR-10, PC-DARTS 0.3.

    Raises:
        InputError: another value, or a backbone without drop path.
    """

    def __init__(self, final: float = 0.2) -> None:
        self.final = guards.number("DropPathSchedule final", final, 0, below=1)

    def before_train_epoch(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        if not hasattr(model.backbone, "drop_path_prob"):
            raise InputError(f"DropPathSchedule: expected a network of cells, found {type(model.backbone).__name__}")
        model.backbone.drop_path_prob = self.final * runner.epoch / runner.max_epochs
