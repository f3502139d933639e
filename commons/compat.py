"""What the installed torchvision and mmcv need before MMDetection can be imported."""

from __future__ import annotations

import functools
import importlib.util
import sys

import torch

from onebit.commons.errors import InputError

_SCHEMAS: list[torch.library.Library] = []  # a torch.library.Library undoes its definitions when it is collected


@functools.cache
def ensure_torchvision() -> bool:
    """Import torchvision even where its compiled operators cannot be loaded.

    PyPI's torchvision is linked against CUDA. Beside a CPU torch its extension does not load, and
    ``import torchvision`` fails because it registers meta kernels for operators that then do not
    exist. Declaring their schemas is enough for the import; calling them still raises.

    Returns:
        whether torchvision's own compiled operators are available.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _SCHEMAS.append(library)
        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        import torchvision  # noqa: F401
    from torchvision.extension import _has_ops

    return _has_ops()


def ensure_mmcv() -> None:
    """Raise InputError where MMDetection would not find the mmcv that it imports."""
    if importlib.util.find_spec("mmcv") is None:
        raise InputError(
            "detection needs mmcv, which is not installed: pip install 'onebit-bench[cpu]' brings mmcv-lite, "
            "or install a compiled mmcv 2.1 that was built for this torch"
        )
