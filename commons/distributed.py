"""Data-parallel training: one process per device, started by ``torchrun``.

    torchrun --nproc_per_node 2 -m onebit train classification --dataset ... --backbone ...

Every process builds the same network and takes its share of every batch; gradients are averaged.
NCCL connects processes with GPUs, gloo those without. Without ``torchrun`` nothing here does
anything.
"""

from __future__ import annotations

import atexit
import copy
import gc
import os
import socket
from typing import cast

from onebit.commons.compat import ensure_torchvision

ensure_torchvision()  # mmengine.hooks imports mmengine.runner, which imports torchvision

# ruff: isort: split
import torch
import torch.distributed as dist
from mmengine.dist import all_reduce_dict
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from onebit.commons.errors import InputError
from onebit.commons.progress import silence


def launched() -> bool:
    """Whether ``torchrun`` started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def join() -> bool:
    """Join the other processes of this ``torchrun``, once; bars are the first process's.

    Returns:
        whether there is a ``torchrun``.

    Raises:
        InputError: more processes than GPUs on a machine that has some.
    """
    if not launched():
        return False
    if dist.is_initialized():
        return True
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    processes = int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available():
        if processes > torch.cuda.device_count():
            raise InputError(
                f"torchrun started {processes} processes on a machine with "
                f"{torch.cuda.device_count()} GPU(s): expected one GPU each"
            )
        torch.cuda.set_device(local)
    elif processes == int(os.environ["WORLD_SIZE"]) and "lo" in _interfaces():
        # All are here. Gloo would look up the machine's name, which need not lead anywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(_leave)
    if rank:
        silence()
    return True


def _leave() -> None:
    """End the group while the interpreter is whole.

    Runners lie in cycles of references, and the models in them hold the group: left to the
    interpreter's end, gloo's threads would ask for its lock then, which aborts the process once in
    a while (https://github.com/pytorch/pytorch/pull/179291).
    """
    gc.collect()
    dist.destroy_process_group()


def _interfaces() -> set[str]:
    try:
        return {name for _, name in socket.if_nameindex()}
    except OSError:
        return set()


def unwrapped(model: nn.Module) -> nn.Module:
    """``model`` without its wrapper for distributed training."""
    return cast(nn.Module, model.module) if is_model_wrapper(model) else model


def share_of_batch(batch_size: int) -> int:
    """What one process takes of a batch of ``batch_size``.

    Raises:
        InputError: it cannot be shared out evenly.
    """
    share, rest = divmod(batch_size, dist.get_world_size())
    if rest or not share:
        raise InputError(
            f"batch_size {batch_size} is that of all processes together: expected a multiple of "
            f"{dist.get_world_size()}, their number"
        )
    return share


class Parallel(MMDistributedDataParallel):
    """mmengine's wrapper, on CPUs too, initialized as the network it wraps."""

    def __init__(self, module: nn.Module, **options) -> None:
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else None
        super().__init__(module, device_ids=devices, broadcast_buffers=False, **options)

    def init_weights(self) -> None:
        self.module.init_weights()


class JointBatchNorms:
    """Lets every batch norm of ``model`` take its statistics over the batches of all processes.

    Parameters and running statistics stay the same tensors, so the layers can be exchanged back.
    """

    def __init__(self, model: nn.Module) -> None:
        self._exchanged = []
        for name, plain in list(model.named_modules()):
            if isinstance(plain, nn.modules.batchnorm._BatchNorm):
                if torch.cuda.is_available():
                    joint = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
                else:
                    joint = copy.copy(plain)
                    joint.__class__ = _JointBatchNorm
                path, _, attribute = name.rpartition(".")
                parent = model.get_submodule(path)
                setattr(parent, attribute, joint)
                self._exchanged.append((parent, attribute, plain))

    def undo(self) -> None:
        """Put the layers back that were there."""
        while self._exchanged:
            parent, attribute, plain = self._exchanged.pop()
            plain.train(getattr(parent, attribute).training)
            setattr(parent, attribute, plain)


class _Sum(torch.autograd.Function):
    """The sum of every process's tensor; the gradient of each is the sum of their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _Sum.forward(ctx, grad.contiguous())


class _JointBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What :class:`torch.nn.SyncBatchNorm` is on GPUs, for CPUs, from differentiable sums."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        shape = (1, -1, *[1] * (x.dim() - 2))
        channels = x.shape[1]
        count = _Sum.apply(torch.tensor(float(x.numel() // channels)))
        # Two passes, mean first: E[x^2] - E[x]^2 would lose digits.
        mean = _Sum.apply(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        running, variances, batches = self.running_mean, self.running_var, self.num_batches_tracked
        if running is not None and variances is not None and batches is not None:
            with torch.no_grad():
                batches += 1
                share = 1 / float(batches) if self.momentum is None else self.momentum
                running.lerp_(mean, share)
                variances.lerp_(variance * (count / (count - 1)), share)
        normed = centred * (variance + self.eps).rsqrt().view(shape)
        return normed * self.weight.view(shape) + self.bias.view(shape) if self.affine else normed


@HOOKS.register_module(force=True)
class JointLossHook(Hook):
    """Replaces every process's losses in logs and checks by their mean over the processes.

    All processes then see the same loss that is not finite, and end together.
    """

    priority = "HIGHEST"  # before the hook that keeps the history

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        values = {k: v for k, v in (outputs or {}).items() if isinstance(v, Tensor)}
        if dist.is_initialized() and values:
            all_reduce_dict(values, "mean")
            outputs.update(values)
