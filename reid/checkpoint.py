"""The files of a row: its config, its checkpoints, and the weights it starts from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from onebit.commons import guards
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.checkpoints import plain, require_asked, resumable_checkpoint
from onebit.commons.engine import config_text, load_row, load_weights
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file, write_atomic

_KEYS = {"state_dict", "backbone", "num_classes", "config", "losses", "untrained"}


def prepare(work_dir: Path, cfg: Config, resume: bool) -> Path | None:
    """Make ``work_dir`` ready; return the checkpoint to go on from.

    Raises:
        InputError: ``resume`` with another config than the checkpoint's.
    """
    text, dumped = config_text(cfg), work_dir / "config.py"
    checkpoint = resumable_checkpoint(work_dir) if resume else None
    if checkpoint and dumped.exists() and dumped.read_text() != text:
        raise InputError(
            f"cannot resume: {dumped} differs from the config asked for; "
            f"use another --work-dir or train without --resume"
        )
    if not resume:
        for stale in (*work_dir.glob("epoch_*.*"), work_dir / "train.log"):
            stale.unlink(missing_ok=True)
    write_atomic(dumped, text)
    return checkpoint


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` whole or not at all; then drop all but the last two checkpoints."""
    stream = io.BytesIO()
    torch.save(plain(state), stream)
    write_atomic(path, stream.getvalue())
    epoch = int(path.stem.split("_")[1])
    for old in path.parent.glob("epoch_*.pth"):
        if int(old.stem.split("_")[1]) < epoch - 1:
            old.unlink()


def load_checkpoint(path: Path, backbone: str = "") -> dict[str, Any]:
    """Read a checkpoint of :func:`onebit.reid.runner.train`; ``backbone`` is the one expected, or empty.

    Raises:
        InputError: not a file, not such a checkpoint, or one of another backbone.
    """
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise InputError(f"expected a checkpoint that re-ID training wrote, found {path}")
    kinds = {"state_dict": dict, "config": dict, "losses": list, "backbone": str, "untrained": (dict, type(None))}
    for key, kind in kinds.items():
        if not isinstance(state[key], kind):
            raise InputError(f"{path}: its {key} is {guards.shown(state[key])}, which re-ID training does not write")
    guards.whole(f"{path}: num_classes", state["num_classes"], 1, 2**20)
    require_asked(path, state, backbone=backbone)
    return state


def classification_sha256(path: str | Path, backbone: str) -> str:
    """Check that ``path`` is a classification checkpoint of ``backbone``; return its SHA-256.

    Raises:
        InputError: it is not.
    """
    row, _ = load_row(path)
    require_asked(f"init_from: {path}", row, task="classification", backbone=backbone)
    return sha256_file(path)


def load_backbone(backbone: torch.nn.Module, path: str | Path) -> None:
    """Take the backbone out of a classification checkpoint; its classifier stays behind.

    Raises:
        InputError: the weights do not fit, e.g. because the two networks have different stems.
    """
    _, weights = load_row(path)
    prefix = "backbone."
    load_weights(backbone, {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}, path)
