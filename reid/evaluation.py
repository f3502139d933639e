"""CMC and mAP of person re-identification, exactly, in bounded memory.

One rule serves all three boards: Market-1501 and DukeMTMC-reID (Zheng et al., ICCV 2015) and CUHK03
under its new protocol (Zhong et al., CVPR 2017). For every query, gallery images of the same
identity from the same camera are left out; the rest is ranked by distance. A query without any
match left is not valid and counts nowhere. This is not the old CUHK03 metric, which draws one
gallery image per identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from commons.errors import InputError

DISTANCES = ("euclidean", "cosine")
RANKS = (1, 5, 10)

#: Distances are computed and ranked for so many (query, gallery) pairs at a time: about 250 MB.
PAIRS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Scores:
    """Result of an evaluation; fractions in [0, 1], in full precision.

    Attributes:
        mean_average_precision: mean of the average precision over the valid queries.
        cmc: rank k to the fraction of valid queries with a match among their first k.
        valid_queries: queries that have at least one match in another camera.
    """

    mean_average_precision: float
    cmc: dict[int, float]
    valid_queries: int

    def metrics(self) -> dict[str, float]:
        """``{"mAP": ..., "rank1": ..., ...}``."""
        return {
            "mAP": self.mean_average_precision,
            **{f"rank{k}": value for k, value in self.cmc.items()},
        }


def evaluate(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    distance: str = "euclidean",
    ranks: Sequence[int] = RANKS,
    junk_pids: Sequence[int] = (),
) -> Scores:
    """Rank the gallery for every query and score the ranking.

    Ties are broken by gallery order (a stable sort): of two gallery images at the same distance the
    one that comes first in the gallery ranks first.

    Args:
        query_features: [Q, D].
        gallery_features: [G, D].
        query_pids, query_cameras: Q identities and cameras.
        gallery_pids, gallery_cameras: G identities and cameras.
        distance: ``euclidean`` (squared; the ranking is the same) or ``cosine`` (one minus the
            cosine; a zero vector is at distance 1 from everything).
        ranks: the ranks of the CMC curve, from 1.
        junk_pids: identities of gallery images that are ignored altogether, e.g. Market's -1.
            torchreid's loader leaves those out already. Distractors (Market's 0) are not junk: they
            stay in the gallery and match nobody.

    Raises:
        InputError: shapes do not fit, a feature is not finite, the gallery is smaller than the
            largest rank, or no query is valid.
    """
    if distance not in DISTANCES:
        raise InputError(f"unknown distance {distance!r}; expected one of {', '.join(DISTANCES)}")
    query = _features(query_features, "query")
    gallery = _features(gallery_features, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            f"query features have {query.shape[1]} dimensions, gallery features {gallery.shape[1]}"
        )
    if distance == "cosine":
        query, gallery = _normalized(query), _normalized(gallery)

    def distances() -> Iterator[np.ndarray]:
        rows = max(1, PAIRS_AT_A_TIME // max(1, len(gallery)))
        squares = (gallery**2).sum(1)
        for start in range(0, len(query), rows):
            chunk = query[start : start + rows]
            product = chunk @ gallery.T
            if distance == "cosine":
                yield 1.0 - product
            else:
                yield (chunk**2).sum(1)[:, None] + squares - 2.0 * product

    shape = (len(query), len(gallery))
    return _score(
        distances(), shape, query_pids, gallery_pids, query_cameras, gallery_cameras, ranks, junk_pids
    )  # fmt: skip


def evaluate_distances(
    distances: np.ndarray,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    ranks: Sequence[int] = RANKS,
    junk_pids: Sequence[int] = (),
) -> Scores:
    """As :func:`evaluate`, from distances [Q, G]; smaller is closer, ties by gallery order."""
    distances = np.asarray(distances)
    if distances.ndim != 2:
        raise InputError(f"expected distances of shape [Q, G], found {distances.shape}")
    rows = max(1, PAIRS_AT_A_TIME // max(1, distances.shape[1]))
    chunks = (distances[start : start + rows] for start in range(0, len(distances), rows))
    return _score(
        chunks, distances.shape, query_pids, gallery_pids, query_cameras, gallery_cameras, ranks, junk_pids
    )  # fmt: skip


def check_labels(
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    ranks: Sequence[int] = RANKS,
) -> None:
    """Say before any feature is there what :func:`evaluate` would refuse.

    Raises:
        InputError: the gallery is smaller than the largest rank, or no query is valid.
    """
    _check_gallery(len(gallery_pids), ranks)
    cameras: dict[int, set[int]] = {}
    for pid, camera in zip(gallery_pids, gallery_cameras, strict=True):
        cameras.setdefault(pid, set()).add(camera)
    queries = zip(query_pids, query_cameras, strict=True)
    if not any(cameras.get(pid, set()) - {camera} for pid, camera in queries):
        raise _no_valid_query(len(query_pids))


def _check_gallery(size: int, ranks: Sequence[int]) -> None:
    if size < max(ranks):
        raise InputError(
            f"rank-{max(ranks)} needs a gallery of at least {max(ranks)} images; this one has {size}"
        )


def _no_valid_query(queries: int) -> InputError:
    return InputError(
        f"none of the {queries} queries has its identity in the gallery under another camera"
    )


def _score(
    chunks: Iterator[np.ndarray],
    shape: tuple[int, int],
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    ranks: Sequence[int],
    junk_pids: Sequence[int],
) -> Scores:
    """Score distances that arrive as consecutive rows [q, G]."""
    query_pids = _labels(query_pids, shape[0], "query identities")
    query_cameras = _labels(query_cameras, shape[0], "query cameras")
    gallery_pids = _labels(gallery_pids, shape[1], "gallery identities")
    gallery_cameras = _labels(gallery_cameras, shape[1], "gallery cameras")
    ranks = [int(rank) for rank in ranks]
    if not ranks or min(ranks) < 1:
        raise InputError(f"ranks start at 1; found {ranks}")
    keep = ~np.isin(gallery_pids, list(junk_pids))
    gallery_pids, gallery_cameras = gallery_pids[keep], gallery_cameras[keep]
    _check_gallery(len(gallery_pids), ranks)

    precisions: list[np.ndarray] = []
    first_ranks: list[np.ndarray] = []
    start = 0
    for distances in chunks:
        if np.isnan(distances).any():
            raise InputError(
                f"a distance is not a number (queries {start} to {start + len(distances) - 1})"
            )
        stop = start + len(distances)
        precision, first = _rank_chunk(
            distances if keep.all() else distances[:, keep],
            query_pids[start:stop],
            gallery_pids,
            query_cameras[start:stop],
            gallery_cameras,
        )
        precisions.append(precision)
        first_ranks.append(first)
        start = stop
    precision = np.concatenate(precisions) if precisions else np.empty(0)
    first = np.concatenate(first_ranks) if first_ranks else np.empty(0)
    if not len(precision):
        raise _no_valid_query(shape[0])
    return Scores(
        mean_average_precision=float(precision.mean()),
        cmc={rank: float((first <= rank).mean()) for rank in ranks},
        valid_queries=len(precision),
    )


def _rank_chunk(
    distances: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision, and rank of the first match, of each valid query among these rows."""
    order = np.argsort(distances, axis=1, kind="stable")
    same_pid = gallery_pids[order] == query_pids[:, None]
    same_camera = gallery_cameras[order] == query_cameras[:, None]
    match = same_pid & ~same_camera
    rank = np.cumsum(~(same_pid & same_camera), axis=1)  # from 1, without what is left out
    matches = match.sum(1)
    valid = matches > 0
    match, rank, matches = match[valid], rank[valid], matches[valid]
    # Precision at the rank of each match; elsewhere the quotient is not used.
    found = np.cumsum(match, axis=1)
    precision = np.divide(found, rank, out=np.zeros(match.shape), where=match)
    first = rank[np.arange(len(rank)), match.argmax(1)]
    return precision.sum(1) / matches, first


def _features(features: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2:
        raise InputError(f"expected {name} features of shape [images, D], found {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"a {name} feature is not finite")
    return array


def _labels(values: Sequence[int], count: int, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (count,):
        raise InputError(f"expected {count} {name}, found an array of shape {array.shape}")
    return array


def _normalized(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norm > 0, norm, 1.0)
