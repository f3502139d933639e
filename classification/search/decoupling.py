"""The decoupled optimization of weights and architecture parameters (DCP-NAS, section 3.6).

alpha is [2 cell types, 14 edges, M operations]. What the paper calls "edge m" in Eqs. 34 to 36 are
operations, the columns of its alpha [E, M]: w_m are the weights of operation m.
"""

# No `from __future__ import annotations`: pydantic 2.6 would look up what fields of the options are in the modules of
# subclasses.
import math
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from onebit.backbones.conv import OneBitConv2d
from onebit.classification.search.options import STRICT, NotNegative, Share
from onebit.classification.search.space import CELL_TYPES, SearchSpace
from onebit.classification.search.supernet import Supernet

#: Side of the pooling windows, whose "weights" are K x K times 1 / K^2 (section 3.6.1).
POOL = 3


@dataclass(frozen=True, config=STRICT)
class DecouplingOptions:
    """Options of the decoupled optimization.

    Attributes:
        decoupled: whether it is done at all.
        epsilon: Eq. 36; 1 backtracks nothing, less than 1 / M every operation.
        eta: Eq. 32.
        eta_psi: Eq. 33.
        psi: psi~ at the start, not given by the paper. At 0 it would hardly leave 0, since its
            gradient has the factor eta, and nothing would be backtracked; hence 1 (ours).
        rank_from: which operation has rank 1 in Eq. 34, not given by the paper: that of the
            ``smallest`` R, so that "above the threshold" are the large ones and ``none``, which
            has no weights, stays as it is (ours), or that of the ``largest``.
    """

    decoupled: bool = True
    epsilon: Share = 0.2
    eta: NotNegative = 1e-4
    eta_psi: NotNegative = 1e-4
    psi: NotNegative = 1.0
    rank_from: Literal["smallest", "largest"] = "smallest"


def squared_norms(supernet: Supernet) -> Tensor:
    """R(w_m) = ||w_m||^2 for every operation (Eq. 35), [M]: the mean over its places in the net.

    Of 1-bit convolutions the reconstructed weights beta o sign(w) count. Pooling counts as its
    kernel of K^2 weights 1 / K^2 does, 1 / K^2; an identity 1, wherever it stands; ``none`` 0.
    """
    device = supernet.classifier.weight.device
    norms = [_squared_norm(supernet, m, name) for m, name in enumerate(supernet.space.operations)]
    return torch.stack([torch.as_tensor(norm, dtype=torch.float64, device=device) for norm in norms])


@torch.no_grad()
def _squared_norm(supernet: Supernet, m: int, name: str) -> Tensor | float:
    if "conv" not in name or name == "skip_connect":
        return {"none": 0.0, "skip_connect": 1.0}.get(name, 1 / POOL**2)
    weights, places = [], 0
    for module in supernet.operation_modules(m):
        places += 1
        for conv in module.modules():
            if isinstance(conv, OneBitConv2d):
                weights.append(conv.quantize_weight(conv.weight))
            elif isinstance(conv, nn.Conv2d):
                weights.append(conv.weight)
    return torch.stack(torch._foreach_norm(weights)).double().square().sum() / places


def backtracked_operations(norms: Tensor, epsilon: float, rank_from: str = "smallest") -> Tensor:
    """Which operations are backtracked, booleans [M]: ranking(R(w_m)) > tau (Eq. 34).

    tau = floor(epsilon M) (Eq. 36). Ranks start at 1; of equal R the operation listed first has
    the smaller rank.

    Args:
        norms: R(w_m), [M].
        rank_from: what has rank 1, the ``smallest`` or the ``largest`` R.
    """
    tau = math.floor(epsilon * len(norms) + 1e-9)  # 0.7 * 10 is a little less than 7
    order = norms.argsort(stable=True, descending=rank_from == "largest")
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, len(norms) + 1, device=norms.device)
    return ranks > tau


def backtrack(alpha_next: Tensor, alpha: Tensor, psi: Tensor, chosen: Tensor, eta: float) -> Tensor:
    """alpha~ at t + 1 (Eqs. 32 and 34): alpha_next + eta psi~ o alpha for the chosen operations.

    Args:
        alpha_next: [2, 14, M], after the optimizer's step.
        alpha: [2, 14, M], before it.
        psi: [2, 14, 1], one per edge.
        chosen: booleans [M].
    """
    return torch.where(chosen, alpha_next + eta * psi * alpha, alpha_next)


def psi_gradient(gradient: Tensor, alpha: Tensor, chosen: Tensor, eta: float) -> Tensor:
    """dL / d psi~, [2, 14, 1]: of Eq. 32 by the chain rule.

    Args:
        gradient: dL / d alpha~ at t + 1, [2, 14, M].
        alpha: at t, what psi~ was multiplied by.
        chosen: booleans [M], which operations it moved.
    """
    return (eta * gradient * alpha * chosen).sum(-1, keepdim=True)


def psi_step(psi: Tensor, gradient: Tensor, eta_psi: float) -> Tensor:
    """psi~ at t + 1 (Eq. 33): |psi - eta_psi dL / d psi|."""
    return (psi - eta_psi * gradient).abs()


class Decoupling(nn.Module):
    """The state of the decoupled optimization of one supernet's alpha.

    Call :meth:`learn` with the gradient before the optimizer's step and :meth:`backtrack` after it.

    Attributes:
        psi: psi~, [2, 14, 1].
        previous: alpha before the last step, [2, 14, M].
        chosen: the operations that it was added to, [M].
    """

    def __init__(self, space: SearchSpace, options: DecouplingOptions) -> None:
        super().__init__()
        self.options = options
        self.register_buffer("psi", torch.full((CELL_TYPES, space.shape[1], 1), options.psi))
        self.register_buffer("previous", torch.zeros(space.shape))
        self.register_buffer("chosen", torch.zeros(space.shape[2], dtype=torch.bool))

    @torch.no_grad()
    def learn(self, alpha: Tensor, gradient: Tensor) -> None:
        """Eq. 33, by the gradient [2, 14, M] at ``alpha``; remembers ``alpha``."""
        options = self.options
        to_psi = psi_gradient(gradient, self.previous, self.chosen, options.eta)
        self.psi.copy_(psi_step(self.psi, to_psi, options.eta_psi))
        self.previous.copy_(alpha)

    @torch.no_grad()
    def backtrack(self, alpha: Tensor, supernet: Supernet) -> None:
        """Eqs. 34 to 36, in place, to ``alpha`` after the optimizer's step."""
        options = self.options
        norms = squared_norms(supernet)
        chosen = backtracked_operations(norms, options.epsilon, options.rank_from)
        self.chosen.copy_(chosen)
        alpha.copy_(backtrack(alpha, self.previous, self.psi, self.chosen, options.eta))

    def inherit(self, alpha: Tensor) -> None:
        """``alpha`` was replaced: the last backtracking has no part in what it is now."""
        self.previous.copy_(alpha.detach())
        self.chosen.zero_()
