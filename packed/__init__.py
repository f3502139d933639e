"""Floor 1: runs packed networks, with numpy and numba alone.

runtime    a packed file as a function of numpy arrays
container  what stands around the tensors of a packed file
stored     plans as tensors
recipes    how their constants follow from the network's tensors
checks     whether steps from a file stay inside their memory
plan       a network as a list of steps over memory that is laid out once
kernels    the compiled steps of a plan (numba)
_vector    their inner loops, as vectors of a fixed width (LLVM); _lookup those of table lookups
engine     the kernels, or None where numba is missing

:mod:`onebit.backbones.packed` makes packed networks and their files from trained ones, with torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebit.packed.runtime import Network, load

__all__ = ["Network", "load"]


def __getattr__(name: str):
    if name in __all__:  # not at once: the runtime imports the modules beside it
        from onebit.packed import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module 'onebit.packed' has no attribute {name!r}")
