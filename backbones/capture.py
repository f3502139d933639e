"""Graphs of a network: what compiles, traces or exports it sees plain operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from onebit.commons.compat import compiling


def capturing() -> bool:
    """Whether operators are being written down (compiled, exported or traced) instead of run for their result."""
    return compiling() or torch.jit.is_tracing()


class Function(torch.autograd.Function):
    """A function with a gradient of its own, of which a trace gets the plain operators.

    A trace (:func:`torch.jit.trace`) can be used, but neither saved nor optimized, with a Python function in it.
    """

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        if torch.jit.is_tracing():
            with torch.no_grad():
                return cls.forward(_Context(), *arguments)
        return super().apply(*arguments)


class _Context:
    """What ``forward`` of a function leaves for a ``backward`` that never comes."""

    needs_input_grad = (False,) * 8

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        pass


def symbolic(x: object) -> bool:
    """Whether ``x`` stands for a tensor in :func:`torch.fx.symbolic_trace`."""
    return isinstance(x, fx.Proxy)


def as_leaf(module: nn.Module, x: Any) -> Any:
    """``module(x)`` as one call in the graph, with ``x`` a symbol, in place of what is in the module."""
    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(module), (x,), {})
