"""Distances between features, in double precision, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from commons.errors import InputError

DISTANCES = ("euclidean", "cosine")

#: Distances are computed and ranked for so many (query, gallery) pairs at a time: 16 MB.
PAIRS_AT_A_TIME = 2_000_000


def check_distance(distance: str) -> None:
    """Raise InputError unless ``distance`` is one of :data:`DISTANCES`."""
    if distance not in DISTANCES:
        raise InputError(f"unknown distance {distance!r}; expected one of {', '.join(DISTANCES)}")


def prepared(
    query_features: np.ndarray, gallery_features: np.ndarray, distance: str
) -> tuple[np.ndarray, np.ndarray]:
    """Features [Q, D] and [G, D] checked and in double precision; for cosine, of unit length.

    Raises:
        InputError: unknown distance, shapes that do not fit, or a feature that is not finite.
    """
    check_distance(distance)
    query = _checked(query_features, "query")
    gallery = _checked(gallery_features, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}"
        )
    return (_unit(query), _unit(gallery)) if distance == "cosine" else (query, gallery)


def distance_chunks(
    query: np.ndarray, gallery: np.ndarray, distance: str, pairs: int | None = None
) -> Iterator[np.ndarray]:
    """Distances [q, G] of consecutive queries, of features that :func:`prepared` returned.

    ``euclidean`` is squared. About ``pairs`` distances (default :data:`PAIRS_AT_A_TIME`) are in
    memory at a time. The caller may overwrite what it gets.
    """
    rows = rows_at_a_time(len(gallery), pairs)
    query_squares, squares = (query**2).sum(1)[:, None], (gallery**2).sum(1)
    for start in range(0, len(query), rows):
        chunk = query[start : start + rows] @ gallery.T
        if distance == "cosine":
            yield np.subtract(1.0, chunk, out=chunk)
        else:
            chunk *= -2.0
            chunk += squares
            chunk += query_squares[start : start + rows]
            yield chunk


def rows_at_a_time(columns: int, pairs: int | None = None) -> int:
    """How many rows of so many columns hold about ``pairs`` distances; at least one."""
    return max(1, (pairs or PAIRS_AT_A_TIME) // max(1, columns))


def _checked(features: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"expected {name} features of shape [images, D], found {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"a {name} feature is not finite")
    return array


def _unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norm > 0, norm, 1.0)
