"""Distances between features, in double precision, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onebit.commons import guards
from onebit.commons.errors import InputError

DISTANCES = ("euclidean", "cosine")

#: Distances are computed and ranked for so many (query, gallery) pairs at a time: 16 MB.
PAIRS_AT_A_TIME = 2_000_000
#: But of no fewer queries, because a matrix product of few rows is slow.
LEAST_ROWS = 64


def check_distance(distance: str) -> None:
    """Raise InputError unless ``distance`` is one of :data:`DISTANCES`."""
    guards.choice("distance", distance, DISTANCES)


def prepared(query_features: np.ndarray, gallery_features: np.ndarray, distance: str) -> np.ndarray:
    """Features [Q + G, D], queries first, in double precision; for cosine, of unit length.

    They are in one array because re-ranking needs all of them together and memory is short.

    Raises:
        InputError: unknown distance, shapes that do not fit, or a feature that is not finite.
    """
    check_distance(distance)
    query, gallery = np.asarray(query_features), np.asarray(gallery_features)
    for array, name in ((query, "query"), (gallery, "gallery")):
        if array.ndim != 2:
            raise InputError(f"expected {name} features of shape [images, D], found {array.shape}")
        if not np.isfinite(array).all():
            raise InputError(f"a {name} feature is not finite")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}")
    everyone = np.empty((len(query) + len(gallery), query.shape[1]))
    everyone[: len(query)], everyone[len(query) :] = query, gallery
    if distance == "cosine":
        norm = np.sqrt(_squares(everyone))
        everyone /= np.where(norm > 0, norm, 1.0)[:, None]
    return everyone


def distance_chunks(query: np.ndarray, gallery: np.ndarray, distance: str) -> Iterator[np.ndarray]:
    """Distances [q, G] of consecutive queries, of parts of what :func:`prepared` returned.

    ``euclidean`` is squared. The caller may overwrite what it gets.
    """
    rows = max(LEAST_ROWS, rows_at_a_time(len(gallery)))
    query_squares, squares = _squares(query)[:, None], _squares(gallery)
    for start in range(0, len(query), rows):
        part = query[start : start + rows]
        if distance == "cosine":
            chunk = part @ gallery.T
            yield np.subtract(1.0, chunk, out=chunk)
        else:
            chunk = (-2.0 * part) @ gallery.T
            chunk += squares
            chunk += query_squares[start : start + rows]
            yield chunk


def rows_at_a_time(columns: int, pairs: int | None = None) -> int:
    """How many rows of so many columns hold about ``pairs`` distances; at least one."""
    return max(1, (pairs or PAIRS_AT_A_TIME) // max(1, columns))


def _squares(features: np.ndarray) -> np.ndarray:
    """Squared lengths [N], without a copy of the features."""
    return np.einsum("nd,nd->n", features, features)
