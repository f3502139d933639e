"""The reconstruction error of a 1-bit Child as a step of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onebit.backbones.binarization import ModulatedSign
from onebit.backbones.binarization.mcn import AMPLITUDE
from onebit.backbones.losses import onebit_convs


@torch.no_grad()
def add_reconstruction_gradient(child: nn.Module, mu: float) -> Tensor:
    """Add the gradient of mu L_R, L_R = sum ||w - beta o sign(w)||^2 (DCP-NAS, Eq. 7), to what is
    in ``grad`` of the Child's parameters; returns L_R.

    2 mu (w - beta o sign(w)) to every 1-bit weight; with the binarizer ``mcn``, beta = 0.02 |m|,
    also to its modulators, the sum of -2 mu (w - beta o sign(w)) 0.02 sign(w) over a filter: the
    rule of DCP-NAS's release, a derivative where m > 0 (m starts at 1). That is the gradient of
    :func:`onebit.backbones.method_losses` at f = 2 mu, of all layers at once.
    """
    convs = list(onebit_convs(child).values())
    weights = [conv.weight for conv in convs]
    quantized = [conv.quantize_weight(conv.weight) for conv in convs]
    residuals = torch._foreach_sub(weights, quantized)
    total = torch.stack(torch._foreach_norm(residuals)).square().sum()
    for conv, residual, values in zip(convs, residuals, quantized, strict=True):
        if isinstance(conv.quantize_weight, ModulatedSign):
            along = (residual * values.sign()).sum((1, 2, 3), keepdim=True)
            _add_gradient(conv.quantize_weight.modulator, along.mul_(-2 * mu * AMPLITUDE))
    torch._foreach_mul_(residuals, 2 * mu)
    for weight, residual in zip(weights, residuals, strict=True):
        _add_gradient(weight, residual)
    return total


def _add_gradient(parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad.add_(gradient)
