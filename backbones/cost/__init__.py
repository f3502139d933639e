"""Memory and operations of a network, layer by layer, in named conventions.

Every module is counted by the rule of its type, from what it declares about itself
(``weight_bits``, ``input_bits``) and from the shapes that a forward pass shows. A module without a
rule is an error, never a silent zero. One multiply-accumulate (MAC) is one operation, BOPs are MACs
of two 1-bit operands or what a convention counts as such (w * a for operands of w and a bits), and
OPs = FLOPs + BOPs / 64 (Bi-Real Net, ReActNet). The conventions are in :mod:`onebit.backbones.cost.conventions` and in ``docs/cost.md``.

A convolution or matrix product that a module computes by a plain function, where no rule counts it,
is an error too. Other plain functions are not seen: the additions of shortcuts and of a cell's
edges, for example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from onebit.backbones.classifier import Classifier
from onebit.backbones.cost.conventions import BOPS_PER_FLOP, CONVENTIONS, GROUPS, REAL_BITS, Layer
from onebit.backbones.cost.observation import observe
from onebit.backbones.registry import create_backbone
from onebit.backbones.shapes import ShapesOnly
from onebit.commons import guards
from onebit.commons.errors import InputError


@dataclass(frozen=True)
class Row:
    """The cost of one module, its children not included.

    Attributes:
        name: its place in the network, e.g. ``cells.0.preprocess_newer.conv``.
        type: its class.
        role: ``stem``, ``preprocess``, ``depthwise``, ``pointwise``, ``classifier``, ``other``, or
            whatever else the module or a parent declares as its ``cost_role``.
        group: the role, or for ``other`` what kind of layer it is (see :data:`GROUPS`).
        weight_bits, input_bits: the widths of its two operands, 32 where real-valued.
        calls: how often the forward pass ran it.
        params_1bit: its own parameters that are stored in one bit.
        params_real: its other own parameters, those of 2 to 31 bits included.
        memory_bits: as the convention counts them; 0 for what only a training uses.
        macs: multiply-accumulates of convolutions and linear layers.
        flops, bops: as the convention counts them.
        ops: ``flops + bops / 64``; under ``cp-nas`` ``/ 58``.
    """

    name: str
    type: str
    role: str
    group: str
    weight_bits: int
    input_bits: int
    calls: int
    params_1bit: int
    params_real: int
    memory_bits: int
    macs: int
    flops: int
    bops: int
    ops: float


#: What a row takes over from a :class:`Layer`.
_SEEN = ("name", "role", "group", "weight_bits", "input_bits", "calls", "params_1bit", "params_real", "macs")
#: Columns of which a network has totals.
_SUMS = ("params_1bit", "params_real", "memory_bits", "macs", "flops", "bops", "ops")


@dataclass(frozen=True)
class Cost:
    """What :func:`cost` returns; its totals are the sums over ``rows``.

    Attributes:
        convention: a key of :data:`onebit.backbones.cost.conventions.CONVENTIONS`.
        input_shape: (3, H, W) of the image, or None where a callable ran the network.
        rows: one per module that has a rule and has parameters or ran.
        params_1bit, params_real: parameters stored in one bit, and all others.
        memory_bits: for the parameters, as the convention counts them.
        macs: multiply-accumulates of convolutions and linear layers, whatever their precision.
        flops, bops: real-valued and 1-bit operations, as the convention counts them.
        ops: ``flops + bops / 64``; under ``cp-nas`` ``/ 58``.
    """

    convention: str
    input_shape: tuple[int, ...] | None
    rows: tuple[Row, ...]
    params_1bit: int
    params_real: int
    memory_bits: int
    macs: int
    flops: int
    bops: int
    ops: float

    def summary(self) -> dict[str, Any]:
        """The totals as plain values, ready for a record."""
        shape = None if self.input_shape is None else list(self.input_shape)
        totals = {column: getattr(self, column) for column in _SUMS}
        return {"convention": self.convention, "input_shape": shape, **totals}

    def table(self) -> list[dict[str, Any]]:
        """The rows as plain dicts, in the order of the network's modules."""
        return [asdict(row) for row in self.rows]


