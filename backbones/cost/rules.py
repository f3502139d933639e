"""What one call of a module costs, by the module's type.

A rule takes the module, the inputs of one call and its output, and returns a :class:`Count`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from onebit.backbones.binarization import Maxout, RPReLU
from onebit.backbones.cells.operations import Zero
from onebit.commons.errors import InputError


@dataclass(frozen=True)
class Count:
    """The work of one call.

    Attributes:
        macs: multiply-accumulates.
        elementwise: what the flops counter of old mmdetection adds for this call beside the MACs:
            batch norm, ReLU, pooling, bias. Other conventions leave it out.
    """

    macs: int = 0
    elementwise: int = 0


Rule = Callable[[nn.Module, tuple, Any], Count]

_BY_TYPE: dict[type[nn.Module], Rule] = {}
_BY_NAME: dict[str, Rule] = {}


def register_cost_rule(module_type: type[nn.Module] | str, rule: Rule) -> None:
    """Count modules of ``module_type`` and its subclasses by ``rule``, replacing an earlier rule.

    Args:
        module_type: a class, or a class's name where its package should not be imported for it.
        rule: ``rule(module, inputs, output) -> Count`` for one call. Parameters are counted from
            the module itself.

    Raises:
        InputError: neither a module class nor a name.
    """
    if isinstance(module_type, str):
        _BY_NAME[module_type] = rule
    elif isinstance(module_type, type) and issubclass(module_type, nn.Module):
        _BY_TYPE[module_type] = rule
    else:
        raise InputError(f"cost rule for {module_type!r}: expected a module class or its name")


def find_rule(module: nn.Module) -> Rule | None:
    """The rule of the closest class in ``module``'s line of inheritance; None if there is none.

    A module with an attribute ``precision`` is a quantizer and needs no rule of its own.
    """
    for base in type(module).__mro__:
        if base in _BY_TYPE:
            return _BY_TYPE[base]
        if base.__name__ in _BY_NAME:
            return _BY_NAME[base.__name__]
    return _uncounted if isinstance(getattr(module, "precision", None), int) else None


def _uncounted(module: nn.Module, inputs: tuple, output: Any) -> Count:
    return Count()


def _convolution(module: Any, inputs: tuple, output: Any) -> Count:
    taps = math.prod(module.kernel_size) * module.in_channels // module.groups
    results = output.numel()
    if getattr(module, "input_bits", 0) == 1 and getattr(module, "weight_affine", False):
        # The offsets of the weights multiply the sum of the signs below the kernel: one filter more.
        results += results // module.out_channels * module.groups
    return Count(results * taps, 0 if module.bias is None else output.numel())


def _transposed_convolution(module: Any, inputs: tuple, output: Any) -> Count:
    taps = math.prod(module.kernel_size) * module.out_channels // module.groups
    return Count(inputs[0].numel() * taps, 0 if module.bias is None else output.numel())


def _linear(module: Any, inputs: tuple, output: Any) -> Count:
    return Count(inputs[0].numel() * module.out_features)


def _norm(module: nn.Module, inputs: tuple, output: Any) -> Count:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return Count(elementwise=inputs[0].numel() * (2 if affine else 1))


def _activation(module: nn.Module, inputs: tuple, output: Any) -> Count:
    return Count(elementwise=output.numel())


def _pooling(module: nn.Module, inputs: tuple, output: Any) -> Count:
    return Count(elementwise=inputs[0].numel())


for _types, _rule in {
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _transposed_convolution,
    (nn.Linear,): _linear,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm): _norm,
    (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm): _norm,
    (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.Upsample, Maxout): _activation,
    (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d): _pooling,
    (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d): _pooling,
    (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d): _pooling,
    # No multiply-accumulates, and nothing in the flops counter of old mmdetection.
    (nn.Sigmoid, nn.Tanh, nn.SiLU, nn.GELU, nn.Mish, nn.Hardswish, nn.Hardsigmoid): _uncounted,
    (nn.Hardtanh, nn.Softmax, nn.LogSoftmax): _uncounted,
    (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Embedding, Zero): _uncounted,
    # Its PReLU is counted as a module of its own; its two shifts fold into thresholds and norms.
    (RPReLU,): _uncounted,
}.items():
    for _type in _types:
        register_cost_rule(_type, _rule)

# Of mmcv, mmengine and mmdet, which are not imported for this. RoIAlign interpolates; the data
# preprocessor normalizes the image; Scale multiplies a map by one number.
for _name in ("RoIAlign", "RoIPool", "BaseDataPreprocessor", "Scale"):
    register_cost_rule(_name, _uncounted)
