"""What stands around the tensors of a packed file: the header, the description, the checksum."""

from __future__ import annotations

import contextlib
import hashlib
import json
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onebit.commons.errors import InputError

FORMAT = "onebit-packed"
#: Files with plans have the second version, others the first.
VERSIONS = (1, 2)
REAL = ("float32", "float16", "int8")
#: No network here has a number of channels, layers or classes beyond this; a file that says so is
#: refused before anything is built from it.
LARGEST = 1 << 16
#: Likewise of bytes in the file's header (the widest networks here take 0.2 MB), and of characters in the description.
MOST_HEADER, MOST_TEXT = 1 << 22, 1 << 18
#: Ends the name of the scales of a tensor in 8 bits.
SCALE = ".int8_scale"
#: Begins the names of tensors that belong to plans.
PLAN = "plan/"
#: Keys of the description of a whole network.
_WHOLE = {"format", "version", "row", "real"}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """A packed file that is open for reading.

    Raises:
        InputError: it cannot be read, or is not a packed file; what the block meets while it reads counts too.
    """
    from safetensors import SafetensorError, safe_open

    try:
        _require_small_header(path)
        with safe_open(str(path), "np") as file:
            metadata = file.metadata() or {}
            about, text = _description_in(metadata, path)
            yield Opened(path, file, about, text, metadata.get("sha256"))
    except SafetensorError as error:
        raise InputError(f"{path} is not a packed file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Opened:
    """An open packed file.

    Attributes:
        tensors: safetensors' handle.
        about: its description, and ``text``, as it is written.
        sha256: what the file says of itself.
    """

    path: Path
    tensors: Any
    about: dict[str, Any]
    text: str
    sha256: str | None

    def require_whole(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Raises InputError: description or ``tensors``, all that there are, are not those that were written."""
        if digest(self.text, tensors) != self.sha256:
            raise InputError(f"{self.path} was changed after it was written: its checksum differs")


def _require_small_header(path: Path) -> None:
    """Refuse a header that would take long to read; the first 8 bytes say how long it is."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise InputError(f"{path} is not a packed file: a header of {length} bytes, expected at most {MOST_HEADER}")


def _description_in(metadata: Mapping[str, str], path: Path) -> tuple[dict[str, Any], str]:
    """The description in the metadata of a file, and its text.

    Raises:
        InputError: it is not one of a packed file.
    """
    text = metadata.get("onebit", "")
    if len(text) > MOST_TEXT:
        raise InputError(f"{path}: a description of {len(text)} characters, expected at most {MOST_TEXT}")
    try:
        about = json.loads(text)
        kind = about["format"], about["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is not a packed file of this suite") from None
    if kind[0] != FORMAT or type(kind[1]) is not int or kind[1] not in VERSIONS:
        found = " ".join(map(reprlib.repr, kind))
        raise InputError(f"{path}: expected {FORMAT} version {' or '.join(map(str, VERSIONS))}, found {found}")
    classes = about.get("classes")
    if isinstance(about.get("row"), dict) and about.get("real") in REAL and set(about) == _WHOLE and kind[1] == 1:
        return about, text
    expected = {"format", "version", "backbone", "classes", "real", *(["plans"] if kind[1] == 2 else [])}
    if (
        not isinstance(about.get("backbone"), dict)
        or about.get("real") not in REAL
        or not (classes is None or (type(classes) is int and 0 < classes <= LARGEST))
        or set(about) - {"prediction"} != expected
        or not _names_classes(about.get("prediction"), classes)
    ):
        raise InputError(f"{path}: its description is not one of a packed file")
    return about, text


def _names_classes(prediction: Any, classes: int | None) -> bool:
    """Whether this is what a file says of the use of its network: names of classes, and a preparation of images."""
    if prediction is None:
        return True
    if not isinstance(prediction, dict) or set(prediction) != {"classes", "images"} or classes is None:
        return False
    names = prediction["classes"]
    return (
        isinstance(prediction["images"], dict)
        and isinstance(names, list)
        and len(names) == classes
        and all(isinstance(name, str) and len(name) <= 300 for name in names)
    )


def digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the description and every tensor with name, type and shape."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        # Types by torch's names: so the first files were written.
        found.update(f"{name} torch.{tensor.dtype} {tuple(tensors[name].shape)}\n".encode())
        found.update(tensor.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def restored(name: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """The network's tensor: int64 or float32, whatever the file stores.

    Raises:
        InputError: the scales of a tensor in 8 bits are missing or not such.
    """
    tensor = tensors[name]
    if tensor.dtype == np.int8:
        scale = tensors.get(name + SCALE)
        if scale is None or tensor.ndim < 1 or scale.shape != tensor.shape[:1]:
            raise InputError(f"the scales of {name[:80]!r} are missing")
        return tensor.astype(np.float32) * scale.astype(np.float32).reshape(-1, *[1] * (tensor.ndim - 1))
    return tensor if tensor.dtype == np.int64 else tensor.astype(np.float32, copy=False)
