"""Features of images and the file they are kept in: one safetensors file with its own checksum.

A file holds groups of images (``query`` and ``gallery``, or ``images``), each as four tensors:

``<group>.features``    [N, D] float32
``<group>.pids``        [N] int64, absent where identities are not known
``<group>.cameras``     [N] int64, likewise
``<group>.names``       a JSON list of N strings as UTF-8 bytes

and as metadata ``format``, ``facts`` (JSON: where the features come from) and ``sha256`` over all
the rest, because safetensors itself does not notice changed bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from onebit.commons import guards
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import write_atomic
from onebit.commons.progress import Progress

FORMAT = "onebit-reid-features-1"


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a group of images.

    Attributes:
        features: [N, D] float32.
        names: N image names.
        pids: [N] identities, or None.
        cameras: [N] cameras, or None.
    """

    features: np.ndarray
    names: tuple[str, ...]
    pids: np.ndarray | None = None
    cameras: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)


def features_of(model: torch.nn.Module, images: torch.Tensor, flip: bool = False) -> torch.Tensor:
    """Features float32 [N, D] of images [N, 3, H, W]; ``flip`` adds those of the mirror images."""
    output = model(images).float()
    if flip:
        output += model(images.flip(3)).float()
    return output


@torch.no_grad()
def extract(
    model: torch.nn.Module, loader: torch.utils.data.DataLoader, name: str, flip: bool = False
) -> dict[str, np.ndarray | list[str]]:
    """Run a network over the images of a loader, in its order.

    Args:
        model: answers images [N, 3, H, W] with features [N, D] in evaluation mode.
        loader: yields dicts with ``img`` and any of ``pid``, ``camid`` and ``impath``.
        name: for the progress bar and messages, e.g. ``queries``.
        flip: add the features of the mirror image.

    Returns:
        ``features`` [N, D] float32, and what the loader has of ``pid`` [N], ``camid`` [N] and
        ``impath``.

    Raises:
        WorkError: a feature is not finite.
    """
    device = next(model.parameters()).device
    model.eval()
    features, rest = [], {"pid": [], "camid": [], "impath": []}
    with Progress(f"features of {name}", total=len(loader)) as progress:
        for batch in loader:
            features.append(features_of(model, batch["img"].to(device), flip).cpu())
            for key, values in rest.items():
                found = batch.get(key, ())
                values.extend(found.tolist() if torch.is_tensor(found) else found)
            progress.advance()
    found = torch.cat(features).numpy()
    if not np.isfinite(found).all():
        raise WorkError(f"the network's features of the {name} are not finite")
    return {"features": found, **{key: values for key, values in rest.items() if values}}


def of_dataset(
    model: torch.nn.Module, loader: torch.utils.data.DataLoader, name: str, root: Path, flip: bool = False
) -> Features:
    """Features of a part of a test set, its images named relative to ``root``; see :func:`extract`."""
    found = extract(model, loader, name, flip)
    return Features(
        features=found["features"],
        names=relative_names(found["impath"], root),
        pids=np.asarray(found["pid"], dtype=np.int64),
        cameras=np.asarray(found["camid"], dtype=np.int64),
    )


def relative_names(paths: list[str], root: Path) -> tuple[str, ...]:
    """Paths below ``root`` with forward slashes, relative to it."""
    start = os.path.abspath(root)
    return tuple(Path(os.path.relpath(path, start)).as_posix() for path in paths)


def save(path: Path, groups: Mapping[str, Features], facts: Mapping[str, Any]) -> Path:
    """Write groups of features and where they come from (plain values), whole or not at all.

    Raises:
        WorkError: the disk is full or the folder cannot be written.
    """
    tensors = {}
    for group, images in groups.items():
        tensors[f"{group}.features"] = np.ascontiguousarray(images.features, dtype=np.float32)
        names = json.dumps(list(images.names)).encode()
        tensors[f"{group}.names"] = np.frombuffer(names, dtype=np.uint8)
        for key, values in (("pids", images.pids), ("cameras", images.cameras)):
            if values is not None:
                tensors[f"{group}.{key}"] = np.ascontiguousarray(values, dtype=np.int64)
    metadata = {"format": FORMAT, "facts": json.dumps(facts, sort_keys=True)}
    metadata["sha256"] = _digest(tensors, metadata)
    return write_atomic(path, safetensors.numpy.save(tensors, metadata))


def load(path: Path) -> tuple[dict[str, Features], dict[str, Any]]:
    """Read what :func:`save` wrote.

    Raises:
        InputError: missing, not such a file, truncated or changed.
    """
    path = Path(path)
    guards.file("features", path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"expected a whole safetensors file of features, found {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"expected features that this suite saved (format {FORMAT}), found "
            f"{metadata.get('format', 'a file without a format')} in {path}"
        )
    stated = metadata.pop("sha256", None)
    if stated != _digest(tensors, metadata):
        raise InputError(f"{path} was changed after it was written: its SHA-256 does not fit")
    try:
        return _groups(tensors), json.loads(metadata["facts"])
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"the tensors in {path} are not laid out as features: {error}") from error


def agreement(one: Path, other: Path) -> float:
    """The share of images whose features in two files are the same but for a hundredth of their length.

    Raises:
        InputError: one of them is not such a file, or they are of different images.
    """
    first, second = load(one)[0], load(other)[0]
    if {g: f.names for g, f in first.items()} != {g: f.names for g, f in second.items()}:
        raise InputError(f"{one} and {other} are features of different images")
    close = []
    for group, images in first.items():
        if images.features.shape != second[group].features.shape:
            return 0.0
        lengths = np.linalg.norm(images.features, axis=1)
        close.append(np.linalg.norm(images.features - second[group].features, axis=1) <= 0.01 * lengths)
    return float(np.concatenate(close).mean()) if close else 1.0


def _groups(tensors: Mapping[str, np.ndarray]) -> dict[str, Features]:
    """Raises KeyError or ValueError where the tensors are not laid out as this module does it."""
    groups = {}
    for group in dict.fromkeys(key.rsplit(".", 1)[0] for key in tensors):
        images = Features(
            features=tensors[f"{group}.features"],
            names=tuple(json.loads(tensors[f"{group}.names"].tobytes())),
            pids=tensors.get(f"{group}.pids"),
            cameras=tensors.get(f"{group}.cameras"),
        )
        lengths = {len(v) for v in (images.names, images.pids, images.cameras) if v is not None}
        if images.features.ndim != 2 or lengths != {len(images)}:
            raise ValueError(f"{group} has {images.features.shape} features for {lengths} images")
        groups[group] = images
    return groups


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, and over all other metadata."""
    digest = hashlib.sha256()
    for key in sorted(metadata):
        digest.update(json.dumps([key, metadata[key]]).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(json.dumps([key, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(np.ascontiguousarray(tensor))
    return digest.hexdigest()
