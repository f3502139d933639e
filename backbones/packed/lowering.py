"""From modules to the steps of a plan, and running it in their place.

A module with a method ``lower`` says its steps itself; those of torch have a rule here; every other one is traced
(:mod:`torch.fx`) down to these. A network with a part that has no steps runs module by module.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Hashable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.utils import _pair as pair

from onebit.backbones.binarization import RPReLU
from onebit.backbones.binarization.adabin import Maxout
from onebit.backbones.capture import symbolic
from onebit.backbones.packed.builder import Builder, Map, Norm
from onebit.backbones.prelu import PReLU
from onebit.commons.errors import InputError
from onebit.packed import engine, recipes
from onebit.packed.plan import Line, Plan
from onebit.packed.recipes import made

#: So many plans of a network are kept: one per size of image.
_MOST_PLANS = 8
Rule = Callable[[Any, Builder, Map], Map]
_RULES: dict[type[nn.Module], Rule] = {}


class NoSteps(Exception):
    """A part of a network has no steps; the message says which."""


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(types, function))
        return function

    return register


def has_steps(module: nn.Module) -> bool:
    """Whether a module is lowered as a whole, not by what is in it."""
    return type(module) in _RULES or hasattr(module, "lower")


def lower(module: nn.Module, builder: Builder, x: Map) -> Any:
    """The steps of ``module``; gives its output, a map or a nest of maps.

    Raises:
        NoSteps: it has none.
    """
    if hasattr(module, "lower"):
        return cast(Any, module).lower(builder, x)
    if type(module) in _RULES:
        return _RULES[type(module)](module, builder, x)
    return _interpret(_graph(module), module, builder, [x])


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return has_steps(m)


def _graph(module: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(module)
    except InputError:
        raise
    except Exception as error:
        raise NoSteps(f"{type(module).__name__} cannot be traced: {' '.join(str(error).split())[:200]}") from None


def _interpret(graph: fx.Graph, root: nn.Module, builder: Builder, inputs: list[Map]) -> Any:
    values: dict[fx.Node, Any] = {}
    before, given = builder.name, iter(inputs)
    for node in graph.nodes:
        arguments = fx.node.map_arg(node.args, values.__getitem__)
        if node.op == "placeholder":
            values[node] = next(given, None)
        elif node.op == "output":
            return arguments[0]
        elif node.op == "get_attr":
            values[node] = functools.reduce(getattr, str(node.target).split("."), root)
        elif node.op == "call_module":
            builder.name = ".".join(filter(None, (before, str(node.target))))
            module = root.get_submodule(str(node.target))
            # Beside maps there is the rate at which a cell drops paths in training.
            maps = [each for each in arguments if isinstance(each, Map)]
            if hasattr(module, "lower"):
                values[node] = cast(Any, module).lower(builder, *maps)
            else:
                values[node] = lower(module, builder, *maps)
            builder.name = before
        else:
            values[node] = _call(node, builder, arguments)
    raise NoSteps("a graph without output")


def _call(node: fx.Node, builder: Builder, arguments: tuple) -> Any:
    target = node.target
    if target is operator.getitem and isinstance(arguments[0], tuple | list):
        return arguments[0][arguments[1]]
    maps = [each for each in arguments if isinstance(each, Map)]
    if target in (operator.add, torch.add, operator.iadd) and len(maps) == 2:
        return builder.pointwise(maps[0], around=maps[1])
    if target in ("flatten", torch.flatten) and maps and maps[0].size == (1, 1) and arguments[1:] == (1,):
        return flat(maps[0])
    if target == "contiguous" and maps:
        return maps[0]
    if target in ("clamp", torch.clamp, torch.clip, nn.functional.hardtanh) and len(maps) == 1:
        bounds = dict(zip(("min", "max"), arguments[1:], strict=False)) | node.kwargs
        low, high = (float("inf") * sign if bounds.get(key) is None else bounds[key] for key, sign in _BOUNDS)
        if set(bounds) <= {"min", "max"} and not isinstance(low, Map) and not isinstance(high, Map):
            return builder.clamp(maps[0], low, high)
    if target in (torch.cat, torch.concat) and isinstance(arguments[0], tuple | list):
        dimension = node.kwargs.get("dim", arguments[1] if len(arguments) > 1 else 0)
        if dimension == 1 and all(isinstance(each, Map) for each in arguments[0]):
            return builder.concatenate(arguments[0])
    raise NoSteps(f"{getattr(target, '__name__', target)} has no steps")


_BOUNDS = (("min", -1), ("max", 1))


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a batch norm in eval mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("a batch norm without running statistics has no packed form")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def flat(x: Map) -> Map:
    """A map of one position as [n, channels]."""
    x.flat = True
    return x


def floats(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


@rule(nn.Identity, nn.Dropout)
def _identity(module: nn.Module, builder: Builder, x: Map) -> Map:
    return x


@rule(nn.Sequential)
def _sequence(module: nn.Sequential, builder: Builder, x: Map) -> Map:
    before = builder.name
    for name, part in module.named_children():
        builder.name = ".".join(filter(None, (before, name)))
        x = lower(part, builder, x)
    builder.name = before
    return x


@rule(nn.Conv2d)
def _convolution(conv: nn.Conv2d, builder: Builder, x: Map) -> Map:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise NoSteps("a real-valued convolution with padding by name or by other than zeros")
    kernel, stride, padding, dilation = map(pair, (conv.kernel_size, conv.stride, conv.padding, conv.dilation))
    norm = Norm(shift=None if conv.bias is None else floats(conv.bias))
    if conv.groups == 1:
        weights = made(recipes.filters_of, [floats(conv.weight)])
        return builder.conv_floats(x, weights, kernel, stride, padding, dilation, conv.out_channels, norm)
    if not conv.groups == conv.in_channels == conv.out_channels:
        raise NoSteps("a convolution in groups of several channels")
    y = builder.depthwise(x, made(recipes.taps_of, [floats(conv.weight)]), (kernel, stride, padding, dilation))
    return y if conv.bias is None else builder.pointwise(y, norm)


@rule(nn.Linear)
def _linear(linear: nn.Linear, builder: Builder, x: Map) -> Map:
    if x.size != (1, 1):
        raise NoSteps("a linear layer on a map")
    norm = Norm(shift=None if linear.bias is None else floats(linear.bias))
    one = (1, 1)
    weights = made(recipes.filters_of, [floats(linear.weight)])
    return flat(builder.conv_floats(x, weights, one, one, (0, 0), one, linear.out_features, norm))


@rule(nn.BatchNorm2d)
def _norm(norm: nn.BatchNorm2d, builder: Builder, x: Map) -> Map:
    scale, shift = affine(norm)
    return builder.pointwise(x, Norm(floats(scale), floats(shift)))


@rule(nn.ReLU)
def _relu(relu: nn.ReLU, builder: Builder, x: Map) -> Map:
    return builder.activate(x, Norm(slope=np.zeros(x.channels, np.float32)), relu.inplace)


@rule(nn.PReLU, PReLU)
def _prelu(prelu: nn.PReLU, builder: Builder, x: Map) -> Map:
    return builder.pointwise(x, Norm(slope=floats(prelu.weight.expand(x.channels))))


@rule(RPReLU)
def _rprelu(module: RPReLU, builder: Builder, x: Map) -> Map:
    shift, after = (floats(each.flatten()) for each in (module.shift_in, module.shift_out))
    return builder.pointwise(x, Norm(None, shift, floats(module.prelu.weight.expand(x.channels)), after))


@rule(Maxout)
def _maxout(module: Maxout, builder: Builder, x: Map) -> Map:
    positive, negative = (each.flatten() for each in (module.positive, module.negative))
    above = builder.pointwise(x, Norm(slope=np.zeros(x.channels, np.float32)))
    return builder.pointwise(x, Norm(floats(negative)), builder.pointwise(above, Norm(floats(positive - negative))))


@rule(nn.Hardtanh, nn.ReLU6)
def _hardtanh(module: nn.Hardtanh, builder: Builder, x: Map) -> Map:
    return builder.clamp(x, module.min_val, module.max_val)


@rule(nn.MaxPool2d, nn.AvgPool2d)
def _pooling(pool: nn.Module, builder: Builder, x: Map) -> Map:
    return pooled(pool, builder, x)


def pooled(pool: Any, builder: Builder, x: Map, **options: Any) -> Map:
    """The steps of a pooling with a norm behind it: ``scale``, ``shift``, ``into`` and ``add`` of :meth:`Builder.pool`."""
    largest = isinstance(pool, nn.MaxPool2d)
    kernel, padding = pair(pool.kernel_size), pair(pool.padding)
    stride = pair(pool.stride)
    if (largest and pair(pool.dilation) != (1, 1)) or (
        not largest and (pool.divisor_override or (any(padding) and pool.count_include_pad))
    ):
        raise NoSteps("a pooling with dilation, a divisor of its own, or a border that counts")
    size = []
    for i in range(2):
        room = x.size[i] + 2 * padding[i] - kernel[i]
        count = (-(-room // stride[i]) if pool.ceil_mode else room // stride[i]) + 1
        if pool.ceil_mode and (count - 1) * stride[i] >= x.size[i] + padding[i]:
            count -= 1  # as torch: a window begins inside the map or its border on the left
        size.append(count)
    if min(size) < 1:
        raise InputError(f"a map of {x.height}x{x.width} is too small for this pooling")
    return builder.pool(x, largest, kernel, stride, padding, (size[0], size[1]), **options)


@rule(nn.AdaptiveAvgPool2d)
def _mean(pool: nn.AdaptiveAvgPool2d, builder: Builder, x: Map) -> Map:
    if pool.output_size not in (1, (1, 1)):
        raise NoSteps("an adaptive pooling to more than one position")
    return builder.pool(x, False, x.size, (1, 1), (0, 0), (1, 1))


# Running plans


def steps_of(network: nn.Module, size: tuple[int, int, int]) -> tuple[Builder, list[Map], Any]:
    """The steps for one contiguous image [C, H, W] of this size, not laid out yet: see :meth:`Runner.collect`.

    Raises:
        NoSteps: the network has none, its output is neither a map nor a tuple of maps, or the kernels are missing.
    """
    if engine.kernels() is None:
        raise NoSteps("the compiled kernels are missing: pip install numba, and no ONEBIT_KERNELS=torch")
    builder, (_, height, width) = Builder(), size
    first = builder.input((1, *size), (math.prod(size), height * width, width, 1))
    outputs, nest = Runner().collect(builder, network, first)
    if nest != 0 and nest != tuple(range(len(outputs))):
        raise NoSteps("an output that is neither a map nor a tuple of maps")
    return builder, outputs, nest


class Runner:
    """The plans of one module: one per shape of its inputs. A copy of the module makes its own."""

    def __init__(self) -> None:
        self._plans: dict[Any, tuple[Plan, Any]] = {}
        self._graph: fx.Graph | None = None
        #: Why there is no plan, once that is known.
        self.reason: str | None = None

    def __deepcopy__(self, memo: dict) -> Runner:
        return Runner()

    def __reduce__(self):
        return Runner, ()

    def plan(self, module: nn.Module, x: Tensor) -> tuple[Plan, Any]:
        """The plan for inputs like ``x``, and the nest of its outputs: their numbers."""
        key = (x.shape, x.stride())
        if key not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = self._build(module, x)
        return self._plans[key]

    def _build(self, module: nn.Module, x: Tensor) -> tuple[Plan, Any]:
        builder = Builder()
        outputs, nest = self.collect(builder, module, builder.input(x.shape, x.stride()))
        return builder.finish(outputs), nest

    def collect(self, builder: Builder, module: nn.Module, first: Map) -> tuple[list[Map], Any]:
        """Collect the steps of ``module`` for the image ``first``: its outputs, and their nest with numbers for them.

        Raises:
            NoSteps: it has none.
        """
        if hasattr(module, "lower"):
            found = lower(module, builder, first)
        else:
            if self._graph is None:
                self._graph = _graph(module)
            found = _interpret(self._graph, module, builder, [first])
        outputs: list[Map] = []

        def number(each: Any) -> Any:
            if isinstance(each, Map):
                outputs.append(each)
                return len(outputs) - 1
            if isinstance(each, tuple | list):
                return type(each)(map(number, each))
            raise NoSteps(f"an output that is {type(each).__name__}")

        return outputs, number(found)

    def run(self, module: nn.Module, x: Tensor) -> Any:
        """What ``module`` puts out.

        Raises:
            InputError: ``x`` is not on the CPU, or too small.
            NoSteps: the module has no plan.
        """
        x = prepared(x)
        plan, nest = self.plan(module, x)
        outputs = [torch.empty(shape) for shape in plan.shapes]
        plan.run([x.data_ptr(), *(each.data_ptr() for each in outputs)], torch.get_num_threads())

        def unnumber(each: Any) -> Any:
            if isinstance(each, int):
                found = outputs[each]
                return found if found.dim() == 2 else found.permute(0, 3, 1, 2)
            return type(each)(map(unnumber, each))

        return unnumber(nest)

    def timed(self, module: nn.Module, x: Tensor, repeat: int) -> list[Line]:
        """The steps of ``module`` with their times: see :meth:`Plan.timed`; raises as :meth:`run`."""
        x = prepared(x)
        plan, _ = self.plan(module, x)
        outputs = [torch.empty(shape) for shape in plan.shapes]
        addresses = [x.data_ptr(), *(each.data_ptr() for each in outputs)]
        return plan.timed(addresses, torch.get_num_threads(), repeat)


def prepared(x: Tensor) -> Tensor:
    """What kernels read: float32 on the CPU."""
    if x.device.type != "cpu":
        raise InputError(f"packed networks run on the CPU; the input is on {x.device}")
    return x.detach().float()


class Planned(nn.Module):
    """Mixed into the class of a network: :meth:`forward` runs the network's plan, if it has one."""

    def forward(self, x: Tensor) -> Any:
        runner: Runner = self._runner
        if symbolic(x) or engine.kernels() is None or runner.reason is not None:
            return super().forward(x)
        try:
            return runner.run(self, x)
        except NoSteps as reason:
            runner.reason = str(reason)
            return super().forward(x)

    def _load_from_state_dict(self, *arguments) -> None:
        self._runner = Runner()
        super()._load_from_state_dict(*arguments)


@functools.cache
def _planned(kind: Any) -> type[nn.Module]:
    return type(f"Packed{kind.__name__}", (Planned, kind), {"__module__": kind.__module__})


def plan_whole(network: nn.Module) -> nn.Module:
    """Make ``network``, which is packed, run as one plan where all its parts have steps."""
    planned = cast(Any, network)
    planned.__class__ = _planned(cast(Hashable, type(network)))
    planned._runner = Runner()
    return network


def timed_steps(network: nn.Module, x: Tensor, repeat: int = 20) -> list[Line]:
    """The steps of a packed network for images ``x`` [N, C, H, W], with the median time of each.

    Threads are torch's. Steps are timed one by one, with the call of each from Python.

    Raises:
        InputError: the network runs module by module; the message says why.
    """
    runner = getattr(network, "_runner", None)
    if not isinstance(runner, Runner) or engine.kernels() is None:
        raise InputError(f"{type(network).__name__} has no plan: it is not packed as a whole, or numba is missing")
    try:
        return runner.timed(network, x, repeat)
    except NoSteps as reason:
        raise InputError(f"{type(network).__name__} has no plan and runs module by module: {reason}") from None
