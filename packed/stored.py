"""Plans as plain data: tensors of a packed file, and their way back.

Constants are stored once for all plans of a file, most of them as the recipe that makes them of the network's
own tensors. Everything that is read is checked before it is used: a file is data of a stranger.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from onebit.commons.errors import InputError
from onebit.packed import engine
from onebit.packed.checks import require_inside
from onebit.packed.container import LARGEST, PLAN
from onebit.packed.plan import ARENA, CONSTANTS, KEPT, OUTSIDE, Buffer, Plan, aligned, aligned_memory, one_piece
from onebit.packed.recipes import RECIPES, remade, tensor

#: Bytes that a piece of memory of a plan may have.
MOST_MEMORY = 1 << 30
MOST_PLANS, MOST_STEPS, MOST_CONSTANTS = 64, 1 << 15, 1 << 13
STEPS, CONSTANT_TABLE, VALUES, KEPT_WORDS = (PLAN + name for name in ("steps", "constants", "values", "kept"))
#: The tensors of plans with their types.
TENSORS = {STEPS: np.int32, CONSTANT_TABLE: np.int32, VALUES: np.uint8, KEPT_WORDS: np.int64}
# A constant: its recipe (-1: stored as it is, from one byte of the values to another), numbers of the tensors that it
# is made of (-1: none), whole numbers.
_SOURCES, _NUMBERS = 4, 12
_WIDTH = 1 + _SOURCES + _NUMBERS


class Planned(NamedTuple):
    """A plan that is to be stored.

    Attributes:
        size: of the image, (channels, height, width); there is one.
        constants: in the order in which they lie in memory.
        single: the output is a map, not a tuple of maps.
    """

    size: tuple[int, int, int]
    plan: Plan
    constants: Sequence[Buffer]
    single: bool


def stored(planned: Sequence[Planned], tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict]:
    """What a file says of plans, and their tensors.

    Args:
        tensors: the network's, which the constants were made of.
    """
    kernels = engine.kernels()
    names = sorted(tensors)
    owner = {(tensors[name].ctypes.data, tensors[name].nbytes): at for at, name in enumerate(names)}
    rows: dict[tuple[int, ...], int] = {}  # constants with their places
    values: dict[bytes, int] = {}  # with theirs
    steps, kept, sizes = [], [], []
    taken = 0
    for size, plan, constants, single in planned:
        moved = []
        for constant in constants:
            row = _row(constant, owner, values)
            if row not in rows:
                rows[row], taken = taken, aligned(taken + constant.size)
            moved.append(rows[row])
        begins = [constant.offset for constant in constants]
        table = {name: plan.steps[name].copy() for name in kernels.STEP.names}
        pieces = {name: np.zeros(len(plan.steps), np.int64) for name in kernels.ADDRESSES}
        for number, name, piece, offset in plan.places:
            if piece == CONSTANTS:
                at = bisect.bisect_right(begins, offset) - 1
                offset += moved[at] - begins[at]
            table[name][number], pieces[name][number] = offset, piece
        steps.append(np.stack([*pieces.values(), *table.values()], 1))
        content = plan.pieces[KEPT][: len(plan.pieces[KEPT]) // 8 * 8].view(np.int64)
        filled = np.flatnonzero(content)
        kept.append(np.stack([filled, content[filled]], 1))
        sizes.append(
            {
                "input": list(size),
                "steps": len(plan.steps),
                "arena": len(plan.pieces[ARENA]),
                "kept": len(plan.pieces[KEPT]),
                "filled": len(filled),
                "outputs": [list(shape[1:]) for shape in plan.shapes],
                "single": single,
            }
        )
    about = {"fields": list(kernels.STEP.names), "blocks": [kernels.BIT_FILTERS, kernels.FLOAT_FILTERS], "sizes": sizes}
    whole = np.concatenate(steps)
    if whole.min() < 0 or whole.max() >= 1 << 31:
        raise InputError("a plan with numbers beyond 31 bits cannot be stored")
    return about, {
        STEPS: whole.astype(np.int32),
        CONSTANT_TABLE: np.array(list(rows), np.int32),
        VALUES: np.frombuffer(b"".join(values), np.uint8),
        KEPT_WORDS: np.concatenate(kept),
    }


def _row(constant: Buffer, owner: Mapping[tuple[int, int], int], values: dict[bytes, int]) -> tuple[int, ...]:
    """How a file says what a constant is."""
    assert constant.content is not None
    content, origin = constant.content, constant.origin
    sources = (content,) if origin is None else origin.sources
    found = [owner.get((source.ctypes.data, source.nbytes), -1) for source in sources]
    recipe, numbers = (tensor, ()) if origin is None else (origin.recipe, origin.numbers)
    if min(found) < 0 or len(numbers) > _NUMBERS:
        data = content.tobytes()
        begin = values.setdefault(data, sum(map(len, values)))
        return (-1, *[-1] * _SOURCES, begin, begin + len(data), *[0] * (_NUMBERS - 2))
    sources_filled = [*found, *[-1] * (_SOURCES - len(found))]
    return (RECIPES.index(recipe), *sources_filled, *numbers, *[-1] * (_NUMBERS - len(numbers)))


@dataclass
class StoredPlan:
    """A plan from a file, checked; memory is taken by :meth:`plan`.

    Attributes:
        size: of the image, (channels, height, width).
        shapes: of the outputs for one image, (height, width, channels) or (channels,).
    """

    size: tuple[int, int, int]
    shapes: list[tuple[int, ...]]
    single: bool
    arena: int
    kept: int
    table: np.ndarray
    filled: np.ndarray
    scratch: int

    def plan(self, constants: np.ndarray) -> Plan:
        """The plan, with the constants of its file."""
        kernels, addresses = engine.kernels(), len(engine.kernels().ADDRESSES)
        steps = np.zeros(len(self.table), kernels.STEP)
        for name, column in zip(kernels.STEP.names, self.table[:, addresses:].T, strict=True):
            steps[name] = column
        places = [
            (number, name, int(self.table[number, at]), int(steps[name][number]))
            for number in range(len(steps))
            for at, name in enumerate(kernels.ADDRESSES)
        ]
        kept = aligned_memory(aligned(self.kept))
        kept.view(np.int64)[self.filled[:, 0]] = self.filled[:, 1]
        pieces = {ARENA: aligned_memory(self.arena), CONSTANTS: constants, KEPT: kept}
        return Plan(steps, places, pieces, self.scratch, [(1, *shape) for shape in self.shapes], [])


def read(about: Any, tensors: Mapping[str, np.ndarray], network: Mapping[str, np.ndarray]) -> tuple[list, np.ndarray]:
    """The plans of a file, and their constants.

    Args:
        about: what its description says of plans.
        tensors: those of :data:`TENSORS`.
        network: the network's tensors, int64 and float32.

    Raises:
        InputError: anything in them is not as it should be.
    """
    kernels = engine.kernels()
    sizes = _sizes(about)
    if about["fields"] != list(kernels.STEP.names) or about["blocks"] != [kernels.BIT_FILTERS, kernels.FLOAT_FILTERS]:
        raise InputError("its plans are of another version of the suite: export it anew")
    constants = _constants(tensors[CONSTANT_TABLE], tensors[VALUES], network)
    steps, words, found = tensors[STEPS], tensors[KEPT_WORDS], []
    width = len(kernels.ADDRESSES) + len(kernels.STEP.names)
    if steps.ndim != 2 or steps.shape != (sum(each["steps"] for each in sizes), width):
        raise InputError("its plans have other steps than they say")
    if words.ndim != 2 or words.shape != (sum(each["filled"] for each in sizes), 2):
        raise InputError("its plans have other borders than they say")
    for each in sizes:
        table, steps = steps[: each["steps"]], steps[each["steps"] :]
        filled, words = words[: each["filled"]], words[each["filled"] :]
        if len(filled) and not (filled[:, 0].min() >= 0 and filled[:, 0].max() < each["kept"] // 8):
            raise InputError("a border lies outside of its memory")
        shapes = [tuple(shape) for shape in each["outputs"]]
        pieces = {ARENA: each["arena"], CONSTANTS: len(constants), KEPT: each["kept"]}
        outside = [tuple(each["input"]), *shapes]
        pieces |= {OUTSIDE + number: 4 * math.prod(shape) for number, shape in enumerate(outside)}
        scratch = require_inside(_rows(table), pieces, constants)
        parts = (each["single"], each["arena"], each["kept"], table, filled, scratch)
        found.append(StoredPlan(tuple(each["input"]), shapes, *parts))
    return found, constants


def _rows(table: np.ndarray):
    """The steps of a table: fields, and pieces of addresses."""
    addresses, names = engine.kernels().ADDRESSES, engine.kernels().STEP.names
    for row in table.tolist():
        pieces, fields = row[: len(addresses)], row[len(addresses) :]
        yield dict(zip(names, fields, strict=True)), dict(zip(addresses, pieces, strict=True))


def _sizes(about: Any) -> list[dict[str, Any]]:
    """What a description says of each plan.

    Raises:
        InputError: it is not of that form.
    """

    def whole(value: Any, least: int, most: int) -> bool:
        return type(value) is int and least <= value <= most

    def shape(value: Any, *ranks: int) -> bool:
        if not isinstance(value, list) or len(value) not in ranks or not all(whole(v, 1, LARGEST) for v in value):
            return False
        return 4 * math.prod(value) <= MOST_MEMORY

    keys = {"input", "steps", "arena", "kept", "filled", "outputs", "single"}
    if (
        not isinstance(about, dict)
        or set(about) != {"fields", "blocks", "sizes"}
        or not isinstance(about["sizes"], list)
        or not 1 <= len(about["sizes"]) <= MOST_PLANS
        or not all(
            isinstance(each, dict)
            and set(each) == keys
            and shape(each["input"], 3)
            and whole(each["steps"], 1, MOST_STEPS)
            and all(whole(each[key], 0, MOST_MEMORY) for key in ("arena", "kept", "filled"))
            and isinstance(each["outputs"], list)
            and 1 <= len(each["outputs"]) <= 64
            and all(shape(each_shape, 1, 3) for each_shape in each["outputs"])
            and isinstance(each["single"], bool)
            and (len(each["outputs"]) == 1 or not each["single"])
            for each in about["sizes"]
        )
    ):
        raise InputError("what it says of its plans is not of the form of this suite")
    return about["sizes"]


def _constants(table: np.ndarray, values: np.ndarray, network: Mapping[str, np.ndarray]) -> np.ndarray:
    """One piece of memory with the constants that a table states."""
    if table.ndim != 2 or table.shape[1] != _WIDTH or values.ndim != 1 or len(table) > MOST_CONSTANTS:
        raise InputError("its constants are no table")
    names, buffers, taken = sorted(network), [], 0
    for recipe, *row in table.tolist():
        sources, numbers = row[:_SOURCES], row[_SOURCES:]
        if recipe == -1:
            begin, end = numbers[:2]
            if not 0 <= begin < end <= len(values):
                raise InputError("a constant lies outside of its tensor")
            content = values[begin:end]
        elif not 0 <= recipe < len(RECIPES) or not all(-1 <= at < len(names) for at in sources):
            raise InputError("a constant of an unknown recipe or tensor")
        else:
            given = [network[names[at]] for at in sources if at >= 0]
            counted = [number for number in numbers if number >= 0]
            content = np.ascontiguousarray(remade(RECIPES[recipe], given, counted, MOST_MEMORY - taken))
        taken = aligned(taken + content.nbytes)
        if taken > MOST_MEMORY:
            raise InputError(f"constants of more than {MOST_MEMORY} bytes")
        buffers.append(Buffer(CONSTANTS, content.nbytes, content=content))
    return one_piece(buffers)
