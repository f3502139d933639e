"""Architecture parameters of a supernet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from onebit.classification.search.space import INCOMING, SearchSpace

#: Deviation of the architecture parameters at the start (Liu et al., DARTS, released code).
START = 1e-3


def start_alpha(space: SearchSpace) -> nn.Parameter:
    """alpha [2, 14, M], close to 0: every operation is almost as likely as every other."""
    return nn.Parameter(START * torch.randn(space.shape))


def start_beta(space: SearchSpace) -> nn.Parameter:
    """The edge parameters [2, 14] of PC-DARTS, likewise."""
    return nn.Parameter(START * torch.randn(space.shape[:2]))


def operation_weights(alpha: Tensor, active: Tensor | None = None) -> Tensor:
    """Softmax over the operations of each edge, [2, 14, M] (DCP-NAS, Eq. 2; DARTS, Eq. 2).

    Args:
        active: booleans like ``alpha``; the others get the weight 0, and these sum to 1.
    """
    if active is not None:
        alpha = alpha.masked_fill(~active, -torch.inf)
    return alpha.softmax(-1)


def entropy(alpha: Tensor) -> Tensor:
    """Mean over the edges of the entropy of softmax(alpha), with the natural logarithm; alpha is [2, 14, M]."""
    return torch.special.entr(operation_weights(alpha)).sum(-1).mean()


def entropy_share(alpha: Tensor) -> float:
    """:func:`entropy` as a share of the largest, that of operations which are equally likely."""
    most = math.log(alpha.shape[-1])
    return float(entropy(alpha.detach().double())) / most if most else 0.0


def edge_weights(beta: Tensor) -> Tensor:
    """Softmax over the edges into each node, [2, 14] (PC-DARTS, section 3.3)."""
    groups = [beta[:, edges.start : edges.stop].softmax(-1) for edges in INCOMING]
    return torch.cat(groups, -1)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter of ``module`` gets a gradient, and nothing is kept to compute one."""
    moved = [p for p in module.parameters() if p.requires_grad]
    for parameter in moved:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in moved:
            parameter.requires_grad_(True)
