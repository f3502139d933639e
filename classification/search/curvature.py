"""Products of a vector with the curvature of the Child's loss in its architecture parameters.

The loss is KL(p || q), mean over the batch, of the Child's predictions q against the Parent's p,
which are constant. Its Hessian is -H_G of DCP-NAS, Eq. 15. Four ways to multiply it by a vector v:

``fisher``
    g <g, v>, g the gradient of the loss. With the score d log q_n / d alpha, its mean over the
    Parent's distribution and the batch is -g: the product of two first derivatives that Eq. 23
    ends with, at no cost. A matrix of rank 1.
``ggn``
    The exact generalized Gauss-Newton matrix: u = J v, s = (diag(q) - q q') u, J' s, J the
    Jacobian of the logits; mean over the batch. J v is the derivative of J' w to w: two passes back.
``hessian``
    The exact Hessian, as a Hessian-vector product by double backward.
``hessian-explicit``
    The same, the whole matrix written out first, one double backward a row.

Eq. 23 gets from the Fisher matrix, the mean of products of scores, to products of dp without 1/p;
scores are used here. Through 1-bit layers, J and the Hessian are those of
:mod:`onebit.classification.search.straight_through`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from onebit.classification.search.architecture import frozen
from onebit.classification.search.straight_through import twice_differentiable
from onebit.classification.search.strategies.base import Report, average_over_processes, gradient
from onebit.commons import guards

CURVATURES = ("fisher", "ggn", "hessian", "hessian-explicit")


def kl_divergence(parent_logits: Tensor, child_logits: Tensor) -> Tensor:
    """KL(p || q) in nats, mean over the batch (DCP-NAS, Eq. 12, with the sign of a loss).

    Args:
        parent_logits, child_logits: [N, classes]; the parent's are constant.
    """
    p = _log_softmax(parent_logits.detach())
    return (p.exp() * (p - _log_softmax(child_logits))).sum(1).mean()


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(1)


class Curvature:
    """The gradient of the Child's loss, and products with its curvature at the same point.

    Args:
        kind: one of :data:`CURVATURES`.
        network: the Child; only architecture parameters move.
        logits_of: from architecture parameters to logits, through ``network``.
        alpha: the architecture parameters.
        parent_logits: [N, classes] on the same images.
        report: its precision holds for the gradient; second derivatives are made in full
            precision.

    Attributes:
        loss: a scalar.
        gradient: like ``alpha``.

    Raises:
        InputError: an unknown kind, or a quantizer that cannot be differentiated twice.
    """

    def __init__(
        self,
        kind: str,
        network: nn.Module,
        logits_of: Callable[[Tensor], Tensor],
        alpha: Tensor,
        parent_logits: Tensor,
        report: Report | None = None,
    ) -> None:
        self.kind = guards.choice("curvature", kind, CURVATURES)
        self._network, self._logits_of = network, logits_of
        self._alpha = alpha.detach().requires_grad_()
        self._report = Report() if report is None else report
        second = kind != "fisher"
        precision = nullcontext() if second else self._report.autocast()
        with frozen(network), twice_differentiable(network) if second else nullcontext(), precision:
            self._logits = logits_of(self._alpha)
        loss = kl_divergence(parent_logits, self._logits)
        self.loss = loss.detach()
        if kind == "fisher":
            (self.gradient,) = gradient(loss, [self._alpha], self._report)
            return
        if kind == "ggn":
            # The gradient is J' w, w that to the logits; linear in w, so that its derivative to w
            # along v is J v.
            (to_logits,) = torch.autograd.grad(loss, [self._logits], retain_graph=True)
            self._to_logits = to_logits.requires_grad_()
            (self._graph,) = torch.autograd.grad(self._logits, [self._alpha], self._to_logits, create_graph=True)
        else:
            (self._graph,) = torch.autograd.grad(loss, [self._alpha], create_graph=True)
        self.gradient = self._graph.detach().clone()
        average_over_processes([self.gradient])

    def product(self, v: Tensor) -> Tensor:
        """F(v), like ``alpha``; averaged over processes."""
        if self.kind == "fisher":
            return self.gradient * (self.gradient * v).sum()
        if self.kind == "hessian-explicit":
            return (self.matrix() @ v.flatten()).view_as(v)
        product = self._ggn_product(v) if self.kind == "ggn" else self._hessian_product(v)
        average_over_processes([product])
        return product

    def matrix(self) -> Tensor:
        """The whole matrix [alpha.numel(), alpha.numel()], one product with a unit vector a row."""
        n = self._alpha.numel()
        units = torch.eye(n, dtype=self._alpha.dtype, device=self._alpha.device)
        rows = [self._row(unit.view_as(self._alpha)).flatten() for unit in units]
        matrix = torch.stack(rows)
        average_over_processes([matrix])
        return matrix

    def _row(self, unit: Tensor) -> Tensor:
        if self.kind == "fisher":
            return self.gradient * (self.gradient * unit).sum()
        return self._ggn_product(unit) if self.kind == "ggn" else self._hessian_product(unit)

    def _hessian_product(self, v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(self._graph, [self._alpha], v, retain_graph=True)
        return product

    def _ggn_product(self, v: Tensor) -> Tensor:
        (u,) = torch.autograd.grad(self._graph, [self._to_logits], v, retain_graph=True)
        q = _log_softmax(self._logits.detach()).exp()
        s = q * (u - (q * u).sum(1, keepdim=True)) / len(u)
        (product,) = torch.autograd.grad(self._logits, [self._alpha], s, retain_graph=True)
        return product
