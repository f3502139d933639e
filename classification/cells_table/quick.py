"""A cell network trained several times faster on one CPU thread; the same network.

The plain network (:class:`onebit.backbones.CellNet` with a linear classifier) spends most of a step on maps that are
too small to be worth a call: some 200 batch norms, each with its passes over memory. Here its parts run fused
(:mod:`onebit.classification.cells_table.kernels`) on the plain network's own parameters, which lie in one vector, so
that all weights are binarized, and all parameters updated, at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones import CellNet
from onebit.backbones.binarization.mcn import AMPLITUDE, MCN
from onebit.backbones.cells import operations
from onebit.backbones.cells.net import Cell
from onebit.backbones.classifier import Classifier
from onebit.backbones.conv import OneBitConv2d
from onebit.classification.cells_table import kernels
from onebit.commons.errors import InputError

_NOTHING = torch.empty(0, 0)


class QuickNetwork:
    """A classifier of cells that trains fast; it shares parameters and running statistics with the plain one.

    Args:
        network: a classifier on a :class:`CellNet` with the ``cifar`` stem, one output, the binarizer ``mcn`` and the
            structure of 1-bit cells. Its parameters become views of one vector, their gradients those of another.

    Attributes:
        parameters: this vector, with its gradient, for an optimizer.

    Raises:
        InputError: another network.
    """

    def __init__(self, network: Classifier) -> None:
        backbone = network.backbone
        convs = [m for m in network.modules() if isinstance(m, OneBitConv2d)]
        if not isinstance(backbone, CellNet) or any(conv.binarizer.name != MCN.name for conv in convs) or not convs:
            raise InputError("expected a classifier on a network of cells with the binarizer mcn")
        self.network = network
        self._binarized = _Binarized(network, convs)
        self.parameters = self._binarized.parameters
        self._stem_norm = _Norm(backbone.stem[0][1])
        self._cells = [_Cell(cell, self._binarized) for cell in backbone.cells]

    def logits(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] to logits [N, classes], in the mode, training or evaluation, of the plain network."""
        backbone = self.network.backbone
        self._binarized.binarize()
        x = backbone.stem[0][0](images).transpose(0, 1).contiguous()
        older = newer = self._stem_norm(x, training=self.network.training)
        for cell in self._cells:
            older, newer = newer, cell(older, newer, self.network.training)
        return self.network.classifier(newer.mean((2, 3)).t())

    def step_gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of a batch, and the gradients of it and of the binarizer's own loss."""
        gradient = self.parameters.grad
        assert gradient is not None
        gradient.zero_()
        loss = F.cross_entropy(self.logits(images), labels)
        loss.backward()
        self._binarized.backward()
        return loss.detach()


class _Binarized:
    """All 1-bit weights of a network as one vector: w^ = 0.02 |m| sign(w), and the gradients of MCN.

    See :class:`onebit.backbones.binarization.mcn.ModulatedSign`.
    """

    def __init__(self, network: nn.Module, convs: list[OneBitConv2d]) -> None:
        weights = [conv.weight for conv in convs]
        modulators: list[Any] = [conv.quantize_weight.modulator for conv in convs]
        first = {id(p) for p in (*weights, *modulators)}
        ordered = [*weights, *modulators, *(p for p in network.parameters() if id(p) not in first)]
        flat = torch.cat([p.detach().flatten() for p in ordered])
        self.parameters = nn.Parameter(flat)
        self.parameters.grad = torch.zeros_like(flat)
        start = 0
        for p in ordered:
            p.data = self.parameters.data[start : start + p.numel()].view(p.shape)
            p.grad = self.parameters.grad[start : start + p.numel()].view(p.shape)
            start += p.numel()
        count = sum(w.numel() for w in weights)
        filters = sum(m.numel() for m in modulators)
        self.filter = torch.repeat_interleave(
            torch.arange(filters), torch.cat([torch.full((len(w),), w[0].numel()) for w in weights])
        )
        self.weight, self.to_weight = self.parameters.data[:count], self.parameters.grad[:count]
        self.modulator = self.parameters.data[count : count + filters]
        self.to_modulator = self.parameters.grad[count : count + filters]
        self.value, self.to_value = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.share = {conv.quantize_weight.reconstruction for conv in convs}.pop()
        self._place = {}
        start = 0
        for conv in convs:
            self._place[id(conv)] = slice(start, start + conv.weight.numel())
            start += conv.weight.numel()

    def of(self, conv: nn.Module) -> tuple[Tensor, Tensor]:
        """The binarized weights of a convolution and where their gradient goes: [filters, values of a filter]."""
        place = self._place[id(conv)]
        filters = conv.weight.shape[0]
        return self.value[place].view(filters, -1), self.to_value[place].view(filters, -1)

    def binarize(self) -> None:
        sign = torch.where(self.weight > 0, 1.0, -1.0).to(self.weight.dtype)
        self.sign = sign
        self.scale = self.modulator.abs()[self.filter]
        torch.mul(sign, self.scale * AMPLITUDE, out=self.value)

    def backward(self) -> None:
        """From the gradients to w^ to those to w and m, with those of the reconstruction loss."""
        error = self.weight - self.value
        torch.mul(self.to_value, self.scale, out=self.to_weight)
        self.to_weight.add_(error, alpha=self.share)
        products = self.to_value * self.weight - self.share * AMPLITUDE * error * self.sign
        self.to_modulator.zero_().index_add_(0, self.filter, products)


