"""Forward and backward of a network as two CUDA graphs: hundreds of small kernels, started by two calls.

A 1-bit network has many more kernels than the real-valued one, and each is shorter than the time that Python
takes to start it. The kernels and so the results are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Whole(nn.Module):
    """A network in a module whose ``forward`` may be replaced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class GraphedNetwork:
    """Calls a network in training through CUDA graphs, which are captured when a batch first asks for them.

    Batches of another shape, such as the last one of an epoch, run as they would without graphs. What a graph
    holds may be overwritten by the next call: use a result, backward included, before that.

    Not a module, so that it has no place in checkpoints, and a copy captures graphs of its own.
    """

    def __init__(self) -> None:
        self._graphed: nn.Module | None = None
        self._key: tuple | None = None

    def __deepcopy__(self, memo: dict) -> GraphedNetwork:
        return type(self)()

    def forget(self) -> None:
        """Capture anew: numbers that are no tensors, such as the progress of a training, are constants of a graph."""
        self._graphed = self._key = None

    def __call__(self, network: nn.Module, x: Tensor) -> Any:
        """``network(x)`` on a GPU."""
        if not network.training:
            return network(x)
        key = (x.shape, x.stride(), x.dtype)
        if self._key is None:
            self._graphed, self._key = _captured(network, x), key
        return network(x) if self._graphed is None or key != self._key else self._graphed(x)


def _captured(network: nn.Module, x: Tensor) -> nn.Module:
    # Capturing runs the network some times, which moves the running statistics of its norms.
    before = [buffer.clone() for buffer in network.buffers()]
    graphed = torch.cuda.make_graphed_callables(_Whole(network).train(), (x.clone(),), allow_unused_input=True)
    with torch.no_grad():
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.copy_(value)
    return graphed
