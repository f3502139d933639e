"""BNN: signs of weights and activations, and the straight-through estimator."""

from __future__ import annotations

from onebit.backbones.binarization.binarizer import Binarizer, hardtanh, register_binarizer
from onebit.backbones.binarization.signs import ClippedSign

# Weights are +1 and -1 without a scale; both gradients are those of hardtanh, which is also the paper's
# activation function. The paper clips the weights to [-1, 1] after every step; here one beyond it gets no gradient,
# and so stays where it is (ours). Shortcuts are those of ResNet, one per block.
BNN = register_binarizer(
    Binarizer(
        name="bnn",
        source="Hubara et al., Binarized Neural Networks, NeurIPS 2016",
        input=ClippedSign,
        weight=ClippedSign,
        activation=hardtanh,
        shortcut_per_conv=False,
    )
)