class _Norm:
    """A batch norm, with a PReLU and an addition before it where there are any."""

    def __init__(self, norm: nn.BatchNorm2d, prelu: nn.PReLU | None = None) -> None:
        assert norm.eps == kernels.EPSILON
        assert norm.momentum == kernels.MOMENTUM
        self.gamma, self.beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
        self.to_gamma, self.to_beta = norm.weight.grad.numpy(), norm.bias.grad.numpy()
        self.running = norm.running_mean.numpy(), norm.running_var.numpy()
        self.mean, self.variance, self.scale, self.shift, self.inverse = (np.empty_like(self.gamma) for _ in range(5))
        if prelu is None:
            self.slope, self.to_slope = np.ones_like(self.gamma), np.empty_like(self.gamma)
        else:
            self.slope, self.to_slope = prelu.weight.detach().numpy(), prelu.weight.grad.numpy()
        self.nothing = np.empty((0, 0), self.gamma.dtype)

    def fit(self, x: np.ndarray, training: bool, moments: list | None = None) -> None:
        """Set scale and shift, by the batch ``x`` [C, M] in training; ``moments`` keeps its statistics."""
        if not training:
            self.mean, self.variance = self.running
        elif moments:
            self.mean, self.variance = moments
        else:
            self.mean, self.variance = np.empty_like(self.gamma), np.empty_like(self.gamma)
            kernels.moments(x, self.mean, self.variance)
            if moments is not None:
                moments += [self.mean, self.variance]
        if training:
            kernels.keep_running(self.mean, self.variance, x.shape[1], *self.running)
        kernels.affine(self.mean, self.variance, self.gamma, self.beta, self.scale, self.shift, self.inverse)

    def apply(self, z: np.ndarray, out: np.ndarray, added: np.ndarray | None = None) -> None:
        added = self.nothing if added is None else added
        kernels.norm_prelu(z, self.scale, self.shift, self.slope, added, out)

    def backward(
        self, grad: np.ndarray, z: np.ndarray, to_v: np.ndarray, to_z: np.ndarray, added: np.ndarray | None = None
    ) -> None:
        """The gradients to ``z``, and to what was added."""
        added = self.nothing if added is None else added
        own = self.mean, self.inverse, to_v, self.to_slope, self.to_beta, self.to_gamma
        kernels.norm_prelu_backward(grad, z, self.scale, self.shift, self.slope, added, *own)
        self.centre(to_v, z, to_z)

    def centre(self, to_v: np.ndarray, z: np.ndarray, to_z: np.ndarray) -> None:
        kernels.norm_backward(to_v, z, self.scale, self.mean, self.inverse, self.to_beta, self.to_gamma, to_z)

    def __call__(self, z: Tensor, training: bool, moments: list | None = None) -> Tensor:
        self.fit(_matrix(z), training, moments)
        return _NormFunction.apply(z, self)


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, norm: _Norm) -> Tensor:
        ctx.z, ctx.norm = _matrix(z), norm
        out = _empty(ctx.z.shape, ctx.z)
        norm.apply(ctx.z, out)
        return torch.from_numpy(out.reshape(z.shape))

    @staticmethod
    def backward(ctx, grad: Tensor):
        to_z = _empty(ctx.z.shape, ctx.z)
        ctx.norm.backward(_matrix(grad.contiguous()), ctx.z, _space("v", ctx.z), to_z)
        return torch.from_numpy(to_z.reshape(grad.shape)), None


