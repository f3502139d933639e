"""CMC, mAP and mINP of person re-identification, exactly, in bounded memory.

Protocols (what is ranked for a query, and how the ranking is read):

``market``          Market-1501 and DukeMTMC-reID (Zheng et al., ICCV 2015): gallery images of the
                    query's identity under the query's camera are left out, junk (identity -1) is
                    ignored altogether, distractors (0000) stay and match nobody.
``cuhk03-new``      CUHK03 with 767 / 700 identities (Zhong et al., CVPR 2017): the same reading; no
                    junk.
``cuhk03-classic``  CUHK03 with 20 splits of 100 test identities (Li et al., CVPR 2014): one gallery
                    image of every identity is drawn; CMC is its expectation over all draws.

``no-cameras``        data of one's own whose cameras are not known (ours): no gallery image is left out.

A query without any match left is not valid and counts nowhere. Ties rank in gallery order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.reid.evaluation.distances import distance_chunks, prepared, rows_at_a_time
from onebit.reid.evaluation.ranking import SameIdentity, match_ranks, single_shot_cmc
from onebit.reid.evaluation.reranking import ReRanking, reranked_chunks

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Protocol:
    """How a ranking is read.

    Attributes:
        text: for a record.
        junk_pids: identities of gallery images that are ignored altogether.
        single_shot: draw one gallery image of every identity.
        cameras: leave out gallery images of the query's identity under the query's camera.
    """

    text: str
    junk_pids: tuple[int, ...] = ()
    single_shot: bool = False
    cameras: bool = True


_LEFT_OUT = "same identity under the same camera left out"
PROTOCOLS = {
    "market": Protocol(f"single query; {_LEFT_OUT}, junk ignored", junk_pids=(-1,)),
    "cuhk03-new": Protocol(f"CUHK03 new protocol; single query; {_LEFT_OUT}"),
    "cuhk03-classic": Protocol(
        f"CUHK03 classic; single gallery shot, expectation over all draws; {_LEFT_OUT}; "
        f"mAP and mINP over the whole gallery",
        single_shot=True,
    ),
    "no-cameras": Protocol("single query; no cameras are known, so that no image is left out", cameras=False),
}


@dataclass(frozen=True)
class Scores:
    """Result of an evaluation; fractions in [0, 1], in full precision.

    Attributes:
        mean_average_precision: mean of the average precision over the valid queries.
        mean_inp: mean of the inverse negative penalty (Ye et al., TPAMI 2021): matches of a query
            over the rank of the last of them.
        cmc: rank k to the fraction of valid queries with a match among their first k.
        valid_queries: queries that have at least one match in another camera.
    """

    mean_average_precision: float
    mean_inp: float
    cmc: dict[int, float]
    valid_queries: int

    def metrics(self, suffix: str = "") -> dict[str, float]:
        """``{"mAP": ..., "rank1": ..., ..., "mINP": ...}``, each name followed by ``suffix``."""
        named = {
            "mAP": self.mean_average_precision,
            **{f"rank{k}": value for k, value in self.cmc.items()},
            "mINP": self.mean_inp,
        }
        return {f"{name}{suffix}": value for name, value in named.items()}


def evaluate(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    distance: str = "euclidean",
    protocol: str = "market",
    reranking: ReRanking | None = None,
    ranks: Sequence[int] = RANKS,
) -> Scores:
    """Rank the gallery for every query and score the ranking.

    Distances are computed in double precision, some rows at a time.

    Args:
        query_features: [Q, D].
        gallery_features: [G, D].
        query_pids, query_cameras: Q identities and cameras.
        gallery_pids, gallery_cameras: G identities and cameras.
        distance: ``euclidean`` (squared; the ranking is the same) or ``cosine`` (one minus the
            cosine; a zero vector is at distance 1 from everything).
        protocol: one of :data:`PROTOCOLS`.
        reranking: rank by k-reciprocal re-ranked distances instead.
        ranks: the ranks of the CMC curve, from 1.

    Raises:
        InputError: shapes do not fit, a feature is not finite, the gallery is smaller than the
            largest rank, or no query is valid.
    """
    labels = _Labels(query_pids, gallery_pids, query_cameras, gallery_cameras, protocol, ranks)
    features, queries = _features(query_features, gallery_features, distance, labels)
    if reranking:
        chunks = reranked_chunks(features, queries, distance, reranking)
    else:
        chunks = distance_chunks(features[:queries], features[queries:], distance)
    return _score(chunks, labels)


def evaluate_distances(
    distances: np.ndarray,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    protocol: str = "market",
    ranks: Sequence[int] = RANKS,
) -> Scores:
    """As :func:`evaluate`, from distances [Q, G]; smaller is closer, ties by gallery order."""
    distances = np.asarray(distances)
    if distances.ndim != 2:
        raise InputError(f"expected distances of shape [Q, G], found {distances.shape}")
    labels = _Labels(query_pids, gallery_pids, query_cameras, gallery_cameras, protocol, ranks)
    labels.check(*distances.shape)
    return _score(_kept(distances, labels.keep), labels)


def _kept(distances: np.ndarray, keep: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive rows of the columns that count; raises InputError where one is not a number."""
    rows = rows_at_a_time(len(keep))
    columns = slice(None) if keep.all() else keep
    for start in range(0, len(distances), rows):
        chunk = distances[start : start + rows][:, columns]
        if np.isnan(chunk).any():
            last = start + len(chunk) - 1
            raise InputError(f"a distance is not a number (queries {start} to {last})")
        yield chunk