def cost(
    module_or_name: nn.Module | str,
    input_shape: Sequence[int] = (3, 224, 224),
    convention: str = "strict",
    forward: Callable[[nn.Module], Any] | None = None,
    *,
    classes: int | None = None,
    **overrides,
) -> Cost:
    """Count the memory and the operations of a network for one image.

    The module is run once, in eval mode and without gradients; afterwards its training modes and
    buffers are what they were.

    Args:
        module_or_name: any module, or a backbone's name.
        input_shape: (3, H, W) of the one image it is run on.
        convention: ``strict``, ``dcp-nas``, ``cp-nas`` or ``mmdet-legacy``.
        forward: runs the module it is given, for modules (detectors) that do not take one image
            tensor; ``input_shape`` is not used then.
        classes: add a classifier of so many classes to a backbone: global average pooling and a
            linear layer on its last map.
        overrides: further arguments of :func:`create_backbone`, with a name only.

    Raises:
        InputError: unknown name or convention, a shape that is none, a module whose type has no
            rule (see :func:`onebit.backbones.register_cost_rule`), or a product that no rule counts.
    """
    counted = costs(module_or_name, input_shape, (convention,), forward, classes=classes, **overrides)
    return counted[convention]


def costs(
    module_or_name: nn.Module | str,
    input_shape: Sequence[int] = (3, 224, 224),
    conventions: Sequence[str] = tuple(CONVENTIONS),
    forward: Callable[[nn.Module], Any] | None = None,
    *,
    classes: int | None = None,
    **overrides,
) -> dict[str, Cost]:
    """:func:`cost` under several conventions, by name, from one run of the network."""
    for convention in conventions:
        guards.known("cost convention", convention, CONVENTIONS)
    if isinstance(module_or_name, str):
        # Only shapes matter: no memory, no arithmetic.
        with torch.device("meta"), ShapesOnly():
            module = create_backbone(module_or_name, **overrides)
    elif overrides:
        raise InputError(f"cost: {sorted(overrides)[0]!r} can only go with a backbone's name")
    else:
        module = module_or_name
    if classes is not None:
        module = Classifier(module, classes)
    if forward is None:
        shape = _checked_shape(input_shape)
        run = _image_runner(shape)
    else:
        shape, run = None, forward
    layers = observe(module, run)
    return {convention: _counted(convention, shape, layers) for convention in conventions}


def _counted(convention: str, shape: tuple[int, ...] | None, layers: Sequence[Layer]) -> Cost:
    bops_per_flop = BOPS_PER_FLOP[convention]
    rows = [
        Row(
            **{name: getattr(layer, name) for name in _SEEN},
            type=type(layer.module).__name__,
            memory_bits=0 if layer.training_only else memory_bits,
            flops=flops,
            bops=bops,
            ops=flops + bops / bops_per_flop,
        )
        for layer, (memory_bits, flops, bops) in zip(layers, CONVENTIONS[convention](layers), strict=True)
    ]
    totals = {column: sum(getattr(row, column) for row in rows) for column in _SUMS[:-1]}
    # From the totals: the sum of the rows' OPs is rounded otherwise.
    return Cost(convention, shape, tuple(rows), **totals, ops=totals["flops"] + totals["bops"] / bops_per_flop)


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(input_shape)
    if len(shape) != 3:
        raise InputError(f"input shape {shape}: expected three numbers (channels, H, W)")
    return tuple(guards.whole(f"input shape {shape}, {name}", n) for name, n in zip("CHW", shape, strict=True))


def _image_runner(shape: tuple[int, ...]) -> Callable[[nn.Module], Any]:
    def run(module: nn.Module) -> Any:
        like = next(module.parameters(), torch.empty(0))
        return module(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))

    return run


__all__ = ["GROUPS", "REAL_BITS", "Cost", "Row", "cost", "costs"]
