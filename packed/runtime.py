"""Packed files without torch: numpy arrays in, numpy arrays out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.packed import container, engine, stored
from onebit.packed.plan import Plan

#: What a file says of the preparation of images.
_IMAGES = {"size": int, "small": bool, "gray": bool, "mean": list, "std": list}


class Network:
    """A packed network; :func:`load` makes it.

    Attributes:
        sizes: of the images that it takes, (height, width).
        classes: their names where the file knows them, else None.
        images: how images are prepared where the file knows it, else None: ``size``, ``mean`` and ``std`` (of values
            from 0 to 255, red, green, blue), ``gray`` (made gray first), ``small`` (not cut out of a larger image).
        about: the description in the file.
        threads: that share the work of a call.
    """

    def __init__(
        self, path: Path, about: dict[str, Any], plans: list[stored.StoredPlan], constants: np.ndarray, threads: int
    ) -> None:
        self.path, self.about, self.threads = path, about, guards.whole("threads", threads)
        self._stored, self._constants = {each.size: each for each in plans}, constants
        self._plans: dict[tuple[int, int, int], Plan] = {}
        self._lock = threading.Lock()
        self.sizes = [each.size[1:] for each in plans]
        prediction = about.get("prediction") or {}
        self.classes: list[str] | None = prediction.get("classes")
        self.images: dict[str, Any] | None = prediction.get("images")
        if self.images is not None:
            _require_images(self.images, path)

    def __call__(self, images: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Logits float32 [N, classes] of a classifier; of a backbone its maps, a tuple of float32 [N, C, H, W].

        Args:
            images: floats [N, 3, H, W], normalized as in training (:meth:`prepared`), of one of :attr:`sizes`.

        Raises:
            InputError: an array of another form, or of a size for which the file has no plan.
        """
        kind = getattr(images, "dtype", None)
        if not isinstance(images, np.ndarray) or images.ndim != 4 or kind not in (np.float16, np.float32, np.float64):
            found = f"{kind} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
            raise InputError(f"images: expected an array of floats [N, 3, H, W], found {found}")
        n, *size = images.shape
        own = self._stored.get(tuple(size))
        if own is None or n == 0:
            raise InputError(self._no_plan(images.shape))
        plan, images = self._plan(own), np.ascontiguousarray(images, np.float32)
        outputs = [np.zeros((n, *shape), np.float32) for shape in own.shapes]
        for number in range(n):
            parts = [images[number], *(each[number] for each in outputs)]
            plan.run([part.ctypes.data for part in parts], self.threads)
        maps = [each if each.ndim == 2 else each.transpose(0, 3, 1, 2) for each in outputs]
        return maps[0] if own.single else tuple(maps)

    def _plan(self, own: stored.StoredPlan) -> Plan:
        with self._lock:
            if own.size not in self._plans:
                self._plans[own.size] = own.plan(self._constants)
            return self._plans[own.size]

    def _no_plan(self, shape: tuple[int, ...]) -> str:
        there = ", ".join(f"[N, {', '.join(map(str, size))}]" for size in self._stored)
        return (
            f"{self.path} has plans for images {there}, none for {list(shape)}: "
            "`onebit export ... --plan H W` writes others"
        )

    def prepared(self, image: np.ndarray) -> np.ndarray:
        """An image as the network takes it: float32 [1, 3, size, size], normalized.

        Args:
            image: uint8 [size, size, 3] (red, green, blue), scaled and cut before: the file says ``size`` alone.

        Raises:
            InputError: the file does not say how images are prepared, or an array of another form.
        """
        if self.images is None:
            raise InputError(f"{self.path} does not say how images are prepared")
        size = self.images["size"]
        if getattr(image, "dtype", None) != np.uint8 or image.shape != (size, size, 3):
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"image: expected an array uint8 [{size}, {size}, 3], found {found}")
        pixels = image.astype(np.float32)
        if self.images["gray"]:  # by the weights and the rounding of torchvision
            red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
            gray = red * np.float32(0.2989) + green * np.float32(0.587) + blue * np.float32(0.114)
            pixels = np.repeat(np.floor(gray)[..., None], 3, 2)
        mean, std = (np.array(self.images[key], np.float32) for key in ("mean", "std"))
        return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])


def load(path: str | Path, threads: int = 1) -> Network:
    """Read a packed file with plans, as ``onebit export`` writes it, without torch.

    Args:
        threads: that share the work of a call.

    Raises:
        InputError: not a packed file, one that was changed after it was written, one without plans, or with plans
            that would not stay inside their memory; numba is missing.
    """
    path = guards.file("packed file", path)
    if engine.kernels() is None:
        raise InputError("packed files run by compiled kernels: pip install numba, and no ONEBIT_KERNELS=torch")
    with container.opened(path) as file:
        about = file.about
        if "plans" not in about:
            raise InputError(f"{path} has no plans and runs with torch only: export it anew")
        tensors = {name: _tensor(file.tensors, name, path) for name in file.tensors.keys()}  # noqa: SIM118  not a dict
    file.require_whole(tensors)
    try:
        plans, constants = parts(about, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Network(path, about, plans, constants, threads)


def parts(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> tuple[list[stored.StoredPlan], np.ndarray]:
    """The plans and constants in the tensors of a file; raises as :func:`onebit.packed.stored.read`."""
    of_plans = {name: tensors[name] for name in stored.TENSORS if name in tensors}
    if {name: array.dtype for name, array in of_plans.items()} != stored.TENSORS:
        raise InputError("the tensors of its plans are missing or of other types")
    network = {
        name: container.restored(name, tensors)
        for name in tensors
        if not name.startswith(container.PLAN) and not name.endswith(container.SCALE)
    }
    return stored.read(about["plans"], of_plans, network)


_TYPES = {"I64", "F32", "F16", "I8", "I32", "U8"}


def _tensor(file: Any, name: str, path: Path) -> np.ndarray:
    if file.get_slice(name).get_dtype() not in _TYPES:
        raise InputError(f"{path}: {name[:80]!r} is of a type that no packed network has")
    return file.get_tensor(name)


def _require_images(images: Mapping[str, Any], path: Path) -> None:
    """Refuse another preparation of images than :data:`_IMAGES`."""
    fits: Callable[[Any], bool] = lambda v: isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9  # noqa: E731
    if (
        {key: type(value) for key, value in images.items()} != _IMAGES
        or not 1 <= images["size"] <= container.LARGEST
        or not all(len(images[key]) == 3 and all(map(fits, images[key])) for key in ("mean", "std"))
        or not all(images["std"])
    ):
        raise InputError(f"{path}: what it says of images is not of the form of this suite")
