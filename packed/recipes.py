"""How what the kernels read follows from the tensors of a packed network.

A recipe is a function of tensors and whole numbers, in numpy. What :func:`made` makes of one remembers it, so that a
packed file names the recipe in place of its result, which is up to 64 times as large, and whoever reads the
file makes the same again, to the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from onebit.commons.errors import InputError
from onebit.packed import engine

#: Kernels of more rows or columns than this have no table of borders in a file.
_MOST_TAPS = 64
#: No size of a map or a kernel is beyond this.
LARGEST = 1 << 16

Recipe = Callable[..., np.ndarray]
#: By the number that stands for it in a file: new ones go to the end.
RECIPES: list[Recipe] = []
_COUNTS: dict[Recipe, tuple[int, int, int]] = {}


class Origin(NamedTuple):
    """Where an array comes from."""

    recipe: Recipe
    sources: tuple[np.ndarray, ...]
    numbers: tuple[int, ...]


class Made(np.ndarray):
    """An array that remembers its ``origin``."""

    origin: Origin


def made(recipe: Recipe, sources: Sequence[np.ndarray | None], numbers: Sequence[int] = ()) -> np.ndarray:
    """The result of a recipe; a None at the end of ``sources`` is left out."""
    given = tuple(source for source in sources if source is not None)
    found = recipe(*given, *numbers).view(Made)
    found.origin = Origin(recipe, given, tuple(map(int, numbers)))
    return found


def _recipe(least: int, numbers: int, most: int | None = None) -> Callable[[Recipe], Recipe]:
    """Register a recipe of ``least`` to ``most`` tensors and so many whole numbers."""

    def register(function: Recipe) -> Recipe:
        RECIPES.append(function)
        _COUNTS[function] = least, most or least, numbers
        return function

    return register


def remade(recipe: Recipe, sources: Sequence[np.ndarray], numbers: Sequence[int], limit: int) -> np.ndarray:
    """The result of a recipe that a file states.

    Args:
        limit: bytes that it may have.

    Raises:
        InputError: the tensors are not such that the recipe takes, or the result is too large.
    """
    least, most, count = _COUNTS[recipe]
    kinds = {source.dtype for source in sources[1:]} - {np.dtype(np.float32)}
    if not least <= len(sources) <= most or len(numbers) != count or kinds:
        raise InputError(f"{recipe.__name__} takes other tensors")
    if not all(0 <= number <= LARGEST for number in numbers):
        raise InputError(f"{recipe.__name__} of a number beyond {LARGEST}")
    if (512 if sources[0].dtype == np.int64 else 2) * sources[0].nbytes > limit:
        raise InputError(f"{recipe.__name__} of tensors that are too large")
    return recipe(*sources, *numbers)


def unpacked(bits: np.ndarray, *shape: int) -> np.ndarray:
    """Words of bits as booleans of ``shape``.

    Raises:
        InputError: they are not as many words as that takes.
    """
    count = math.prod(shape)
    if bits.dtype != np.int64 or bits.shape != (-(-count // 64),) or count == 0:
        raise InputError(f"{shape} signs take {-(-count // 64)} words of 64 bits")
    return np.unpackbits(bits.view(np.uint8), count=count, bitorder="little").view(bool).reshape(shape)


def _signs(bits: np.ndarray, *shape: int) -> np.ndarray:
    return unpacked(bits, *shape).astype(np.float32) * np.float32(2) - np.float32(1)


def _require(array: np.ndarray, *shape: int) -> np.ndarray:
    if array.dtype != np.float32 or array.shape != shape:
        raise InputError(f"a tensor {list(array.shape)}, expected {list(shape)}")
    return array


def blocks(rows: np.ndarray, filters: int) -> np.ndarray:
    """[taps, K], K filled up to a multiple of half of ``filters`` with zeros, in blocks [taps, filters] one after
    another; the last may be half as wide. Flat, [K' * taps]."""
    taps, count = rows.shape
    whole = -(-count // (filters // 2)) * (filters // 2)
    found = np.zeros((taps, whole), rows.dtype)
    found[:, :count] = rows
    return np.concatenate([found[:, k : k + filters].ravel() for k in range(0, whole, filters)])


def valid_taps(taps: int, dilation: int, stride: int, pad: int, size: int, count: int) -> np.ndarray:
    """[count, taps]: which taps lie inside the map at each output position."""
    at = np.arange(count)[:, None] * stride - pad + np.arange(taps) * dilation
    return (at >= 0) & (at < size)


def classes_of(valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of ``valid``, and for each row which of them it is."""
    kinds, index = np.unique(valid, axis=0, return_inverse=True)
    return kinds, np.ascontiguousarray(index.reshape(-1), dtype=np.int64)


def _kinds(window: Sequence[int]) -> list[np.ndarray]:
    """The different rows and columns of an output, by which taps lie inside the map.

    Args:
        window: kernel, stride, padding, dilation and size of the map, each for rows and columns.
    """
    found = []
    for taps, stride, pad, dilation, size in (window[0::2], window[1::2]):
        if not (1 <= taps <= _MOST_TAPS and stride and dilation):
            raise InputError(f"a kernel of {taps} taps, stride {stride} and dilation {dilation}")
        count = (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        if count < 1:
            raise InputError(f"a map of {size} rows or columns is too small for its kernel")
        found.append(classes_of(valid_taps(taps, dilation, stride, pad, size, count))[0])
    return found


@_recipe(1, 0)
def tensor(values: np.ndarray) -> np.ndarray:
    """As it is."""
    return values


@_recipe(1, 3)
def words(bits: np.ndarray, filters: int, taps: int, channels: int) -> np.ndarray:
    """Weights of a 1-bit convolution, the channels of each tap filled up to whole words."""
    signs, per_tap = unpacked(bits, filters * taps, channels), -(-channels // 64)
    padded = np.zeros((filters * taps, per_tap * 64), bool)
    padded[:, :channels] = signs
    packed = np.packbits(padded, axis=1, bitorder="little").view(np.uint64)
    return blocks(packed.reshape(filters, taps * per_tap).T, engine.kernels().BIT_FILTERS)


@_recipe(1, 12)
def borders(bits: np.ndarray, filters: int, channels: int, *window: int) -> np.ndarray:
    """What a border of -1 adds to the sums of a 1-bit convolution that should see zeros there, taken off.

    By class of rows, class of columns and filter, int32. ``window``: see :func:`_kinds`.
    """
    rows, columns = _kinds(window)
    by_tap = 2 * unpacked(bits, filters, *window[:2], channels).sum(3, dtype=np.int32) - np.int32(channels)
    half = engine.kernels().BIT_FILTERS // 2
    table = np.zeros((len(rows), len(columns), -(-filters // half) * half), np.int32)
    for (i, y), (j, x) in itertools.product(enumerate(rows), enumerate(columns)):
        table[i, j, :filters] = -by_tap[:, ~np.outer(y, x)].sum(1)
    return table


@_recipe(1, 0)
def filters_of(weight: np.ndarray) -> np.ndarray:
    """Weights [K, C, h, w] or [K, C] of a real-valued convolution, in blocks."""
    if weight.dtype != np.float32 or weight.ndim not in (2, 4) or weight.size == 0:
        raise InputError(f"a tensor {list(weight.shape)} is no weight of a convolution")
    weight = weight.reshape(*weight.shape, *[1] * (4 - weight.ndim))
    return blocks(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)), engine.kernels().FLOAT_FILTERS)


@_recipe(1, 0)
def taps_of(weight: np.ndarray) -> np.ndarray:
    """Weights [C, 1, h, w] of a depthwise convolution as [taps, C]."""
    if weight.dtype != np.float32 or weight.ndim != 4 or weight.shape[1] != 1:
        raise InputError(f"a tensor {list(weight.shape)} is no weight of a depthwise convolution")
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


def sign_weights(bits: np.ndarray, scale: np.ndarray, *rest) -> np.ndarray:
    """Signs times scale [K], plus an offset [K] where there is one; the shape [K, C, h, w] comes last."""
    *offset, filters, channels, height, width = rest
    weight = _signs(bits, filters, channels, height, width) * _require(scale, filters)[:, None, None, None]
    return weight + _require(offset[0], filters)[:, None, None, None] if offset else weight


@_recipe(2, 4, most=3)
def sign_filters(bits: np.ndarray, scale: np.ndarray, *rest) -> np.ndarray:
    """:func:`filters_of` :func:`sign_weights`."""
    return filters_of(sign_weights(bits, scale, *rest))


@_recipe(2, 4, most=3)
def sign_taps(bits: np.ndarray, scale: np.ndarray, *rest) -> np.ndarray:
    """:func:`taps_of` :func:`sign_weights`."""
    return taps_of(sign_weights(bits, scale, *rest))


@_recipe(3, 2)
def depthwise(bits: np.ndarray, scale: np.ndarray, in_scale: np.ndarray, taps: int, channels: int) -> np.ndarray:
    """Weights [taps, C] of the depthwise part of a separable block, with the norm before it."""
    return _signs(bits, taps, channels) * _require(scale, channels) * _require(in_scale, channels)


@_recipe(4, 11)
def shifts(
    bits: np.ndarray, scale: np.ndarray, in_shift: np.ndarray, shift: np.ndarray, channels: int, *window: int
) -> np.ndarray:
    """What that part adds to its sums, by class of rows, class of columns and channel.

    The padding of the convolution is 0 behind the norm before it: at the border that norm adds less.
    """
    rows, columns = _kinds(window)
    weights = _signs(bits, window[0] * window[1], channels) * _require(scale, channels)
    constants, shift = weights * _require(in_shift, channels), _require(shift, channels)
    table = np.empty((len(rows), len(columns), channels), np.float32)
    for (i, y), (j, x) in itertools.product(enumerate(rows), enumerate(columns)):
        table[i, j] = shift + constants[np.outer(y, x).ravel()].sum(0)
    return table


@_recipe(1, 2)
def codes(bits: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Weights of a 1x1 convolution for table lookups: four signs a byte, [inputs / 4, outputs filled up to 16]."""
    if inputs % 4:
        raise InputError(f"{inputs} channels are not divided by 4")
    fours = unpacked(bits, outputs, inputs // 4, 4) * np.array([1, 2, 4, 8], np.uint8)
    found = np.zeros((inputs // 4, -(-outputs // 16) * 16), np.uint8)
    found[:, :outputs] = fours.sum(2, dtype=np.uint8).T
    return found


@_recipe(3, 2)
def projection(bits: np.ndarray, scale: np.ndarray, in_scale: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """The same as floats, with the norm before it."""
    weights = _signs(bits, outputs, inputs) * _require(scale, outputs)[:, None]
    return filters_of(weights * _require(in_scale, inputs))
