"""Losses that belong to a binarization method, collected from a model's modules.

A module with a method ``method_losses()`` that returns scalars by name takes part. A 1-bit
convolution asks its quantizer of weights; modules of :mod:`onebit.backbones.class_centres` are called with
the features of a classifier first. A trainer adds all of them without knowing the method::

    loss = sum(model(batch).values()) + sum(onebit.backbones.method_losses(model).values())

or, where mmengine trains, by ``custom_hooks=[dict(type="onebit.MethodLossHook")]``.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.reconstruction import reconstruction_loss
from onebit.backbones.conv import OneBitConv2d
from onebit.commons.errors import InputError


def method_losses(model: nn.Module) -> dict[str, Tensor]:
    """The losses of the modules of ``model`` that are in training mode, summed by name.

    Returns:
        scalars named ``loss_amplitude``, ``loss_reconstruction``, ``loss_projection``,
        ``loss_bayes_kernel``, ``loss_bayes_feature``, ``loss_child_parent``,
        ``loss_class_centre``, or what a module of your own calls them; empty for a model without.
    """
    total: dict[str, Tensor] = {}
    for module in model.modules():
        own = getattr(module, "method_losses", None)
        if own is not None and module.training:
            for name, loss in own().items():
                total[name] = total[name] + loss if name in total else loss
    return total


def feature_losses(network: nn.Module, channels: int, num_classes: int) -> nn.ModuleList:
    """What a classifier on top of ``network`` calls with (features, labels) when it is trained.

    Args:
        network: its binarizers say which losses.
        channels: number of features.
        num_classes: number of classes.

    Returns:
        one module per kind of loss; empty for a network without.
    """
    kinds = dict.fromkeys(m.binarizer.feature_loss for m in network.modules() if isinstance(m, OneBitConv2d))
    return nn.ModuleList(kind(channels, num_classes) for kind in kinds if kind is not None)


def reconstruction_error(model: nn.Module) -> Tensor:
    """L_R of DCP-NAS (Eq. 7), sum ||w - beta o sign(w)||^2 over all 1-bit convolutions.

    beta o sign(w) is what a convolution's quantizer puts out, held constant: the gradient is
    2 (w - beta o sign(w)).
    """
    convs = onebit_convs(model).values()
    if not convs:
        raise InputError("reconstruction error: expected a network with 1-bit convolutions")
    errors = [conv.weight - conv.quantize_weight(conv.weight).detach() for conv in convs]
    return reduce(torch.add, [error.square().sum() for error in errors])


def onebit_convs(model: nn.Module) -> dict[str, OneBitConv2d]:
    """The 1-bit convolutions of ``model`` by name, in the order of its modules."""
    return {n: m for n, m in model.named_modules() if isinstance(m, OneBitConv2d)}


class ChildParentLoss(nn.Module):
    """The kernel-level Child-Parent loss of CP-NAS, named ``loss_child_parent``.

    factor * sum over layers and filters of MSE(H, H^): H the filter of the real-valued parent, H^
    the reconstructed (binarized and scaled) filter of the 1-bit child. The gradient goes through
    the child's quantizer of weights to its latent weights; the parent is held constant.
    Zhuo et al., CP-NAS, IJCAI 2020, Eqs. 3 and 4, first term; the second is
    :class:`onebit.backbones.class_centres.ClassCentreLoss`.

    A child gets both by being given them as submodules, which is enough for
    :func:`method_losses`::

        child.child_parent = ChildParentLoss(child, parent)
        child.feature_losses.append(ClassCentreLoss(channels, num_classes))

    Args:
        child: a network with 1-bit convolutions.
        parent: the same architecture real-valued. A 1-bit convolution is paired with the parent's
            convolution of the same name, or else with the next one of the same shape.
        factor: weight of the loss.

    Raises:
        InputError: no 1-bit convolution in the child, or one that has no counterpart.
    """

    def __init__(self, child: nn.Module, parent: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        # A tuple, so that neither network becomes a part of this module and of its state dict.
        self._pairs = tuple(paired_convs(child, parent))

    def method_losses(self) -> dict[str, Tensor]:
        errors = [conv.quantize_weight(conv.weight) - parent.weight.detach() for conv, parent in self._pairs]
        # Of each layer the sum over filters of each filter's mean.
        means = [error.square().sum() / error[0].numel() for error in errors]
        return {"loss_child_parent": reduce(torch.add, means) * self.factor}


def paired_convs(child: nn.Module, parent: nn.Module) -> list[tuple[OneBitConv2d, nn.Conv2d]]:
    """Each 1-bit convolution of ``child`` with its counterpart, see :class:`ChildParentLoss`."""
    named = {n: m for n, m in parent.named_modules() if isinstance(m, nn.Conv2d)}
    rest = iter(named.values())
    pairs = []
    for name, conv in onebit_convs(child).items():
        found = named.get(name)
        if found is None or found.weight.shape != conv.weight.shape:
            found = next((m for m in rest if m.weight.shape == conv.weight.shape), None)
        if found is None:
            raise InputError(
                f"Child-Parent loss: the parent has no convolution like {name} of the child, "
                f"weights {tuple(conv.weight.shape)}"
            )
        pairs.append((conv, found))
    if not pairs:
        raise InputError("Child-Parent loss: expected a child with 1-bit convolutions")
    return pairs


__all__ = ["ChildParentLoss", "feature_losses", "method_losses", "reconstruction_error", "reconstruction_loss"]
