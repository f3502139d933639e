"""What a step of a training may not do: wait for the device. On a CPU, where nothing waits, it is forbidden here."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

#: Operators that read a value, or whose output is as large as the values say.
READING = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
READING |= {"unique_consecutive", "unique_dim_consecutive", "bincount"}
#: Methods that read without an operator.
METHODS = {"tolist", "numpy", "__array__", "cpu"}


class Synchronizes(AssertionError):
    """A step that would wait for a GPU."""


class NoSynchronization(TorchDispatchMode):
    """Inside, what would have the host wait for a GPU raises :class:`Synchronizes`.

    Args:
        allowed: methods of tensors that a CPU takes a shorter way with, and no other device.

    On a GPU ``torch.cuda.set_sync_debug_mode("error")`` is the real thing (``tests/gpu``).
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._allowed = allowed

    def __enter__(self):
        self._methods = _NoMethods(METHODS - {*self._allowed})
        self._methods.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        return self._methods.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masked = name.startswith("index") and any(
            isinstance(each, torch.Tensor) and each.dtype in (torch.bool, torch.uint8)
            for each in (args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else ())
        )
        if name in READING or masked or (name == "repeat_interleave" and "output_size" not in (kwargs or {})):
            raise Synchronizes(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


class _NoMethods(TorchFunctionMode):
    def __init__(self, methods: set[str]) -> None:
        super().__init__()
        self._methods = methods

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in self._methods:
            raise Synchronizes(f"Tensor.{function.__name__} waits for the device")
        return function(*args, **(kwargs or {}))
