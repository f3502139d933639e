"""Read what a training run left behind, without executing anything of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from commons.compat import allow_mmengine_checkpoints
from commons.errors import InputError


@dataclass(frozen=True)
class Checkpoint:
    """A detector's checkpoint.

    Attributes:
        row: ``dataset``, ``backbone``, ``recipe`` and, where there were any, ``cfg_options``.
        epochs: epochs trained.
        weights: the state dict.
        losses: the loss of every step so far.
    """

    row: dict[str, Any]
    epochs: int
    weights: dict[str, torch.Tensor]
    losses: list[float]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that :func:`detection.runner.train` wrote.

    Raises:
        InputError: missing, unreadable, or not such a checkpoint.
    """
    allow_mmengine_checkpoints()
    if not Path(path).is_file():
        raise InputError(f"checkpoint not found: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common error for a file that is none of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as a checkpoint: {reason}") from error
    try:
        meta = content["meta"]
        row = _assigned(meta["cfg"], "row")
        row = {key: row[key] for key in ("dataset", "backbone", "recipe")} | row
        loss, _ = content["message_hub"]["log_scalars"]["train/loss"].data
        return Checkpoint(row, int(meta["epoch"]), content["state_dict"], loss.tolist())
    except (KeyError, TypeError, AttributeError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} is not a checkpoint that detection training wrote") from error


def _assigned(text: str, name: str) -> Any:
    """The value that a config's text assigns to ``name``; literals and ``dict(...)`` only."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return _literal(node.value)
    raise KeyError(name)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict" and not node.args:
        return {keyword.arg: _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            ast.literal_eval(k): _literal(v) for k, v in zip(node.keys, node.values, strict=True)
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    return ast.literal_eval(node)
