"""The hooks of every training by :mod:`onebit.commons.engine`."""

from __future__ import annotations

import math

from onebit.commons.compat import ensure_torchvision

ensure_torchvision()  # mmengine.runner imports torchvision

# ruff: isort: split
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner, set_random_seed
from torch import Tensor

from onebit.commons.checkpoints import ROW, histories, latest_checkpoint, plain
from onebit.commons.distributed import unwrapped
from onebit.commons.errors import WorkError
from onebit.commons.progress import Progress


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """The seed of one epoch in one process.

    A large odd stride keeps the epochs of neighbouring seeds apart.
    """
    return (seed * 1_000_003 + epoch * 1009 + rank) % 2**32


@HOOKS.register_module(force=True)
class EpochSeedHook(Hook):
    """Reseed every generator at the start of each epoch from (seed, epoch, rank).

    Those of loader processes follow, see :func:`keep_worker_seed`.

    Args:
        first: the number of the first epoch.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int, first: int = 0) -> None:
        self.seed, self.first = seed, first

    def before_train_epoch(self, runner: Runner) -> None:
        set_random_seed(epoch_seed(self.seed, self.first + runner.epoch, get_rank()))


@FUNCTIONS.register_module(force=True)
def keep_worker_seed(worker: int) -> None:
    """Leave the generators of loader process ``worker`` as torch has seeded them.

    That is from the generator of the training process, so from (seed, epoch, rank). mmengine's own
    function seeds them from (seed, rank) alone: every epoch would draw the same crops and flips.
    """


@HOOKS.register_module(force=True)
class WholeEpochsHook(Hook):
    """Gradients are not accumulated over the end of an epoch.

    An epoch's last step takes the batches that are left. No gradient is then lost where a run is
    resumed, which is always between two epochs.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        batches = len(runner.train_dataloader)
        runner.optim_wrapper.initialize_count_status(runner.model, 0, batches)


def _loss_value(outputs: dict | None) -> float:
    return float(torch.as_tensor((outputs or {}).get("loss", 0.0)).detach())


def _require_finite(runner: Runner, loss: float, iteration: int) -> None:
    if not math.isfinite(loss):
        last = latest_checkpoint(runner.work_dir)
        raise WorkError(
            f"the loss is {loss} in epoch {runner.epoch + 1}, iteration {iteration}; "
            f"last good checkpoint: {last or 'none'}"
        )


@HOOKS.register_module(force=True)
class DeferredLossesHook(Hook):
    """Read the losses of some steps from the GPU in one go, so that the other steps do not wait for it.

    The other hooks see the losses of the last of these steps, and none in between. The history has all of them.

    Args:
        interval: how many steps; after as many mmengine's LoggerHook reads the history. An epoch's last step ends it.
    """

    priority = "HIGHEST"  # before the hook that keeps the history

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self._held: list[dict[str, Tensor]] = []

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        losses = {name: value.detach() for name, value in (outputs or {}).items() if isinstance(value, Tensor)}
        if not losses:
            return
        self._held.append(losses)
        for name in losses:
            del outputs[name]
        end = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if not end and not self.every_n_inner_iters(batch_idx, self.interval):
            return
        values = iter(torch.stack([loss.double() for step in self._held for loss in step.values()]).tolist())
        *before, last = [{name: next(values) for name in step} for step in self._held]
        self._held = []
        for age, step in zip(range(len(before), 0, -1), before, strict=True):
            for name, value in step.items():
                runner.message_hub.update_scalar(f"train/{name}", value)
            _require_finite(runner, step.get("loss", 0.0), runner.iter + 1 - age)
        outputs.update(last)


@HOOKS.register_module(force=True)
class FiniteLossHook(Hook):
    """Stop at the first loss that is not a number, and before weights that are not are kept.

    The checkpoints written so far stay: they are the last good state.
    """

    priority = "HIGH"

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        _require_finite(runner, _loss_value(outputs), runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        # The last step of an epoch can spoil the weights of a loss that was finite itself.
        for name, parameter in unwrapped(runner.model).named_parameters():
            if not parameter.isfinite().all():
                last = latest_checkpoint(runner.work_dir)
                raise WorkError(
                    f"{name} is not finite after epoch {runner.epoch + 1}; last good checkpoint: {last or 'none'}"
                )


@HOOKS.register_module(force=True)
class RowHook(Hook):
    """Write into every checkpoint which row it belongs to, and keep all of it to tensors and plain values.

    mmengine stores the config as Python text, and rebuilding a network from that would execute what a
    checkpoint says; its loss histories are objects, which a restricted reader refuses.
    """

    priority = "LOWEST"  # behind every hook that adds to a checkpoint

    def __init__(self, row: dict) -> None:
        self.row = row

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[ROW] = self.row
        checkpoint.update(plain(dict(checkpoint)))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if ROW in checkpoint:
            hub = checkpoint["message_hub"]
            hub["log_scalars"] = histories(hub["log_scalars"])


@HOOKS.register_module(force=True)
class ProgressHook(Hook):
    """Show epochs and iterations with the time left."""

    def __init__(self, description: str = "training") -> None:
        self.description = description

    def before_train(self, runner: Runner) -> None:
        self.progress = Progress(self.description, total=runner.max_iters)
        self.progress.start(completed=runner.iter)
        self.note = ""

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        if outputs and "loss" in outputs:
            self.note = f"epoch {runner.epoch + 1}/{runner.max_epochs} loss {_loss_value(outputs):.3f}"
        self.progress.advance(note=self.note)

    def close(self) -> None:
        if hasattr(self, "progress"):
            self.progress.stop()
