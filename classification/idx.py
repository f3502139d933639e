"""The IDX files of MNIST and of what was made in its likeness, plain or gzipped."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onebit.commons.errors import InputError
from onebit.commons.files import unpacked

#: MD5 of the files of Fashion-MNIST, unpacked (Xiao et al., 2017; the images' are in torchvision too).
FASHION_MNIST_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
#: Nothing of this kind is larger.
_LARGEST = 2**26


def read_fashion_mnist(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST as it was published: what :func:`read_idx` gives.

    Raises:
        InputError: a file is missing, broken, or not the published one.
    """
    return _read(folder, split, FASHION_MNIST_MD5)


def read_idx(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images uint8 [N, 1, H, W] and labels int64 [N] of ``<part>-images-idx3-ubyte`` and its labels.

    Args:
        folder: holds the files, each plain or as ``NAME.gz``.
        split: ``train`` (part ``train``) or ``test`` (part ``t10k``).

    Raises:
        InputError: a file is missing or broken, or there are not as many labels as images.
    """
    return _read(folder, split, {})


def _read(folder: Path, split: str, known: dict[str, str]) -> tuple[Tensor, Tensor]:
    part = "train" if split == "train" else "t10k"
    images, labels = (_array(folder, f"{part}-{what}-ubyte", known) for what in ("images-idx3", "labels-idx1"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise InputError(
            f"{folder}: expected {part} images [N, H, W] and N labels, found {list(images.shape)} and "
            f"{list(labels.shape)}"
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def _array(folder: Path, name: str, known: dict[str, str]) -> np.ndarray:
    """What one file holds. Only what is really there is ever allocated, whatever its header says."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), folder / name)
    parts = unpacked(path, _LARGEST)
    content = bytearray(next(parts, b""))
    axes = content[3] if len(content) > 3 else 0
    header = 4 * (1 + axes)
    if bytes(content[:3]) != b"\0\0\x08" or not 1 <= axes <= 3 or len(content) < header:
        raise InputError(f"{path} is no IDX file of bytes: it begins with {bytes(content[:4]).hex(' ') or 'nothing'}")
    shape = struct.unpack_from(f">{axes}I", content, 4)
    said = header + math.prod(shape)
    if said > _LARGEST:
        raise InputError(f"{path}: its header announces {said:,} bytes, more than any dataset of this kind has")
    while len(content) <= said and (part := next(parts, None)):
        content += part
    if len(content) != said:
        found = f"{len(content):,}" if len(content) < said else "more"
        raise InputError(f"{path}: its header announces {said:,} bytes, it holds {found}")
    if known and hashlib.md5(content, usedforsecurity=False).hexdigest() != known[name]:
        raise InputError(f"{path} is not the published file: expected content with MD5 {known[name]}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
