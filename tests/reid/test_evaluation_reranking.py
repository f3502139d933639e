"""k-reciprocal re-ranking against torchreid's and against sets and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError
from onebit.reid.evaluation import distances as evaluation_distances
from onebit.reid.evaluation import evaluate
from onebit.reid.evaluation import reranking as evaluation_reranking
from onebit.reid.evaluation.distances import distance_chunks, prepared
from onebit.reid.evaluation.reranking import ReRanking, reranked_chunks
from onebit.reid.torchreid_adapter import re_ranking


def ours(query, gallery, distance, parameters):
    features = prepared(query, gallery, distance)
    return np.concatenate([*reranked_chunks(features, len(query), distance, parameters)])


def reference(query, gallery, distance, parameters):
    """The method image by image, with Python's sets."""
    images = prepared(query, gallery, distance)
    (original,) = distance_chunks(images, images, distance)
    original = original / original.max(1, keepdims=True)
    total = len(images)

    def nearest(p, k):  # itself first, then by distance, ties by index
        return sorted(range(total), key=lambda i: (i != p, original[p, i], i))[:k]

    def reciprocal(p, k):
        return {i for i in nearest(p, k + 1) if p in nearest(i, k + 1)}

    vectors = np.zeros((total, total))
    for p in range(total):
        own = reciprocal(p, parameters.k1)
        expanded = set(own)
        for q in own:
            theirs = reciprocal(q, round(parameters.k1 / 2))
            if len(own & theirs) > 2 / 3 * len(theirs):
                expanded |= theirs
        for i in expanded:
            vectors[p, i] = np.exp(-original[p, i])
        vectors[p] /= vectors[p].sum()
    vectors = np.stack([vectors[nearest(p, parameters.k2)].mean(0) for p in range(total)])
    result = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        for g in range(len(gallery)):
            a, b = vectors[p], vectors[len(query) + g]
            jaccard = 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()
            weight = parameters.lambda_value
            result[p, g] = (1 - weight) * jaccard + weight * original[p, len(query) + g]
    return result


def clusters(seed, queries, gallery, people=4, dimensions=6):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(people, dimensions))
    draw = lambda n: centres[rng.integers(0, people, n)] + rng.normal(size=(n, dimensions))  # noqa: E731
    return draw(queries), draw(gallery)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("parameters", [ReRanking(), ReRanking(7, 1, 0.0), ReRanking(5, 3, 0.8)])
def test_equals_torchreid(seed, distance, parameters):
    query, gallery = clusters(seed, 15, 60)
    ready = np.split(prepared(query, gallery, distance), [len(query)])
    parts = [(ready[0], ready[1]), (ready[0], ready[0]), (ready[1], ready[1])]
    # It squares what it gets, and neither rounding nor its unstable sort may move an image itself.
    matrices = [np.sqrt(np.maximum(np.concatenate([*distance_chunks(*p, distance)]), 0)) for p in parts]
    for square in matrices[1:]:
        np.fill_diagonal(square, 0)
    theirs = re_ranking(*matrices, parameters.k1, parameters.k2, parameters.lambda_value)
    assert ours(query, gallery, distance, parameters) == pytest.approx(theirs, abs=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 4),
    gallery=st.integers(1, 12),
    grid=st.booleans(),
    parameters=st.builds(ReRanking, k1=st.integers(1, 20), k2=st.integers(1, 9), lambda_value=st.floats(0, 1)),
)
def test_equals_sets_and_loops(seed, queries, gallery, grid, parameters):
    """With ties (on a grid, where distances are exact) and fewer images than neighbours."""
    query, gallery = clusters(seed, queries, gallery, people=2, dimensions=2)
    if grid:
        query, gallery = np.round(query), np.round(gallery)
    everyone = np.concatenate([query, gallery])
    if not np.ptp(everyone, axis=0).any():
        return  # no two images differ: the reference divides by zero
    expected = reference(query, gallery, "euclidean", parameters)
    assert ours(query, gallery, "euclidean", parameters) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_does_not_depend_on_the_pieces(monkeypatch, distance):
    query, gallery = clusters(0, 20, 70)
    whole = ours(query, gallery, distance, ReRanking())
    monkeypatch.setattr(evaluation_distances, "PAIRS_AT_A_TIME", 200)
    monkeypatch.setattr(evaluation_distances, "LEAST_ROWS", 1)
    monkeypatch.setattr(evaluation_reranking, "_ENTRIES_AT_A_TIME", 1000)
    assert ours(query, gallery, distance, ReRanking()) == pytest.approx(whole, abs=1e-12)


def test_images_that_do_not_differ():
    result = ours(np.ones((2, 3)), np.ones((5, 3)), "euclidean", ReRanking(k1=2, k2=1))
    assert np.isfinite(result).all()


def test_lambda_one_is_the_plain_ranking():
    query, gallery = clusters(1, 20, 70)
    rng = np.random.default_rng(1)
    labels = (*(rng.integers(0, 5, n) for n in (20, 70)), *(rng.integers(0, 3, n) for n in (20, 70)))
    plain = evaluate(query, gallery, *labels)
    assert evaluate(query, gallery, *labels, reranking=ReRanking(lambda_value=1.0)) == plain
    assert evaluate(query, gallery, *labels, reranking=ReRanking()) != plain


def test_neighbours_of_one_person_move_up():
    """The last picture of a chain is far from the query but shares its neighbours."""
    person = np.linspace(0.0, 3.0, 13)[:, None] * [1.0, 0.0]
    others = np.array([2.2 * np.array([np.cos(a), np.sin(a)]) for a in np.linspace(1.9, 4.4, 8)])
    query, gallery = person[:1], np.concatenate([person[1:], others])
    labels = ([1], [1] * 12 + [2] * 8, [0], [1] * 20)
    plain = evaluate(query, gallery, *labels)
    reranked = evaluate(query, gallery, *labels, reranking=ReRanking(k1=8, k2=3))
    assert plain.mean_average_precision < 0.95
    assert reranked.mean_average_precision > plain.mean_average_precision


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (dict(k1=0), "k1 0: expected a whole number from 1 up"),
        (dict(k1=2.5), "k1 2.5: expected a whole number"),
        (dict(k2=True), "k2 True: expected a whole number"),
        (dict(lambda_value=1.5), "lambda_value 1.5: expected a number from 0 to 1"),
        (dict(lambda_value="half"), "lambda_value 'half': expected a number from 0 to 1"),
        (dict(lambda_value=float("nan")), "lambda_value nan: expected a number from 0 to 1"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(InputError, match=message):
        ReRanking(**parameters)
