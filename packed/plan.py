"""A network as a flat list of compiled steps over memory that is laid out once.

Maps whose lifetimes do not overlap share memory, constants lie in one piece, and one compiled call runs all steps.
:mod:`onebit.backbones.packed.builder` makes plans. Tensors are given as addresses: nothing here calls torch.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from onebit.packed import engine
from onebit.packed.recipes import Origin

#: Memory begins at multiples of so many bytes: a cache line, and the widest vector.
ALIGNMENT = 64
#: The pieces of memory that every plan has; its inputs and outputs follow.
ARENA, CONSTANTS, KEPT, OUTSIDE = range(4)


@dataclass(eq=False)
class Buffer:
    """A piece of memory whose place is found when the plan is laid out.

    Attributes:
        piece: in which of a plan's pieces it lies.
        size: in bytes.
        first, last: the steps between which it is in use.
        content: what is in it from the start, of constants and of what is kept from run to run.
        origin: how the content was made, where a recipe made it.
    """

    piece: int
    size: int
    first: int = -1
    last: int = -1
    content: np.ndarray | None = None
    origin: Origin | None = None
    offset: int = 0


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def share_memory(buffers: list[Buffer]) -> np.ndarray:
    """Give buffers whose lifetimes do not overlap the same place in one piece of memory, large ones first."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda each: -each.size):
        taken = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
        buffer.offset = 0
        for other in sorted(taken, key=lambda each: each.offset):
            if buffer.offset + buffer.size <= other.offset:
                break
            buffer.offset = max(buffer.offset, aligned(other.offset + other.size))
        placed.append(buffer)
    return aligned_memory(max((buffer.offset + buffer.size for buffer in buffers), default=0))


def one_piece(buffers: Sequence[Buffer]) -> np.ndarray:
    """One piece of memory with the contents of ``buffers``, whose offsets are set."""
    size = 0
    for buffer in buffers:
        buffer.offset, size = size, aligned(size + buffer.size)
    memory = aligned_memory(size)
    for buffer in buffers:
        assert buffer.content is not None
        memory[buffer.offset : buffer.offset + buffer.size] = buffer.content.reshape(-1).view(np.uint8)
    return memory


def aligned_memory(size: int) -> np.ndarray:
    """``size`` bytes, at least one, zero, that begin at a multiple of :data:`ALIGNMENT`."""
    memory = np.zeros(max(size, 1) + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + max(size, 1)]


@dataclass(frozen=True)
class Line:
    """A step as people read it.

    Attributes:
        name: of the layer.
        kernel: what computes it.
        shape: of its output, (height, width, channels).
        bit_macs, float_macs: multiply-accumulates of one run, with two 1-bit operands and with others.
        milliseconds: median of one run, where it was measured.
    """

    name: str
    kernel: str
    shape: tuple[int, int, int]
    bit_macs: int
    float_macs: int
    milliseconds: float | None = None


def peaks(threads: int = 1, repeat: int = 50) -> tuple[float, float]:
    """Multiply-accumulates per second of the innermost loops on operands in the first cache: bits, and floats.

    They bound what a step can reach; table lookups can go beyond the second. One thread is measured, and taken
    ``threads`` times.
    """
    kernels = engine.kernels()
    pixels, words, taps = 64 * kernels.PIXELS, 36, 64
    found = []
    for loop, filters, length, lanes, size in (
        (kernels._sums_of_bits, kernels.BIT_FILTERS, words, 64, 8),
        (kernels._sums_of_floats, kernels.FLOAT_FILTERS, taps, 1, 4),
    ):
        source, weights = aligned_memory(size * length), aligned_memory(size * length * filters)
        sums, offsets = aligned_memory(4 * pixels * filters), np.zeros(1, np.int64)
        # Every position reads the same words.
        places = [each.ctypes.data for each in (weights, offsets, sums)]
        times = []
        for _ in range(repeat):
            before = time.perf_counter()
            loop(source.ctypes.data, 0, places[0], places[1], 1, length, places[2], filters, 0, filters, pixels)
            times.append(time.perf_counter() - before)
        found.append(threads * pixels * filters * length * lanes / float(np.median(times)))
    return found[0], found[1]


class Plan:
    """The steps of a network for inputs of one shape, and their memory.

    Args:
        steps: of :data:`onebit.packed.kernels.STEP`.
        places: of every address in a step: the number of the step, the field, the piece of memory and how many bytes
            into it.
        pieces: memory by its number; that of inputs and outputs is given when the plan runs.
        scratch: bytes that each thread needs for itself.
        shapes: of the outputs: [n, height, width, channels], or [n, channels].
        lines: what the steps are.
    """

    def __init__(
        self,
        steps: np.ndarray,
        places: Sequence[tuple[int, str, int, int]],
        pieces: dict[int, np.ndarray],
        scratch: int,
        shapes: list[tuple[int, ...]],
        lines: list[Line],
    ) -> None:
        self.shapes, self.lines = shapes, lines
        self.steps, self.places, self.pieces = steps, places, pieces
        for number, name, piece, offset in places:
            if piece in pieces:
                steps[name][number] = pieces[piece].ctypes.data + offset
        self._outside = [place for place in places if place[2] not in pieces]
        self._scratch_size = aligned(scratch + ALIGNMENT)
        self._scratch = aligned_memory(self._scratch_size)
        self._counter = np.zeros(1, np.int64)
        self._lock = threading.Lock()

    def run(self, addresses: Sequence[int], threads: int = 1) -> None:
        """Compute the outputs.

        Args:
            addresses: of the first elements of the inputs, then of the outputs; float32, outputs contiguous.
        """
        threads = max(1, min(threads, int(self.steps["tasks"].max())))
        with self._lock, engine.first_call():
            self._execute(addresses, 0, len(self.steps), threads)

    def _execute(self, addresses: Sequence[int], first: int, last: int, threads: int) -> None:
        if len(self._scratch) < threads * self._scratch_size:
            self._scratch = aligned_memory(threads * self._scratch_size)
        for number, name, piece, offset in self._outside:
            self.steps[name][number] = addresses[piece - OUTSIDE] + offset
        self._counter[0] = 0
        counter, scratch = self._counter.ctypes.data, self._scratch.ctypes.data

        def execute(thread: int) -> None:
            own = scratch + thread * self._scratch_size
            engine.kernels().execute(self.steps, first, last, own, counter, thread, threads)

        jobs = [_pool(threads).submit(execute, thread) for thread in range(1, threads)]
        execute(0)
        for job in jobs:
            job.result()

    def timed(self, addresses: Sequence[int], threads: int = 1, repeat: int = 20) -> list[Line]:
        """The steps with the median time of each, measured one by one."""
        spent: list[list[float]] = [[] for _ in self.lines]
        for _ in range(repeat):
            for number, times in enumerate(spent):
                with self._lock:
                    before = time.perf_counter()
                    self._execute(addresses, number, number + 1, threads)
                    times.append(1e3 * (time.perf_counter() - before))
        return [
            replace(line, milliseconds=float(np.median(times))) for line, times in zip(self.lines, spent, strict=True)
        ]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="packed")


if hasattr(os, "register_at_fork"):  # a fork has the pool without its threads, and would wait for them for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
