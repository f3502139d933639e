"""What differs between the versions of torch, numpy, torchvision and mmcv that can be installed.

Nothing else in the suite asks for a version. What an older torch cannot do raises one line that says which can.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

import numpy as np
import torch

from onebit.commons.errors import InputError

#: Of the installed torch, such as (2, 13).
TORCH = tuple(int(number) for number in torch.__version__.split(".")[:2])

if TORCH < (2, 3) and int(np.__version__.split(".")[0]) > 1:
    raise InputError(
        f"torch {torch.__version__} was built for numpy 1 and cannot use numpy {np.__version__}: "
        "pip install 'numpy<2', or a torch from 2.3 on"
    )


def require_torch(version: tuple[int, int], what: str) -> None:
    """Raise InputError where the installed torch is older than ``version``, which ``what`` needs."""
    if version > TORCH:
        raise InputError(f"{what} needs torch {'.'.join(map(str, version))} or newer, found {torch.__version__}")


if TORCH >= (2, 4):

    def autocasting(device: str) -> bool:
        """Whether operators on ``device`` (``cpu``, ``cuda``, ``meta``, ...) are under autocast."""
        return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)

    def autocast_dtype(device: str) -> torch.dtype:
        """The type that autocast computes in on ``device``."""
        return torch.get_autocast_dtype(device)

else:  # each device has functions of its own

    def autocasting(device: str) -> bool:
        """Whether operators on ``device`` (``cpu``, ``cuda``, ``meta``, ...) are under autocast."""
        if device == "cpu":
            return torch.is_autocast_cpu_enabled()
        return device == "cuda" and torch.is_autocast_enabled()

    def autocast_dtype(device: str) -> torch.dtype:
        """The type that autocast computes in on ``device``."""
        return torch.get_autocast_cpu_dtype() if device == "cpu" else torch.get_autocast_gpu_dtype()


def compiling() -> bool:
    """Whether :func:`torch.compile` or :func:`torch.export.export` writes operators down."""
    return torch.compiler.is_compiling() if TORCH >= (2, 3) else torch._dynamo.is_compiling()


def grad_scaler(device: str, enabled: bool = True, **options: Any) -> Any:
    """A scaler of losses on ``device``, for gradients in float16; not ``enabled`` it leaves them alone.

    Raises:
        InputError: the installed torch has none for CPUs.
    """
    if TORCH >= (2, 3):
        return torch.amp.GradScaler(device, enabled=enabled, **options)
    if enabled and device != "cuda":
        require_torch((2, 3), f"mixed precision in float16 on {device}")
    return torch.cuda.amp.GradScaler(enabled=enabled, **options)


_SCHEMAS: list[torch.library.Library] = []  # a torch.library.Library undoes its definitions when it is collected


#: Of ``torch.onnx.export``: the exporter by tracing, beside which torch before 2.4 has none.
BY_TRACING: dict[str, Any] = dict(dynamo=False) if TORCH >= (2, 4) else {}


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
