"""Chooses who does the arithmetic: the compiled kernels, or torch where numba is missing."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any


@functools.cache
def kernels() -> Any:
    """The compiled kernels, or None where they cannot be had, which is said once.

    ``ONEBIT_KERNELS=torch`` asks for the slow path.
    """
    if os.environ.get("ONEBIT_KERNELS") == "torch":
        return None
    try:
        from onebit.packed import kernels as compiled
    except ImportError as error:
        warnings.warn(
            f"packed inference falls back to torch, which is many times slower: {error}; pip install numba",
            stacklevel=2,
        )
        return None
    return compiled


def instructions() -> str:
    """What computes packed networks here: the widest vectors that the kernels are compiled for."""
    compiled = kernels()
    if compiled is None:
        return "plain torch, many times slower: numba is missing, or ONEBIT_KERNELS=torch"
    for features, name in (
        ({"avx512f", "avx512vpopcntdq"}, "AVX-512 with VPOPCNTDQ"),
        ({"avx512f"}, "AVX-512 without VPOPCNTDQ"),
        ({"avx2"}, "AVX2"),
    ):
        if features <= compiled.FEATURES:
            return f"compiled by numba for {name}"
    return "compiled by numba for this processor, without AVX2 or AVX-512"


@contextlib.contextmanager
def first_call() -> Iterator[None]:
    """Around what may compile the kernels: says so where it takes long."""
    execute = kernels().execute
    if execute.signatures:
        yield
        return
    place = getattr(execute._cache, "cache_path", None)
    kept = f"kept in {place}" if place else "not kept: set NUMBA_CACHE_DIR to a folder that can be written"
    timer = threading.Timer(2, print, [f"compiling the 1-bit kernels for this processor; {kept}"], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
