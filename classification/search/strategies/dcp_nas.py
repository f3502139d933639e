"""DCP-NAS: a 1-bit Child searched along the tangent direction of its real-valued Parent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from onebit.classification.search.architecture import entropy_share, frozen, operation_weights, start_alpha
from onebit.classification.search.curvature import Curvature, kl_divergence
from onebit.classification.search.decoupling import Decoupling, DecouplingOptions
from onebit.classification.search.discrepancy import discrepancy
from onebit.classification.search.options import STRICT, NotNegative, Share
from onebit.classification.search.reconstruction import add_reconstruction_gradient
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies.base import (
    Batch,
    Report,
    Schedule,
    SearchData,
    Strategy,
    cross_entropy,
    gradient,
    paired,
    usable,
)
from onebit.classification.search.strategies.darts import architecture_optimizer, descend
from onebit.classification.search.supernet import Supernet


@dataclass(frozen=True, config=STRICT)
class DCPNASOptions(DecouplingOptions):
    """Options of DCP-NAS; see :class:`DecouplingOptions` too.

    Attributes:
        binarizer: of the Child.
        tangent: the tangent propagation, D in Eq. 14 (Table 3).
        reconstruction: the reconstruction error L_R in Eq. 14 (Table 3).
        curvature: what stands for the Hessian in Eq. 15, see
            :mod:`onebit.classification.search.curvature`.
        discrepancy: how D is measured (Table 5), see :mod:`onebit.classification.search.discrepancy`.
        lambda_: weight of D. The paper has 1e-4 (section 4.1.2, CIFAR-10), 1e-3 (there, ImageNet,
            and the best of Fig. 7) and 5e-3 (section 4.2.1). ``auto`` (ours) is, in every step, the lambda at which
            the tangent term is ``tangent_share`` times as long as the first-order gradient.
        tangent_share: of lambda ``auto``.
        mu: weight of L_R (section 4.2.1).
        arch_lr: of Adam for alpha (section 4.2.2).
        arch_weight_decay: of the same, as in DARTS.
    """

    binarizer: str = "mcn"
    tangent: bool = True
    reconstruction: bool = True
    curvature: Literal["fisher", "ggn", "hessian", "hessian-explicit"] = "ggn"
    discrepancy: Literal["frobenius", "l1", "cosine"] = "frobenius"
    lambda_: NotNegative | Literal["auto"] = 1e-3
    tangent_share: Share = 0.1
    mu: NotNegative = 0.2
    arch_lr: NotNegative = 1e-4
    arch_weight_decay: NotNegative = 1e-3


class DCPNAS(Strategy):
    """Discrepant Child-Parent neural architecture search.

    Li et al., DCP-NAS, Algorithm 1 and Eqs. 5 to 36. An epoch is one round of the algorithm: one
    pass over the data for the Parent, then one for the Child. Where the text cannot be followed as
    printed, see docs/search.md.

    Attributes:
        parent, child: supernets that share no weights.
        alpha, child_alpha: [2, 14, M], the architecture parameters of Parent and Child.
        tangent_shares: of this epoch's steps of the Child's alpha, the sum of the tangent term's length over that of
            the first-order gradient, and their number.
    """

    name = "dcp-nas"
    Options = DCPNASOptions
    derivation = "top2"
    searched = "child"

    def __init__(
        self,
        space: SearchSpace,
        options: Mapping[str, Any] | DCPNASOptions | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(space, options, schedule)
        options = self.options
        self.parent = Supernet(space)
        self.child = Supernet(space, options.binarizer)
        self.alpha = start_alpha(space)
        self.child_alpha = torch.nn.Parameter(self.alpha.detach().clone())
        self.parent_decoupling = Decoupling(space, options) if options.decoupled else None
        self.child_decoupling = Decoupling(space, options) if options.decoupled else None
        self._mu = options.mu if options.reconstruction else 0.0
        self._tangent = options.tangent and options.lambda_ != 0
        self.register_buffer("tangent_shares", torch.zeros(2, dtype=torch.float64))
        self.weight_optimizer("parent", self.parent)
        self.weight_optimizer("child", self.child)
        rates = options.arch_lr, options.arch_weight_decay
        self._optimizers["alpha"] = architecture_optimizer([self.alpha], *rates)
        self._optimizers["child_alpha"] = architecture_optimizer([self.child_alpha], *rates)

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        self.set_learning_rate(index, "parent", "child")
        self.tangent_shares.zero_()
        # Lines 2 to 6: the real-valued Parent.
        for train, valid in paired(data.train, data.valid):
            loss = self.parent_step(train, report)
            architecture_loss = self.parent_architecture_step(valid, report)
            report({"loss_parent": loss, "loss_parent_architecture": architecture_loss}, len(train[0]) + len(valid[0]))
        # Line 7: the architecture is inherited; weights are not shared.
        inherit(self.child_alpha, self.alpha, self.child_decoupling)
        # Lines 8 to 12: the 1-bit Child.
        for train, valid in paired(data.train, data.valid):
            losses = self.child_step(train, report)
            losses |= self.child_architecture_step(valid, report)
            report(losses, len(train[0]) + len(valid[0]))
        # Line 13.
        inherit(self.alpha, self.child_alpha, self.parent_decoupling)

    def parent_step(self, batch: Batch, report: Report) -> Tensor:
        """The Parent's weights by cross-entropy on a training batch (line 3, Eq. 5)."""
        weights = operation_weights(self.alpha.detach())
        return self.weight_step(
            self.parent,
            self._optimizers["parent"],
            lambda: cross_entropy(self.parent(batch[0], weights), batch[1]),
            report,
        )

    def parent_architecture_step(self, batch: Batch, report: Report) -> Tensor:
        """The Parent's alpha on a validation batch, then decoupling (lines 3 and 4)."""
        loss, tangent, _ = self._tangent_direction(batch, report)
        optimizer = self._optimizers["alpha"]
        if usable([tangent], report):
            descend(optimizer, [self.alpha], (tangent,), self.parent_decoupling, self.parent)
        return loss

    def _tangent_direction(self, batch: Batch, report: Report) -> tuple[Tensor, Tensor, Tensor]:
        """Line 5: the Parent's loss, its gradient to alpha, and its logits, on a validation batch.

        Eq. 11 as printed is the gradient of a sum of probabilities, which is 1: always zero. It is
        that of Eq. 5, the cross-entropy.
        """
        with frozen(self.parent), report.autocast():
            logits = self.parent(batch[0], operation_weights(self.alpha))
            loss = cross_entropy(logits, batch[1])
        (tangent,) = gradient(loss, [self.alpha], report)
        return loss.detach(), tangent, logits.detach()

    def child_step(self, batch: Batch, report: Report) -> dict[str, Tensor]:
        """The Child's weights by KL + mu L_R on a training batch (line 9, Eqs. 12, 14 and 16)."""
        with torch.no_grad(), report.autocast():
            parent_logits = self.parent(batch[0], operation_weights(self.alpha))
        weights = operation_weights(self.child_alpha.detach())
        losses = {}

        def add_reconstruction() -> None:
            losses["reconstruction"] = add_reconstruction_gradient(self.child, self._mu)

        losses["loss_child"] = self.weight_step(
            self.child,
            self._optimizers["child"],
            lambda: kl_divergence(parent_logits, self.child(batch[0], weights)),
            report,
            add_reconstruction if self._mu else None,
        )
        return losses

    def child_architecture_step(self, batch: Batch, report: Report) -> dict[str, Tensor]:
        """The Child's alpha by tangent propagation on a validation batch, then decoupling.

        Line 10, Eqs. 13 to 15: a step along gC + lambda F(dD / dgC), where gC is the gradient of KL,
        F a product with KL's curvature, which is -H_G, and D = ||gC - gP||^2 (so dD / dgC is twice
        v = gC - gP). gP, the Parent's tangent direction on the same batch, is constant.
        """
        options, losses = self.options, {}
        if self._tangent:
            _, tangent, parent_logits = self._tangent_direction(batch, report)
        else:
            with torch.no_grad(), report.autocast():
                parent_logits = self.parent(batch[0], operation_weights(self.alpha))
        curvature = Curvature(
            options.curvature if self._tangent else "fisher",  # fisher: nothing is kept for products
            self.child,
            lambda alpha: self.child(batch[0], operation_weights(alpha)),
            self.child_alpha,
            parent_logits,
            report,
        )
        step = curvature.gradient
        if self._tangent:
            distance, slope = discrepancy(curvature.gradient, tangent, options.discrepancy)
            product = curvature.product(slope)
            tiny = torch.finfo(product.dtype).tiny
            ratio = product.norm() / step.norm().clamp(min=tiny)
            factor = options.lambda_
            if factor == "auto":
                factor = options.tangent_share / ratio.clamp(min=tiny)
            step = step + factor * product
            losses |= {"discrepancy": distance, "tangent_share": factor * ratio}
        optimizer = self._optimizers["child_alpha"]
        if usable([step], report):
            descend(optimizer, [self.child_alpha], (step,), self.child_decoupling, self.child)
            if self._tangent:
                self.tangent_shares += torch.stack([losses["tangent_share"], torch.ones_like(ratio)]).double()
        return {"loss_child_architecture": curvature.loss, **losses}

    def scores(self) -> Tensor:
        """Of the Child (line 15)."""
        return operation_weights(self.child_alpha.detach())

    def measures(self) -> dict[str, float]:
        total, steps = self.tangent_shares.tolist()
        found = {"alpha_entropy": entropy_share(self.child_alpha)}
        return {**found, "tangent_share": total / steps} if steps else found


@torch.no_grad()
def inherit(heir: Tensor, alpha: Tensor, decoupling: Decoupling | None) -> None:
    """Copy an architecture, by value (lines 7 and 13)."""
    heir.copy_(alpha)
    if decoupling is not None:
        decoupling.inherit(heir)