@dataclass(frozen=True, eq=False)
class Ranking:
    """The head of one query's ranking.

    Attributes:
        query: index of the query.
        gallery: [K] indices of the gallery images that rank first, without what is left out.
        distances: [K] their distances (Euclidean ones not squared).
        right: [K] whether they match.
        average_precision: of the whole ranking.
    """

    query: int
    gallery: np.ndarray
    distances: np.ndarray
    right: np.ndarray
    average_precision: float


def rankings(
    query_features: np.ndarray,
    gallery_features: np.ndarray,
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    distance: str = "euclidean",
    protocol: str = "market",
    top: int = 10,
) -> Iterator[Ranking]:
    """The rankings that :func:`evaluate` scores: of every valid query, its first ``top`` images.

    Raises:
        InputError: as :func:`evaluate`.
    """
    labels = _Labels(query_pids, gallery_pids, query_cameras, gallery_cameras, protocol, [1])
    features, queries = _features(query_features, gallery_features, distance, labels)
    kept = np.flatnonzero(labels.keep)
    chunks = distance_chunks(features[:queries], features[queries:], distance)
    for n, row, matches, left_out in _valid(chunks, labels):
        ranks = match_ranks(row, matches, left_out)
        order = np.argsort(row, kind="stable")[: top + len(left_out)]
        order = order[~np.isin(order, left_out)][:top]
        distances = row[order]
        if distance == "euclidean":
            distances = np.sqrt(np.maximum(distances, 0))
        yield Ranking(
            query=n,
            gallery=kept[order],
            distances=distances,
            right=np.isin(order, matches),
            average_precision=_average_precision(ranks),
        )


def average_splits(splits: Sequence[Scores]) -> Scores:
    """Mean over the splits of a dataset, e.g. the 20 of CUHK03's classic protocol.

    Every split counts the same; ``valid_queries`` are added up.

    Raises:
        InputError: no splits, or splits scored at different ranks.
    """
    if not splits:
        raise InputError("expected the scores of at least one split, found none")
    if len({tuple(scores.cmc) for scores in splits}) > 1:
        raise InputError(f"the splits were scored at different ranks: {[list(s.cmc) for s in splits]}")
    return Scores(
        mean_average_precision=float(np.mean([s.mean_average_precision for s in splits])),
        mean_inp=float(np.mean([s.mean_inp for s in splits])),
        cmc={k: float(np.mean([s.cmc[k] for s in splits])) for k in splits[0].cmc},
        valid_queries=sum(s.valid_queries for s in splits),
    )


def check_labels(
    query_pids: Sequence[int],
    gallery_pids: Sequence[int],
    query_cameras: Sequence[int],
    gallery_cameras: Sequence[int],
    *,
    protocol: str = "market",
    ranks: Sequence[int] = RANKS,
) -> None:
    """Say before any feature is there what :func:`evaluate` would refuse.

    Raises:
        InputError: the gallery is smaller than the largest rank, or no query is valid.
    """
    labels = _Labels(query_pids, gallery_pids, query_cameras, gallery_cameras, protocol, ranks)
    labels.check(len(query_pids), len(gallery_pids))
    if not any(len(matches) for matches, _ in labels.of_queries()):
        raise _no_valid_query(labels)


