"""Chooses who does the arithmetic: the compiled kernels, or torch where numba is missing."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

#: An output with fewer rows per thread than this is not worth the handing out.
MIN_ROWS = 4


@functools.cache
def kernels() -> Any:
    """The compiled kernels, or None where they cannot be had, which is said once.

    ``ONEBIT_KERNELS=torch`` asks for the slow path.
    """
    if os.environ.get("ONEBIT_KERNELS") == "torch":
        return None
    try:
        from onebit.backbones.packed import kernels as compiled
    except ImportError as error:
        warnings.warn(
            f"packed inference falls back to torch, which is many times slower: {error}; pip install numba",
            stacklevel=2,
        )
        return None
    return compiled


def run(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` on shares of ``rows``, one per torch thread."""
    threads = min(torch.get_num_threads(), rows // MIN_ROWS)
    if threads <= 1:
        kernel(0, rows, *arguments)
        return
    share = math.ceil(rows / threads)
    pool = _pool(threads)
    jobs = [pool.submit(kernel, first, min(first + share, rows), *arguments) for first in range(share, rows, share)]
    kernel(0, share, *arguments)
    for job in jobs:
        job.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="packed")
