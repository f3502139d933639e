"""Two options of every training that change how fast it computes, not what: ``amp`` and ``compile``.

amp = "bfloat16"                mixed precision; or "float16", whose losses are scaled
compile = True                  torch.compile for the backbone; or a dict of its arguments
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

from onebit.commons.compat import ensure_torchvision, grad_scaler, require_torch

ensure_torchvision()  # mmengine.optim imports mmengine.runner, which imports torchvision

# ruff: isort: split
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from onebit.commons import guards
from onebit.commons.errors import InputError, WorkError

#: The keys of the two options.
KEYS = ("amp", "compile")
#: What ``amp`` takes.
AMP = (None, "bfloat16", "float16")


def check(cfg: MutableMapping[str, Any], amp: tuple[str | None, ...] = AMP) -> None:
    """Find a value that the options do not take.

    Raises:
        InputError: naming it.
    """
    guards.choice("amp", cfg.get("amp"), amp)
    if not isinstance(cfg.get("compile", False), (bool, dict)):
        raise InputError(f"compile {guards.shown(cfg['compile'])}: expected True, False, or compile.ARGUMENT=VALUE")


def take(cfg: MutableMapping[str, Any]) -> bool | dict[str, Any]:
    """Remove the options from a config of mmengine's; ``amp`` becomes the optimizer's wrapper.

    Returns:
        ``compile``, for :func:`compile_network`.

    Raises:
        InputError: a value that they do not take.
    """
    check(cfg)
    if dtype := cfg.pop("amp", None):
        cfg["optim_wrapper"].update(type="AmpOptimWrapper", dtype=dtype)
    return cfg.pop("compile", False)


def compile_network(network: nn.Module, option: bool | dict[str, Any]) -> None:
    """Have ``network`` compiled when it is first called; ``option`` is what ``compile`` takes.

    Raises:
        InputError: an older torch, whose compiler fails at gradients of our own.
    """
    if option:
        require_torch((2, 4), "compile")
        network.compile(**({} if option is True else option))


@contextlib.contextmanager
def compiler_errors() -> Iterator[None]:
    """Say in one line what :func:`torch.compile` could not do.

    Raises:
        InputError: there is no such backend.
        WorkError: it could not compile the network, or has no compiler to do so.
    """
    try:
        yield
    except RuntimeError as error:
        kind = type(error)
        if not kind.__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        text = " ".join(str(error).split())[:300]
        wrong = InputError if kind.__name__ == "InvalidBackend" else WorkError
        raise wrong(f"compile: {text}") from error


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """What ``AmpOptimWrapper``, which wants a GPU, becomes on a CPU.

    Args:
        dtype: ``bfloat16``, which has float32's range, so that no loss is scaled; or ``float16``.
        loss_scale: the scale to start from; ``dynamic`` is torch's.

    Raises:
        InputError: another dtype.
    """

    def __init__(self, dtype: str = "bfloat16", loss_scale: str | float = "dynamic", **arguments) -> None:
        guards.choice("optim_wrapper.dtype", dtype, AMP[1:])
        OptimWrapper.__init__(self, **arguments)  # the class between asks for a GPU
        start: dict[str, Any] = {} if loss_scale == "dynamic" else dict(init_scale=float(loss_scale))
        self.loss_scaler = grad_scaler("cpu", enabled=dtype == "float16", **start)
        self.cast_dtype = getattr(torch, dtype)
        self._scale_update_param = None

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with OptimWrapper.optim_context(self, model), torch.autocast("cpu", dtype=self.cast_dtype):
            yield
