"""Checkpoints: which row they belong to, and reading them without executing what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from onebit.commons.compat import allow_mmengine_checkpoints
from onebit.commons.errors import InputError

#: Where :class:`onebit.commons.engine_hooks.RowHook` puts the row in a checkpoint.
ROW = "onebit_row"


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint with the highest epoch in ``work_dir``; all of them are complete files."""
    found = {int(m[1]): p for p in Path(work_dir).glob("epoch_*.pth") if (m := re.fullmatch(r"epoch_(\d+)", p.stem))}
    return found[max(found)] if found else None


def load_row(path: str | Path) -> tuple[dict, dict]:
    """Read a checkpoint that :func:`build_runner`'s Runner wrote.

    Returns:
        the row it belongs to, and the weights.

    Raises:
        InputError: not a file, not a checkpoint, or one of another program.
    """
    allow_mmengine_checkpoints()
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint not found: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common error for what it cannot read
        reason = str(error).split("\n")[0]
        raise InputError(f"{path} is not a checkpoint that can be read: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in (ROW, "state_dict")):
        raise InputError(f"{path} was not written by this suite's trainer: it names no row")
    return content[ROW], content["state_dict"]


def read_foreign_checkpoint(path: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a checkpoint that another program wrote, without executing what it says.

    Returns:
        all that it holds, and its weights (its ``state_dict``, or itself).

    Raises:
        InputError: not a file, not readable so, or without weights.
    """
    allow_mmengine_checkpoints()
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint not found: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common error for what it cannot read
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path} is not a checkpoint that can be read without executing what it says; save its "
            f"state_dict alone ({reason})"
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    tensors = isinstance(weights, Mapping) and all(isinstance(value, torch.Tensor) for value in weights.values())
    if not weights or not tensors:
        raise InputError(f"expected a state dict, or a checkpoint with one, in {path}")
    return content, weights


def load_weights(model: nn.Module, weights: dict, origin: str | Path) -> None:
    """Load ``weights`` into ``model``, all of them and nothing else.

    Raises:
        InputError: they are another network's.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the weights in {origin} do not fit this network: {reason}") from error
