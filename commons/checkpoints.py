"""Checkpoints: which row they belong to, what they may hold, and reading them without executing it."""

from __future__ import annotations

import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from onebit.commons import guards
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.errors import InputError, WorkError
from onebit.commons.file_options import StatedOptions

#: Where :class:`onebit.commons.engine_hooks.RowHook` puts the row in a checkpoint.
ROW = "onebit_row"


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint with the highest epoch in ``work_dir``; we write them whole or not at all."""
    return next(iter(_newest_first(work_dir)), None)


def _newest_first(work_dir: str | Path) -> list[Path]:
    found = {int(m[1]): p for p in Path(work_dir).glob("epoch_*.pth") if (m := re.fullmatch(r"epoch_(\d+)", p.stem))}
    return [found[epoch] for epoch in sorted(found, reverse=True)]


def resumable_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint in ``work_dir`` that can be read; of those passed over a line says why.

    A copy that was cut off, or a disk, can spoil what we wrote whole. The training comes to that epoch again, and
    writes it anew.

    Raises:
        InputError: there are checkpoints, and none can be read.
    """
    broken: list[InputError] = []
    for path in _newest_first(work_dir):
        try:
            read_checkpoint(path)
        except InputError as error:
            broken.append(error)
        else:
            for each in broken:
                print(f"onebit: {each}; going on from {path.name}", file=sys.stderr)
            return path
    if broken:
        raise broken[0]
    return None


def load_row(path: str | Path) -> tuple[dict, dict]:
    """Read a checkpoint that :func:`build_runner`'s Runner wrote.

    Returns:
        the row it belongs to, its ``cfg_options`` as :class:`onebit.commons.file_options.StatedOptions`, and
        the weights.

    Raises:
        InputError: not a file, not a checkpoint, or one of another program.
    """
    content = read_checkpoint(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in (ROW, "state_dict")):
        raise InputError(f"{path} was not written by this suite's trainer: it names no row")
    return row_of(content, path), content["state_dict"]


def weights_sha256(path: str | Path) -> str:
    """SHA-256 of a checkpoint's weights: of the name, type, shape and bytes of every tensor, in the names' order.

    The same weights give the same hash whatever the file holds besides, such as times.

    Raises:
        InputError: not a file, not a checkpoint, or one without weights.
    """
    content = read_checkpoint(path)
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise InputError(f"{path}: expected weights by name in state_dict")
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        digest.update(f"{name}\0{value.dtype}\0{list(value.shape)}\0".encode())
        flat = value.new_empty(value.numel()).copy_(value.flatten())  # one after the other, whatever the strides
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def row_of(content: dict, path: str | Path) -> dict[str, Any]:
    """The row of a checkpoint's content, which may say anything: checked, and with no option taken yet.

    Raises:
        InputError: a field of another kind than rows have.
    """
    row = dict(content[ROW])
    for key in ("task", "dataset", "backbone", "recipe", "stem", "config", "binarize"):
        if not isinstance(row.get(key, ""), str) or len(row.get(key, "")) > 300:
            raise InputError(f"{path}: its row's {key} is {guards.shown(row[key])}: expected a name")
    for key, most in (("seed", 2**32 - 1), ("num_classes", 2**20), ("stage", 100)):
        if key in row:
            guards.whole(f"{path}: its row's {key}", row[key], 0, most)
    classes = row.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) and len(name) <= 300 for name in classes):
        raise InputError(f"{path}: its row's classes are {guards.shown(classes)}: expected names")
    if classes and len(classes) != row.get("num_classes"):
        raise InputError(
            f"{path}: its row names {len(classes)} classes, and says that there are {row.get('num_classes')}"
        )
    ids = row.get("category_ids", [])  # what a detector's results name the classes by
    whole = isinstance(ids, list) and all(type(number) is int and abs(number) < 2**53 for number in ids)
    if not whole or (ids and not len(ids) == len(set(ids)) == len(classes)):
        raise InputError(
            f"{path}: its row's category_ids are {guards.shown(ids)}: expected {len(classes)} whole numbers, each once"
        )
    start = row.get("pretrained", {})  # what a detector started from, for the text of its config
    plain_parts = (str, int, list)
    if not isinstance(start, dict) or not all(isinstance(part, plain_parts) for part in start.values()):
        raise InputError(f"{path}: its row's pretrained is {guards.shown(start)}: expected names and numbers")
    row["cfg_options"] = StatedOptions(row.get("cfg_options", {}), path)
    return row


