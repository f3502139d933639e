"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal
Encoding, CVPR 2017), in bounded memory.

Neighbour lists and the encoded vectors are sparse, so nothing of the size (queries + gallery)^2 is
ever held: the distances behind them are computed some rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from onebit.commons import guards
from onebit.reid.evaluation.distances import distance_chunks, rows_at_a_time

#: So many entries of gathered neighbour lists are in memory at a time.
_ENTRIES_AT_A_TIME = 8_000_000


@dataclass(frozen=True)
class ReRanking:
    """Parameters of the method; the defaults are the paper's for Market-1501.

    Attributes:
        k1: neighbours that make up a k-reciprocal set.
        k2: neighbours over which encoded vectors are averaged (local query expansion);
            1 leaves it out.
        lambda_value: weight of the original distance, one minus that of the Jaccard
            distance.

    Raises:
        InputError: a parameter out of range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        guards.whole("k1", self.k1)
        guards.whole("k2", self.k2)
        guards.fraction("lambda_value", self.lambda_value)


def reranked_chunks(features: np.ndarray, queries: int, distance: str, parameters: ReRanking) -> Iterator[np.ndarray]:
    """Re-ranked distances [q, G] of consecutive queries.

    Args:
        features: [Q + G, D] as :func:`onebit.reid.evaluation.distances.prepared` returns them.
        queries: Q.
        distance: ``euclidean`` or ``cosine``. The original distance is the squared Euclidean one or
            one minus the cosine, divided by the largest distance of the same image.
        parameters: k1, k2 and lambda.
    """
    neighbours, farthest = _neighbours(features, distance, max(parameters.k1 + 1, parameters.k2))
    vectors = _encoded(features, distance, neighbours, farthest, parameters.k1)
    if parameters.k2 > 1:
        vectors = _averaged(vectors, neighbours[:, : parameters.k2])
    of_gallery = vectors[queries:].tocsc()
    start = 0
    for chunk in distance_chunks(features[:queries], features[queries:], distance):
        chunk /= farthest[start : start + len(chunk), None]
        chunk *= parameters.lambda_value
        for n, row in enumerate(chunk):
            jaccard = _jaccard(vectors[start + n], of_gallery)
            row += (1.0 - parameters.lambda_value) * jaccard
        yield chunk
        start += len(chunk)


def _neighbours(features: np.ndarray, distance: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of each image, itself first [N, count], and the distance of its farthest [N].

    Ties come in the order of the images. A farthest distance of zero is given as one.
    """
    count = min(count, len(features))
    nearest = np.empty((len(features), count), dtype=np.int32)
    farthest = np.empty(len(features))
    start = 0
    for chunk in distance_chunks(features, features, distance):
        for n, row in enumerate(chunk, start):
            farthest[n] = row.max()
            row[n] = -np.inf  # itself, whatever rounding says
            near = np.flatnonzero(row <= np.partition(row, count - 1)[count - 1])
            nearest[n] = near[np.argsort(row[near], kind="stable")[:count]]
        start += len(chunk)
    return nearest, np.where(farthest > 0, farthest, 1.0)


def _reciprocal(nearest: np.ndarray) -> np.ndarray:
    """Which of the listed neighbours list the image too [N, K]."""
    mutual = np.empty(nearest.shape, dtype=bool)
    rows = rows_at_a_time(nearest.shape[1] ** 2, _ENTRIES_AT_A_TIME)
    for start in range(0, len(nearest), rows):
        part = nearest[start : start + rows]
        image = np.arange(start, start + len(part))[:, None, None]
        mutual[start : start + rows] = (nearest[part] == image).any(2)
    return mutual


def _encoded(
    features: np.ndarray, distance: str, neighbours: np.ndarray, farthest: np.ndarray, k1: int
) -> sparse.csr_matrix:
    """Each image as a vector over its expanded k-reciprocal neighbours [N, N], sum 1."""
    full = neighbours[:, : k1 + 1]
    half = neighbours[:, : round(k1 / 2) + 1]
    in_full, in_half = _reciprocal(full), _reciprocal(half)
    half_size = in_half.sum(1)
    total = len(features)
    parts = []
    rows = rows_at_a_time(full.shape[1] ** 2 * half.shape[1], _ENTRIES_AT_A_TIME)
    for start in range(0, total, rows):
        own, is_own = full[start : start + rows], in_full[start : start + rows]  # [n, K]
        theirs, is_theirs = half[own], in_half[own]  # [n, K, H]: the sets of the candidates
        # A list names nobody twice, so comparing everybody with everybody counts the overlap.
        shared = (theirs[..., None] == np.where(is_own, own, -1)[:, None, None, :]).any(3)
        overlap = (shared & is_theirs).sum(2)
        joins = is_own & (3 * overlap > 2 * half_size[own])
        image = np.arange(start, start + len(own))[:, None]
        added = is_theirs & joins[..., None]
        keys = np.concatenate([(image * total + own)[is_own], (image[..., None] * total + theirs)[added]])
        keys = np.unique(keys)
        index, other = np.divmod(keys, total)
        weights = np.exp(-_pair_distances(features, distance, index, other) / farthest[index])
        weights /= np.bincount(index, weights, total)[index]
        parts.append((weights, index, other))
    weights, index, other = (np.concatenate(values) for values in zip(*parts, strict=True))
    return sparse.csr_matrix((weights, (index, other)), shape=(total, total))


def _pair_distances(features: np.ndarray, distance: str, index: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances of single pairs [P]."""
    result = np.empty(len(index))
    step = rows_at_a_time(features.shape[1])
    for start in range(0, len(index), step):
        a, b = features[index[start : start + step]], features[other[start : start + step]]
        if distance == "cosine":
            result[start : start + step] = 1.0 - np.einsum("pd,pd->p", a, b)
        else:
            result[start : start + step] = ((a - b) ** 2).sum(1)
    return result


def _averaged(vectors: sparse.csr_matrix, nearest: np.ndarray) -> sparse.csr_matrix:
    """Mean of the vectors of each image's nearest."""
    total, count = nearest.shape
    ones = np.full(nearest.size, 1.0 / count)
    mean = sparse.csr_matrix((ones, nearest.ravel(), np.arange(0, nearest.size + 1, count)), shape=(total, total))
    return (mean @ vectors).tocsr()


def _jaccard(vector: sparse.csr_matrix, gallery: sparse.csc_matrix) -> np.ndarray:
    """Jaccard distance of one vector [1, N] to all of the gallery [G].

    Both have sum 1, so the sum of maxima is 2 minus the sum of minima.
    """
    starts, stops = gallery.indptr[vector.indices], gallery.indptr[vector.indices + 1]
    lengths = stops - starts
    # The entries of all those columns one after the other: each column's start, counted on.
    ends = np.cumsum(lengths)
    entries = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    smaller = np.minimum(np.repeat(vector.data, lengths), gallery.data[entries])
    minima = np.bincount(gallery.indices[entries], smaller, gallery.shape[0])
    return 1.0 - minima / (2.0 - minima)
