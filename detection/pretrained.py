"""A backbone that starts from a checkpoint of `onebit train classification`.

What is taken is strict. All tensors of the backbone are, with one exception: where the classifier
had another stem (`cifar`, as for images of 32 x 32 pixels), the modules that the stem decides on
start anew, each as a whole: the stem with its norm, and in a network of cells the preprocessing of
the stem's output in the first two cells. Which these were stands in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from onebit.commons.checkpoints import load_row, require_asked, require_row
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file

#: The config key, and option, that names the checkpoint.
OPTION = "pretrained"
_PREFIX = "backbone."
#: Cells whose preprocessing may see the stem's output.
_BEHIND_STEM = ("cells.0.preprocess_older", "cells.0.preprocess_newer", "cells.1.preprocess_older")


def describe(path: str | Path, backbone: nn.Module, name: str = "") -> dict[str, Any]:
    """What a config and a record say of the checkpoint that a detector starts from.

    Args:
        path: written by `onebit train classification`.
        backbone: of the detector; its shapes count, it may be on the meta device.
        name: that it must have been trained under; empty for any whose tensors fit.

    Returns:
        ``file`` and ``sha256``; ``backbone``, ``dataset``, ``recipe`` and ``seed`` of its row;
        ``tensors``, how many are taken; ``left_out``, the modules that start anew instead.

    Raises:
        InputError: not such a checkpoint, of another backbone, or tensors that do not fit.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(f"{OPTION} {path!r}: expected the path of a checkpoint")
    row, weights = _read(path, name)
    left_out = _left_out(backbone, weights, path)
    taken = [key for key in weights if not key.startswith(left_out)]
    return dict(
        file=Path(path).name,
        sha256=sha256_file(path),
        **{key: row[key] for key in ("backbone", "dataset", "recipe", "seed")},
        tensors=len(taken),
        left_out=[name.removesuffix(".") for name in left_out],
    )


def load(backbone: nn.Module, path: str | Path, name: str = "") -> None:
    """Copy the tensors that :func:`describe` counts into ``backbone``.

    Raises:
        InputError: as for :func:`describe`.
    """
    _, weights = _read(path, name)
    left_out = _left_out(backbone, weights, path)
    taken = {key: w for key, w in weights.items() if not key.startswith(left_out)}
    backbone.load_state_dict(taken, strict=False)  # what is missing is left out on purpose


def _read(path: str | Path, name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """The row of a checkpoint and its backbone's weights, by the backbone's own names."""
    row, weights = load_row(path)
    require_asked(f"{OPTION}: {path}", row, task="classification", backbone=name)
    require_row(path, row, "backbone", "dataset", "recipe", "seed", backbone=name)
    kept = {k.removeprefix(_PREFIX): w for k, w in weights.items() if k.startswith(_PREFIX)}
    return row, kept


def _left_out(backbone: nn.Module, weights: Mapping[str, torch.Tensor], path: str | Path) -> tuple[str, ...]:
    """Prefixes of the modules that start anew; the rest of ``backbone`` fits ``weights``."""
    shapes = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    differing = sorted(
        name
        for name in {*shapes, *weights}
        if name not in weights or name not in shapes or weights[name].shape != shapes[name]
    )
    # A stem is left out as a whole: its norm means nothing behind another convolution.
    stem = tuple(f"{n}." for n, m in backbone.named_modules() if n and getattr(m, "cost_role", "") == "stem")
    units = [stem, *((f"{name}.",) for name in _BEHIND_STEM)]
    left_out = tuple(p for unit in units if any(n.startswith(unit) for n in differing) for p in unit)
    if not any(prefix in left_out for prefix in stem):
        left_out = ()  # with the same stem everything has to fit
    wrong = [name for name in differing if not left_out or not name.startswith(left_out)]
    if wrong:
        first = wrong[0]
        there, here = (_shape(first, found) for found in ({k: w.shape for k, w in weights.items()}, shapes))
        raise InputError(
            f"{OPTION}: {path} does not fit this backbone, {len(wrong)} tensors differ: {first} is "
            f"{there} there and {here} here"
        )
    return left_out


def _shape(name: str, shapes: Mapping[str, torch.Size]) -> str:
    return "x".join(map(str, shapes[name])) or "one number" if name in shapes else "missing"
