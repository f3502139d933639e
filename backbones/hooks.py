"""mmengine hooks for anything that has 1-bit layers; found in any config as ``onebit.<name>``."""

from __future__ import annotations

from typing import Any

from onebit.commons.compat import ensure_torchvision

ensure_torchvision()  # mmengine.hooks imports mmengine.runner, which imports torchvision

# ruff: isort: split
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from onebit.backbones.conv import pack_activations, set_progress
from onebit.backbones.losses import method_losses
from onebit.backbones.registry import HOOKS
from onebit.commons.distributed import unwrapped
from onebit.commons.errors import InputError


@HOOKS.register_module()
class MethodLossHook(Hook):
    """Gives the model's binarization methods what they need of a training: their losses and its progress.

    They enter the loss dict under their names (:func:`onebit.backbones.method_losses`), and with it the
    sum that is differentiated and the logs, in every training step. The progress is set at the start of
    every epoch (:func:`onebit.backbones.set_progress`), in a training that counts iterations at every
    iteration. A model without such methods is left as it is.
    """

    def before_train(self, runner) -> None:
        """Wrap ``parse_losses`` of the model.

        Raises:
            InputError: the model has none, so it is no mmengine model.
        """
        self._unwrap()
        model: Any = unwrapped(runner.model)
        if not hasattr(model, "parse_losses"):
            raise InputError(f"onebit.MethodLossHook: expected a model with parse_losses, found {type(model).__name__}")
        own = model.parse_losses

        def parse_losses(losses: dict):
            added = method_losses(model)
            taken = sorted(added.keys() & losses.keys())
            if taken:
                raise InputError(f"onebit.MethodLossHook: the model has losses named {', '.join(taken)} itself")
            return own({**losses, **added})

        model.parse_losses = parse_losses
        self._wrapped = model

    def before_train_epoch(self, runner) -> None:
        set_progress(unwrapped(runner.model), runner.epoch / runner.max_epochs)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            set_progress(unwrapped(runner.model), runner.iter / runner.max_iters)

    def after_train(self, runner) -> None:
        self._unwrap()

    def _unwrap(self) -> None:
        model = self.__dict__.pop("_wrapped", None)
        if model is not None:
            del model.parse_losses


@HOOKS.register_module()
class PackActivationsHook(Hook):
    """Switches :func:`onebit.backbones.pack_activations` on for the training."""

    def before_train(self, runner) -> None:
        pack_activations(runner.model)