class _Labels:
    """Who is in which picture, without what the protocol ignores."""

    def __init__(self, query_pids, gallery_pids, query_cameras, gallery_cameras, protocol, ranks):
        self.protocol = PROTOCOLS[guards.choice("protocol", protocol, PROTOCOLS)]
        self.query_pids, self.query_cameras = np.asarray(query_pids), np.asarray(query_cameras)
        self.all_pids, self.all_cameras = np.asarray(gallery_pids), np.asarray(gallery_cameras)
        self.ranks = [int(rank) for rank in ranks]
        self.keep = ~np.isin(self.all_pids, self.protocol.junk_pids)

    def check(self, queries: int, gallery: int) -> None:
        """Raise InputError unless there are labels for so many images, and enough of them."""
        for values, count, name in (
            (self.query_pids, queries, "query identities"),
            (self.query_cameras, queries, "query cameras"),
            (self.all_pids, gallery, "gallery identities"),
            (self.all_cameras, gallery, "gallery cameras"),
        ):
            if values.shape != (count,):
                raise InputError(f"expected {count} {name}, found an array of shape {values.shape}")
        if not self.ranks or min(self.ranks) < 1:
            raise InputError(f"ranks start at 1; found {self.ranks}")
        kept, largest = int(self.keep.sum()), max(self.ranks)
        if kept < largest:
            raise InputError(f"rank-{largest} needs a gallery of at least {largest} images; this one has {kept}")

    @property
    def gallery_pids(self) -> np.ndarray:
        return self.all_pids[self.keep]

    def of_queries(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Matches and left-out images of each query, as indices of the kept gallery."""
        same_identity = SameIdentity(self.gallery_pids, self.all_cameras[self.keep])
        for pid, camera in zip(self.query_pids, self.query_cameras, strict=True):
            matches, left_out = same_identity(pid, camera)
            yield (matches, left_out) if self.protocol.cameras else (np.sort([*matches, *left_out]), left_out[:0])


def _features(
    query_features: np.ndarray, gallery_features: np.ndarray, distance: str, labels: _Labels
) -> tuple[np.ndarray, int]:
    """See :func:`prepared`, without ignored images; and how many of them are queries."""
    query, gallery = np.asarray(query_features), np.asarray(gallery_features)
    if query.ndim == gallery.ndim == 2:  # otherwise `prepared` has something to say
        labels.check(len(query), len(gallery))
        gallery = gallery if labels.keep.all() else gallery[labels.keep]
    return prepared(query, gallery, distance), len(query)


def _no_valid_query(labels: _Labels) -> InputError:
    where = " under another camera" if labels.protocol.cameras else ""
    return InputError(f"none of the {len(labels.query_pids)} queries has its identity in the gallery{where}")


def _score(chunks: Iterator[np.ndarray], labels: _Labels) -> Scores:
    """Score distances to the kept gallery that arrive as consecutive rows [q, G]."""
    identity, images = np.unique(labels.gallery_pids, return_inverse=True, return_counts=True)[1:]
    precisions, penalties, curves = [], [], []
    for _, row, matches, left_out in _valid(chunks, labels):
        ranks = match_ranks(row, matches, left_out)
        precisions.append(_average_precision(ranks))
        penalties.append(len(ranks) / ranks[-1])
        if labels.protocol.single_shot:
            curve = single_shot_cmc(row, matches, left_out, identity, images, labels.ranks)
        else:
            curve = ranks[0] <= np.asarray(labels.ranks)
        curves.append(curve)
    if not precisions:
        raise _no_valid_query(labels)
    return Scores(
        mean_average_precision=float(np.mean(precisions)),
        mean_inp=float(np.mean(penalties)),
        cmc=dict(zip(labels.ranks, np.mean(curves, axis=0).tolist(), strict=True)),
        valid_queries=len(precisions),
    )


def _valid(chunks: Iterator[np.ndarray], labels: _Labels) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Index, row [G], matches and left-out images of every valid query."""
    queries = enumerate(labels.of_queries())
    for chunk in chunks:
        # The rows go first: zip asks them whether there is a next one before it takes a query.
        for row, (n, (matches, left_out)) in zip(chunk, queries, strict=False):
            if len(matches):
                yield n, row, matches, left_out


def _average_precision(ranks: np.ndarray) -> float:
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
