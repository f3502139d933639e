"""Quick answers for networks on the meta device, of which only the shapes are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators that put out a tensor like their first argument, unless another one widens it.
_ELEMENTWISE = {"add", "sub", "mul", "div", "abs", "relu", "clamp", "round", "neg", "clone"}
_ELEMENTWISE |= {"empty_like", "zeros_like", "_prelu_kernel"}
#: Operators in place that only change values.
_IN_PLACE = {f"{name}_" for name in ("add", "sub", "mul", "div", "abs", "relu", "clamp", "round")}
_IN_PLACE |= {"neg_", "addcmul_", "clamp_min_", "copy_", "fill_", "zero_", "normal_", "uniform_"}
_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training"}


class ShapesOnly(TorchDispatchMode):
    """Inside, networks on the meta device are built and run several times faster.

    torch works out in Python what most operators make of meta tensors, which takes longer than
    anything else there. Where the output's shape is plain the common ones are answered here, with
    contiguous tensors; everything else is left to torch.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        like = args[0] if args else None
        if isinstance(like, Tensor) and like.is_meta and like.is_floating_point():
            operator = function._schema.name.removeprefix("aten::")
            if operator in _NORMS:
                return like.new_empty(like.shape), like.new_empty(0), like.new_empty(0)
            if operator == "mean" and not kwargs and len(args) > 1:
                return like.new_empty(_reduced(like, *args[1:]))
            if _fits(args[1:], like):
                if operator in _IN_PLACE:
                    return like
                if operator in _ELEMENTWISE and _plain(kwargs):
                    return like.new_empty(like.shape)
                if operator == "gt" and kwargs.keys() == {"out"} and kwargs["out"].shape == like.shape:
                    return kwargs["out"]
        return function(*args, **kwargs)


def _plain(options: dict) -> bool:
    """Whether they ask for no other dtype or device; a memory format does not show in a shape."""
    return all(value is None or key in ("memory_format", "pin_memory") for key, value in options.items())


def _reduced(like: Tensor, dims: Sequence[int] | None, keepdim: bool = False) -> list[int]:
    """The shape that a reduction over ``dims`` leaves."""
    gone = {dim % like.dim() for dim in (dims or range(like.dim()))}
    sizes = enumerate(like.shape)
    if keepdim:
        return [1 if dim in gone else size for dim, size in sizes]
    return [size for dim, size in sizes if dim not in gone]


def _fits(others: tuple, like: Tensor) -> bool:
    """Whether ``others`` leave a result of the shape and dtype of ``like``."""
    return all(other is None or isinstance(other, Real) or _narrower(other, like) for other in others)


def _narrower(other: object, like: Tensor) -> bool:
    if not isinstance(other, Tensor) or other.dtype != like.dtype or other.dim() > like.dim():
        return False
    return all(a in (1, b) for a, b in zip(reversed(other.shape), reversed(like.shape)))  # noqa: B905
