"""Mixed precision on CPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from onebit.commons.compat import ensure_torchvision

ensure_torchvision()  # mmengine.optim imports mmengine.runner, which imports torchvision

# ruff: isort: split
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from onebit.commons.errors import InputError


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpOptimWrapper(OptimWrapper):
    """What ``AmpOptimWrapper``, which wants a GPU, becomes on a CPU.

    Args:
        dtype: ``bfloat16``, which has float32's range, so that no loss is scaled.
        loss_scale: of GPUs; has no effect.

    Raises:
        InputError: another dtype.
    """

    def __init__(self, dtype: str = "bfloat16", loss_scale=None, **arguments) -> None:
        if dtype != "bfloat16":
            raise InputError(f"optim_wrapper.dtype {dtype!r}: expected 'bfloat16' on a CPU")
        super().__init__(**arguments)

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