class _Separable:
    """:class:`onebit.backbones.cells.operations.SeparableBlock`."""

    def __init__(self, block: operations.SeparableBlock, binarized: _Binarized) -> None:
        conv: Any = block.depthwise
        self.dilation, self.stride, self.shortcut = conv.dilation[0], conv.stride[0], block.shortcut
        self.norm_in = _Norm(block.bn_in)
        self.norm_depthwise = _Norm(block.bn_depthwise, block.prelu_depthwise)
        self.norm_pointwise = _Norm(block.bn_pointwise, block.prelu)
        value, to_value = binarized.of(conv)
        square = (len(value), *conv.kernel_size)
        self.depthwise, self.to_depthwise = value.view(square).numpy(), to_value.view(square).numpy()
        self.pointwise, self.to_pointwise = binarized.of(block.pointwise)

    def __call__(self, x: Tensor, training: bool, moments: list | None = None) -> Tensor:
        self.norm_in.fit(_matrix(x), training, moments)
        return _SeparableFunction.apply(x, self, training)

    def signs(self, t: np.ndarray) -> Tensor:
        out = _space("signs", t)
        norm = self.norm_depthwise
        kernels.sign_prelu(t, norm.scale, norm.shift, norm.slope, out)
        return torch.from_numpy(out)


