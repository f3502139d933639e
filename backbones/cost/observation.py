"""What a forward pass shows of a network: which modules ran, and what they multiplied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from onebit.backbones.cost.conventions import Layer
from onebit.backbones.cost.rules import find_rule
from onebit.backbones.shapes import ShapesOnly
from onebit.commons.errors import InputError

#: torch's operators that multiply and accumulate, attention aside; every function that does ends
#: in one of these.
_PRODUCTS = {
    *("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "linear"),
    *("_int_mm", "_scaled_mm", "_sparse_mm", "_sparse_addmm", "_addmm_activation", "_trilinear"),
    *("_cdist_forward", "_euclidean_dist"),
    *("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"),
    *("cudnn_convolution", "miopen_convolution", "conv_depthwise3d", "_conv_depthwise2d"),
    *("slow_conv3d", "_slow_conv2d_forward", "slow_conv_dilated2d", "slow_conv_transpose2d"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "_cudnn_rnn"),
}


def multiplies(operator: str) -> bool:
    """Whether torch's operator of this name multiplies and accumulates."""
    return operator in _PRODUCTS or "attention" in operator


def observe(module: nn.Module, run: Callable[[nn.Module], Any]) -> list[Layer]:
    """Run ``module`` and return what was seen of each of its counted submodules.

    Raises:
        InputError: a module without a rule has parameters, or runs as a leaf; or a matrix product
            or convolution was computed outside any counted module, or in one whose rule counts no
            multiply-accumulates.
    """
    layers: dict[nn.Module, Layer] = {}
    roles: dict[str, str] = {}
    trained: dict[str, bool] = {}
    counted: set[int] = set()
    running = _Running()
    hooks = []
    try:
        for name, child in module.named_modules():
            parent = name.rpartition(".")[0] if name else None
            inherited = roles.get(parent, "other") if parent is not None else "other"
            roles[name] = role = getattr(child, "cost_role", inherited)
            above = parent is not None and trained.get(parent, False)
            trained[name] = training_only = above or getattr(child, "training_only", False)
            rule = find_rule(child)
            own = dict(child.named_parameters(recurse=False))
            if rule is None:
                if own:
                    raise InputError(_no_rule(name, child, "has parameters"))
                if not any(True for _ in child.children()):
                    hooks.append(child.register_forward_pre_hook(_refuse(name)))
            else:
                fresh = {key: p for key, p in own.items() if id(p) not in counted}
                counted.update(id(p) for p in fresh.values())
                layers[child] = Layer.of(name, child, role, fresh, training_only)
            hooks.append(child.register_forward_pre_hook(running.enter(name, child)))
            leave = running.leave(layers.get(child), rule)
            hooks.append(child.register_forward_hook(leave, with_kwargs=True))
        with _undisturbed(module), running:
            run(module)
    finally:
        for hook in hooks:
            hook.remove()
    return [layer for layer in layers.values() if layer.calls or layer.has_params]


class _Running(ShapesOnly):
    """Which module runs, and whether torch multiplied anything that no rule counts."""

    def __init__(self) -> None:
        super().__init__()
        #: The modules that run now, outermost first: name, module, products seen in it alone.
        self.stack: list[tuple[str, nn.Module, list[str]]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operator = function._schema.name.split("::")[1]
        if multiplies(operator):
            if not self.stack:
                raise InputError(
                    f"cost: {operator} was computed outside of any module; what is counted has to run inside modules"
                )
            name, module, products = self.stack[-1]
            products.append(operator)
            if find_rule(module) is None:
                raise InputError(
                    f"cost: {type(module).__name__} at {name or 'the top'!r} computes {operator} "
                    "by itself, which no rule counts; use a module for it, or add a rule for "
                    f"{type(module).__name__} with onebit.backbones.register_cost_rule"
                )
        return super().__torch_dispatch__(function, types, args, kwargs)

    def enter(self, name: str, module: nn.Module) -> Callable:
        def hook(module: nn.Module, args: tuple) -> None:
            self.stack.append((name, module, []))

        return hook

    def leave(self, layer: Layer | None, rule: Callable | None) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: Mapping, output: Any) -> None:
            name, _, products = self.stack.pop()
            if layer is None or rule is None:
                return
            inputs = (*args, *kwargs.values())
            count = rule(module, inputs, output)
            # What is made of weights alone, such as their rotation, is made once, before any image.
            of_weights = bool(inputs) and all(isinstance(given, nn.Parameter) for given in inputs)
            if products and not count.macs and not of_weights:
                raise InputError(
                    f"cost: {type(module).__name__} at {name or 'the top'!r} computes "
                    f"{products[0]}, and its rule counts no multiply-accumulates; add a rule for "
                    f"{type(module).__name__} with onebit.backbones.register_cost_rule"
                )
            layer.add(count)

        return hook


def _refuse(name: str) -> Callable:
    def hook(module: nn.Module, args: tuple) -> None:
        raise InputError(_no_rule(name, module, "takes part in the forward pass"))

    return hook


def _no_rule(name: str, module: nn.Module, why: str) -> str:
    return (
        f"cost: no counting rule for {type(module).__name__} at {name or 'the top'!r}, which {why}; "
        "add one with onebit.backbones.register_cost_rule"
    )


@contextlib.contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients; training modes, buffers and the random state restored after."""
    modes = [(child, child.training) for child in module.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers() if not buffer.is_meta]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.eval()
            yield
    finally:
        for child, training in modes:
            child.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
