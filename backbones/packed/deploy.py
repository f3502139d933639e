"""From a trained network to its packed form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from onebit.backbones.backbone import Backbone
from onebit.backbones.cells import operations as cell_ops
from onebit.backbones.cells.net import Cell
from onebit.backbones.classifier import Classifier
from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.expert_conv import ExpertConv2d
from onebit.backbones.packed import cells
from onebit.backbones.packed.experts import PackedExperts
from onebit.backbones.packed.layers import (
    PackedConv,
    PackedLayer,
    PackedUnit,
    SignWeightConv,
    folds,
    is_plain,
    packed_conv,
    slope_of,
    values_of,
)
from onebit.backbones.packed.lowering import affine, plan_whole
from onebit.backbones.resnet import OneBitUnit, ResNet
from onebit.commons.errors import InputError

Rule = Callable[[Any], nn.Module]
_RULES: dict[type[nn.Module], Rule] = {}


def packed_form(module_type: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Decorator: how modules of exactly this type are packed. Children of others are looked at."""

    def register(rule: Rule) -> Rule:
        _RULES[module_type] = rule
        return rule

    return register


def deploy(network: nn.Module) -> nn.Module:
    """A packed copy of ``network`` for inference, with the same interface.

    1-bit weights become bits, 1-bit convolutions run as XNOR and popcount on 64-bit words, and
    batch norm, activation and shortcut are fused around them; real-valued layers stay with torch. The
    copy puts out what ``network`` puts out in eval mode, up to float rounding: the 1-bit sums are
    exact. Works on a backbone and on whatever contains one (a classifier, a detector).

    Raises:
        InputError: nothing in the network is 1-bit, or a part of it has no packed form (weights of
            more than one bit).
    """
    copied = copy.deepcopy(network).eval()
    convolutions = [m for m in copied.modules() if isinstance(m, OneBitConv2d)]
    if not convolutions:
        raise InputError(f"{type(network).__name__} has no 1-bit convolution to pack")
    for conv in convolutions:
        if conv.input_bits == 1:
            values_of(conv)  # another package's quantizer may be no sign
    return _convert(copied).requires_grad_(False)


def _convert(module: nn.Module) -> nn.Module:
    rule = _RULES.get(type(module))
    packed = _convert_children(module) if rule is None else rule(module)
    return plan_whole(packed) if isinstance(packed, Backbone | Classifier) else packed


def _convert_children(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        module.add_module(name, _convert(child))
    return module


@packed_form(OneBitConv2d)
def _convolution(conv: OneBitConv2d) -> nn.Module:
    if conv.quantize_input is None or conv.groups > 1:
        return SignWeightConv(conv)
    return packed_conv(conv)


@packed_form(ExpertConv2d)
def _experts(conv: ExpertConv2d) -> nn.Module:
    return PackedExperts(conv, [_convolution(conv.expert(index)) for index in range(conv.experts)])


@packed_form(OneBitUnit)
def _unit(unit: OneBitUnit) -> nn.Module:
    if unit.conv.quantize_input is None or isinstance(unit.conv, ExpertConv2d):
        return _convert_children(unit)
    norms: dict[str, Any] = dict(norm_before=unit.bn) if unit.norm_first else dict(norm=unit.bn)
    shortcut = None if unit.shortcut is None else _convert(unit.shortcut)
    if is_plain(unit.conv) and folds(unit.activation):
        return PackedUnit(PackedConv(unit.conv, **norms, activation=unit.activation), shortcut, nn.Identity())
    return PackedUnit(packed_conv(unit.conv, **norms), shortcut, unit.activation)


@packed_form(nn.Sequential)
def _sequence(layers: nn.Sequential) -> nn.Module:
    """Real-valued convolutions take the batch norm behind them in."""
    packed: list[nn.Module] = []
    for layer in layers:
        last = packed[-1] if packed else None
        if type(last) is nn.Conv2d and isinstance(layer, nn.BatchNorm2d):
            packed[-1] = fuse_conv_bn_eval(last, layer)
        else:
            packed.append(_convert(layer))
    return nn.Sequential(*packed)


@packed_form(ResNet)
def _resnet(net: ResNet) -> nn.Module:
    net.add_module("conv1", fuse_conv_bn_eval(net.conv1, net.bn1))
    net.add_module("bn1", nn.Identity())
    return _convert_children(net)


@packed_form(Cell)
def _cell(cell: Cell) -> nn.Module:
    return cells.PackedCell(
        _operation(cell.preprocess_older),
        _operation(cell.preprocess_newer),
        [[_operation(edge) for _, edge in cell.edges(node)] for node in range(len(cell.sources))],
        cell.sources,
        concatenate=cell.node_combination == "concatenate",
    )


def _operation(module: nn.Module) -> PackedLayer:
    """The packed form of what joins two nodes."""
    if isinstance(module, nn.Identity):
        return cells.PackedIdentity()
    if isinstance(module, cell_ops.Zero):
        return cells.PackedZero(module.stride)
    if isinstance(module, cell_ops.Pool):
        return cells.PackedPool(module)
    if isinstance(module, cell_ops.SeparableBlock) and (
        _covered(module.depthwise) and _covered(module.pointwise, real_input=False)
    ):
        return cells.PackedSeparableBlock(module)
    if isinstance(module, nn.Sequential):
        return cells.PackedChain([_operation(part) for part in module])
    if isinstance(module, cell_ops.Preprocess) and _covered(module.conv):
        slope = slope_of(module.prelu, module.conv.out_channels)
        return cells.PackedProjection(module.conv, affine(module.bn_in), affine(module.bn), slope)
    if isinstance(module, cell_ops.Halve) and _covered(module.conv_even):
        return cells.PackedHalve(module)
    return cells.PackedOther(_convert(module))


def _covered(conv: nn.Module, real_input: bool = True) -> TypeGuard[OneBitConv2d]:
    """Whether kernels of 1-bit weights and real-valued (or 1-bit) activations compute it."""
    return isinstance(conv, OneBitConv2d) and (conv.quantize_input is None) == real_input and is_plain(conv)