def require_row(path: str | Path, row: dict[str, Any], *keys: str, backbone: str = "") -> None:
    """Refuse a row that lacks one of ``keys``, or whose backbone is a file that the user did not name.

    Raises:
        InputError: so it is.
    """
    if missing := sorted(key for key in keys if key not in row):
        raise InputError(f"{path} does not say its {', '.join(missing)}")
    if row["backbone"] != backbone and not re.fullmatch(r"[A-Za-z0-9][\w-]*", row["backbone"]):
        shown = guards.shown(row["backbone"])
        raise InputError(f"{path} was trained with the backbone {shown}: if it is yours, name it with --backbone")


def require_asked(path: str | Path, stated: Mapping[str, Any], **asked: str) -> None:
    """Refuse a checkpoint of another task, backbone, recipe, ... than what was asked for; empty asks for nothing.

    Raises:
        InputError: so it is, or the checkpoint does not state it.
    """
    for key, wanted in asked.items():
        if wanted and stated.get(key) != wanted:
            found = stated.get(key, f"another {key}")
            raise InputError(f"{path} is a checkpoint of {found}, not of {wanted}")


def require_classes(origin: str | Path, stated: Mapping[str, Any], dataset: str, classes: Sequence[str]) -> None:
    """Refuse a network that knows other classes than the dataset has, or numbers them in another order.

    Args:
        origin: the network's file.
        stated: what it says: ``classes``, their names, which older files lack, and ``num_classes``.
        dataset: its name.
        classes: the names of its classes, in the order of the labels.

    Raises:
        InputError: so it is.
    """
    known = stated.get("num_classes", len(classes))
    if known != len(classes):
        raise InputError(f"{origin} knows {known} classes, {dataset} has {len(classes)}")
    for at, (there, here) in enumerate(zip(stated.get("classes") or (), classes, strict=False)):
        if there != here:
            raise InputError(f"{origin}: its class {at} is {guards.shown(there)}, that of {dataset} is {here}")


def require_fit(network: nn.Module, weights: dict, origin: str | Path) -> None:
    """Refuse weights that are not those of ``network``, which needs no memory for that (device ``meta``).

    Raises:
        InputError: a tensor is missing, unknown, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ("no tensor",))) for name, tensor in weights.items()}
    for name in sorted({*expected, *found}, key=str):
        if expected.get(name) != found.get(name):
            there, here = (guards.shown(shapes.get(name, "missing")) for shapes in (found, expected))
            raise InputError(
                f"the weights in {origin} do not fit this network: {guards.shown(name)} is {there} there, {here} here"
            )


def read_foreign_checkpoint(path: str | Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a checkpoint that another program wrote.

    Returns:
        all that it holds, and its weights (its ``state_dict``, or itself).

    Raises:
        InputError: not a file, not readable, or without weights.
    """
    content = read_checkpoint(path)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    tensors = isinstance(weights, Mapping) and all(isinstance(value, torch.Tensor) for value in weights.values())
    if not weights or not tensors:
        raise InputError(f"expected a state dict, or a checkpoint with one, in {path}")
    return content, weights


def load_weights(model: nn.Module, weights: dict, origin: str | Path) -> None:
    """Load ``weights`` into ``model``, all of them and nothing else.

    Raises:
        InputError: they are another network's, or not all of them are numbers.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the weights in {origin} do not fit this network: {reason}") from error
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"the weights in {origin} are not finite: {name} holds NaN or infinity")


def plain(value: Any, place: str = "the checkpoint") -> Any:
    """``value`` as tensors and plain values only, which ``torch.load(weights_only=True)`` of any program reads.

    Arrays of NumPy become tensors, its numbers Python's, dicts of all kinds dicts (an ``OrderedDict``
    stays one, with torch's versions of modules), paths texts, and mmengine's ``HistoryBuffer`` what
    :func:`histories` takes.

    Raises:
        WorkError: it holds anything else.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.generic):
        return plain(value.item(), place)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        kind = OrderedDict if type(value) is OrderedDict else dict
        found = kind((plain(key, place), plain(part, f"{place}, {key}")) for key, part in value.items())
        if hasattr(value, "_metadata") and kind is OrderedDict:
            vars(found)["_metadata"] = plain(value._metadata, place)
        return found
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [plain(part, place) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if hasattr(value, "_log_history"):
        return {
            "log_history": plain(value._log_history, place),
            "count_history": plain(value._count_history, place),
            "max_length": value.max_length,
        }
    if isinstance(value, (int, float, str)):  # an enumeration and the like
        return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))
    raise WorkError(
        f"{place} holds a {type(value).__name__}: expected tensors, numbers, texts, lists and dicts of them"
    )


def histories(scalars: dict[str, Any]) -> dict[str, Any]:
    """mmengine's histories of scalars, from what :func:`plain` made of them."""
    from mmengine.logging import HistoryBuffer

    return {
        name: HistoryBuffer(kept["log_history"].numpy(), kept["count_history"].numpy(), kept["max_length"])
        for name, kept in scalars.items()
    }
