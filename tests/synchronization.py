"""What a step of a training may not do: wait for the device. On a CPU, where nothing waits, it is forbidden here."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

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


#: The first part of the names of modules whose waits are ours.
OURS = ("onebit", "tests")


class NoSynchronization(TorchDispatchMode):
    """Inside, what would have the host wait for a GPU raises :class:`Synchronizes`.

    Args:
        allowed: methods of tensors that a CPU takes a shorter way with, and no other device.
        libraries: let a library wait that calls torch itself; ``waits`` counts where, as ``module.function``.
        ours: let these modules of ours wait too, and count it there.

    On a GPU ``torch.cuda.set_sync_debug_mode("error")`` is the real thing (``tests/gpu``).
    """

    def __init__(self, allowed: tuple[str, ...] = (), libraries: bool = False, ours: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._allowed, self._libraries, self._ours = allowed, libraries, ours
        self.waits: Counter[str] = Counter()

    def __enter__(self):
        self._methods = _NoMethods(METHODS - {*self._allowed}, self._wait)
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
            self._wait(function)
        return function(*args, **(kwargs or {}))

    def _wait(self, what: object) -> None:
        """Raise, unless who called torch may wait."""
        frame = sys._getframe(1)
        while (module := frame.f_globals["__name__"]) == __name__ or module.split(".")[0] in _BETWEEN:
            frame = frame.f_back
        if module not in self._ours and (not self._libraries or module.split(".")[0] in OURS):
            raise Synchronizes(f"{what} waits for the device")
        self.waits[f"{module}.{frame.f_code.co_name}"] += 1


#: What stands between who calls torch and the operator.
_BETWEEN = {"torch", *sys.stdlib_module_names}


class _NoMethods(TorchFunctionMode):
    def __init__(self, methods: set[str], wait: Callable[[object], None]) -> None:
        super().__init__()
        self._methods, self._wait = methods, wait

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__name__", "") in self._methods:
            self._wait(f"Tensor.{function.__name__}")
        return function(*args, **(kwargs or {}))