class _SeparableFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, block: _Separable, training: bool) -> Tensor:
        channels, images, height, width = shape = x.shape
        stride, norm = block.stride, block.norm_in
        if stride > 1:
            shape = (channels, images, -(-height // stride), -(-width // stride))
        maps = x.detach().numpy()
        t = _empty(shape, maps)
        kernels.norm_depthwise(maps, norm.scale, norm.shift, block.depthwise, block.dilation, stride, t)
        t = t.reshape(channels, -1)
        block.norm_depthwise.fit(t, training)
        z = _empty(t.shape, t)
        torch.mm(block.pointwise, block.signs(t), out=torch.from_numpy(z))
        block.norm_pointwise.fit(z, training)
        out = _empty(t.shape, t)
        ctx.block, ctx.x, ctx.t, ctx.z, ctx.shape = block, maps, t, z, shape
        block.norm_pointwise.apply(z, out, maps.reshape(channels, -1) if block.shortcut else None)
        return torch.from_numpy(out.reshape(shape))

    @staticmethod
    def backward(ctx, grad: Tensor):
        block, x, t, z = ctx.block, ctx.x, ctx.t, ctx.z
        flat = x.reshape(len(x), -1)
        # Never in place: where an output may overlap an input, compiled loops are not vectorized.
        to_v, to_z, to_signs, to_t = (_space(name, z) for name in ("v", "z", "to_signs", "t"))
        block.norm_pointwise.backward(_matrix(grad.contiguous()), z, to_v, to_z, flat if block.shortcut else None)
        signed = torch.from_numpy(to_z)
        torch.mm(signed, block.signs(t).t(), out=block.to_pointwise)
        torch.mm(block.pointwise.t(), signed, out=torch.from_numpy(to_signs))
        norm = block.norm_depthwise
        own = norm.mean, norm.inverse, to_z, norm.to_slope, norm.to_beta, norm.to_gamma
        kernels.sign_prelu_backward(to_signs, t, norm.scale, norm.shift, norm.slope, *own)
        norm.centre(to_z, t, to_t)
        norm, to_x, to_input = block.norm_in, _empty(x.shape, x), _space("input", x)
        kernels.norm_depthwise_backward(
            x,
            norm.scale,
            norm.shift,
            norm.mean,
            norm.inverse,
            block.depthwise,
            block.dilation,
            block.stride,
            to_t.reshape(ctx.shape),
            to_input,
            block.to_depthwise,
            norm.to_beta,
            norm.to_gamma,
        )
        gradient, rows = to_input.reshape(flat.shape), to_x.reshape(flat.shape)
        if block.shortcut:
            own = norm.scale, norm.mean, norm.inverse, norm.to_beta, norm.to_gamma
            kernels.norm_backward_added(gradient, flat, *own, to_v, rows)
        else:
            norm.centre(gradient, flat, rows)
        return torch.from_numpy(to_x), None, None


class _Pointwise(torch.autograd.Function):
    """A 1x1 convolution of maps [C, N, H, W] with binarized weights."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, to_weight: Tensor) -> Tensor:
        ctx.x, ctx.weight, ctx.to_weight = x, weight, to_weight
        return torch.mm(weight, x.view(len(x), -1)).view(len(weight), *x.shape[1:])

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad = grad.contiguous().view(len(grad), -1)
        torch.mm(grad, ctx.x.view(len(ctx.x), -1).t(), out=ctx.to_weight)
        return torch.mm(ctx.weight.t(), grad).view_as(ctx.x), None, None


class _Preprocess:
    """:class:`onebit.backbones.cells.operations.Preprocess`."""

    def __init__(self, module: operations.Preprocess, binarized: _Binarized) -> None:
        self.norm_in, self.norm = _Norm(module.bn_in), _Norm(module.bn, module.prelu)
        self.weights = binarized.of(module.conv)

    def __call__(self, x: Tensor, training: bool, moments: list | None = None) -> Tensor:
        return self.norm(_Pointwise.apply(self.norm_in(x, training, moments), *self.weights), training)


class _Halve:
    """:class:`onebit.backbones.cells.operations.Halve`."""

    def __init__(self, module: operations.Halve, binarized: _Binarized) -> None:
        self.norm_in, self.norm = _Norm(module.bn_in), _Norm(module.bn, module.prelu)
        self.even, self.odd = binarized.of(module.conv_even), binarized.of(module.conv_odd)

    def __call__(self, x: Tensor, training: bool, moments: list | None = None) -> Tensor:
        even, odd = (half.contiguous() for half in operations.every_second(self.norm_in(x, training, moments)))
        return self.norm(torch.cat((_Pointwise.apply(even, *self.even), _Pointwise.apply(odd, *self.odd))), training)


class _Pool:
    """:class:`onebit.backbones.cells.operations.Pool`."""

    def __init__(self, module: operations.Pool) -> None:
        self.largest, self.stride = isinstance(module.pool, nn.MaxPool2d), module.pool.stride
        self.norm = _Norm(module.bn)

    def __call__(self, x: Tensor, training: bool, moments: list | None = None) -> Tensor:
        return self.norm(_PoolFunction.apply(x, self.largest, self.stride), training)


class _PoolFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, largest: bool, stride: int) -> Tensor:
        out = x.new_empty(*x.shape[:2], -(-x.shape[2] // stride), -(-x.shape[3] // stride))
        kernels.pool(x.numpy(), largest, stride, out.numpy())
        ctx.x, ctx.options = x, (largest, stride)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        (out,) = ctx.saved_tensors
        to_x = torch.empty_like(ctx.x)
        kernels.pool_backward(
            ctx.x.numpy(), out.detach().numpy(), *ctx.options, grad.contiguous().numpy(), to_x.numpy()
        )
        return to_x, None, None


class _Chain:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __call__(self, x: Tensor, training: bool, moments: list | None = None) -> Tensor:
        for part in self.parts:
            x = part(x, training, moments)
            moments = None
        return x


def _quick(module: nn.Module, binarized: _Binarized) -> Any:
    """The fast form of a part of a cell.

    Raises:
        InputError: a part that has none.
    """
    if isinstance(module, nn.Identity):
        return _Chain()
    if isinstance(module, nn.Sequential):
        return _Chain(*(_quick(part, binarized) for part in module))
    if isinstance(module, operations.Pool):
        return _Pool(module)
    for kind, quick in (
        (operations.SeparableBlock, _Separable),
        (operations.Preprocess, _Preprocess),
        (operations.Halve, _Halve),
    ):
        if isinstance(module, kind):
            return quick(module, binarized)
    raise InputError(f"there is no fast form of {type(module).__name__}")


class _Cell:
    def __init__(self, cell: Cell, binarized: _Binarized) -> None:
        if cell.node_combination != "concatenate":
            raise InputError(f"node_combination {cell.node_combination!r}: expected concatenate")
        self.preprocess = [_quick(m, binarized) for m in (cell.preprocess_older, cell.preprocess_newer)]
        self.nodes = [
            [(source, _quick(edge, binarized)) for source, edge in cell.edges(node)] for node in range(len(cell.nodes))
        ]

    def __call__(self, older: Tensor, newer: Tensor, training: bool) -> Tensor:
        states = [fit(x, training) for fit, x in zip(self.preprocess, (older, newer), strict=True)]
        moments: list[list] = [[], []]
        for edges in self.nodes:
            first, *others = (edge(states[source], training, moments[source]) for source, edge in edges)
            for other in others:
                first = first + other
            states.append(first)
            moments.append([])
        return torch.cat(states[2:])


def _matrix(x: Tensor) -> np.ndarray:
    return x.detach().numpy().reshape(len(x), -1)


def _empty(shape: Sequence[int], like: np.ndarray) -> np.ndarray:
    """Of torch's memory, which begins at a multiple of 64 bytes: products of matrices are rounded by where they begin."""
    return torch.empty(tuple(shape), dtype=_TYPES[like.dtype]).numpy()


_TYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
_spaces: dict[tuple, np.ndarray] = {}


def _space(name: str, like: np.ndarray) -> np.ndarray:
    """Memory for what ends with the call that asks: the same at every call, so that it stays in the cache."""
    key = name, like.shape, like.dtype
    if key not in _spaces:
        _spaces[key] = _empty(like.shape, like)
    return _spaces[key]
