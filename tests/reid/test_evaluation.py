"""CMC and mAP against torchreid and against an obvious reference."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from commons.errors import InputError
from reid import evaluation
from reid.evaluation import evaluate, evaluate_distances
from reid.torchreid_adapter import evaluate_rank


def reference(distances, query_pids, gallery_pids, query_cameras, gallery_cameras, ranks):
    """One query at a time, one gallery image at a time."""
    precisions, firsts = [], []
    for row, pid, camera in zip(distances, query_pids, query_cameras, strict=True):
        ranked = sorted(range(len(row)), key=lambda i: (row[i], i))  # ties by gallery order
        hits, seen, precision, first = 0, 0, [], None
        for i in ranked:
            if gallery_pids[i] == pid and gallery_cameras[i] == camera:
                continue
            seen += 1
            if gallery_pids[i] == pid:
                hits += 1
                precision.append(hits / seen)
                first = first or seen
        if hits:
            precisions.append(sum(precision) / hits)
            firsts.append(first)
    if not precisions:
        return None
    cmc = {k: sum(f <= k for f in firsts) / len(firsts) for k in ranks}
    return sum(precisions) / len(precisions), cmc, len(firsts)


@st.composite
def cases(draw, ties: bool):
    """Distances and labels with same-camera matches, distractors (0) and single-camera people."""
    seed = draw(st.integers(0, 2**32 - 1))
    queries = draw(st.integers(1, 12))
    gallery = draw(st.integers(10, 40))
    people = draw(st.integers(1, 6))
    cameras = draw(st.integers(1, 4))
    rng = np.random.default_rng(seed)
    if ties:
        distances = rng.integers(0, 4, (queries, gallery)).astype(float)
    else:
        distances = np.stack([rng.permutation(gallery) for _ in range(queries)]) / 7.0
    return (
        distances,
        rng.integers(1, people + 1, queries),
        rng.integers(0, people + 1, gallery),
        rng.integers(0, cameras, queries),
        rng.integers(0, cameras, gallery),
    )


@settings(max_examples=200, deadline=None)
@given(case=cases(ties=False))
def test_equals_torchreid(case):
    _, query_pids, gallery_pids, query_cameras, gallery_cameras = case
    left_out = (query_pids[:, None] == gallery_pids) & (query_cameras[:, None] == gallery_cameras)
    matches = (query_pids[:, None] == gallery_pids) & ~left_out
    valid = matches.any(1)
    # torchreid cannot stack its curves where a query keeps fewer than max_rank gallery images.
    assume(valid.any() and ((~left_out).sum(1)[valid] >= 5).all())
    cmc, mean_ap = evaluate_rank(*case, max_rank=5)
    ours = evaluate_distances(*case, ranks=(1, 2, 3, 4, 5))
    assert ours.mean_average_precision == pytest.approx(mean_ap, abs=1e-12)
    assert list(ours.cmc.values()) == pytest.approx(cmc, abs=1e-6)  # torchreid's are float32
    assert ours.valid_queries == valid.sum()


@settings(max_examples=200, deadline=None)
@given(case=cases(ties=True), rows=st.integers(1, 5))
def test_equals_the_reference_with_ties(case, rows):
    expected = reference(*case, ranks=(1, 5, 10))
    before = evaluation.PAIRS_AT_A_TIME
    evaluation.PAIRS_AT_A_TIME = rows * case[0].shape[1]  # the result must not depend on chunks
    try:
        if expected is None:
            with pytest.raises(InputError, match="none of the"):
                evaluate_distances(*case)
            return
        scores = evaluate_distances(*case)
    finally:
        evaluation.PAIRS_AT_A_TIME = before
    assert scores.mean_average_precision == pytest.approx(expected[0], abs=1e-12)
    assert scores.cmc == pytest.approx(expected[1], abs=1e-12)
    assert scores.valid_queries == expected[2]


def test_ties_are_broken_by_gallery_order():
    tied = np.zeros((1, 2))
    match_first = evaluate_distances(tied, [7], [7, 8], [0], [1, 1], ranks=[1])
    match_second = evaluate_distances(tied, [7], [8, 7], [0], [1, 1], ranks=[1])
    assert (match_first.cmc[1], match_second.cmc[1]) == (1.0, 0.0)
    assert (match_first.mean_average_precision, match_second.mean_average_precision) == (1.0, 0.5)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_features_are_ranked_by_the_distance_named(distance):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(20, 8)), rng.normal(size=(50, 8)) * rng.uniform(1, 9, (50, 1))
    labels = (*(rng.integers(0, 5, n) for n in (20, 50)), *(rng.integers(0, 3, n) for n in (20, 50)))  # fmt: skip
    if distance == "euclidean":
        matrix = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    else:
        norms = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
        matrix = 1 - query @ gallery.T / norms
    expected = evaluate_distances(matrix, *labels)
    assert evaluate(query, gallery, *labels, distance=distance) == expected
    assert evaluate(query.astype(np.float32), gallery.astype(np.float32), *labels, distance=distance) == expected  # fmt: skip


def test_the_two_distances_differ():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[9.0, 0.0], [0.0, 1.0]])
    labels = ([1], [1, 2], [0], [1, 1])
    assert evaluate(query, gallery, *labels, distance="cosine", ranks=[1]).cmc[1] == 1.0
    assert evaluate(query, gallery, *labels, distance="euclidean", ranks=[1]).cmc[1] == 0.0


def test_junk_is_ignored_and_distractors_are_not():
    distances = np.array([[0.0, 1.0, 2.0]])
    arguments = (distances, [5], [-1, 0, 5], [0], [1, 1, 1])
    assert evaluate_distances(*arguments, ranks=[1]).mean_average_precision == pytest.approx(1 / 3)
    without = evaluate_distances(*arguments, ranks=[1], junk_pids=[-1])
    assert without.mean_average_precision == pytest.approx(1 / 2)


def test_same_identity_in_the_same_camera_is_left_out():
    scores = evaluate_distances(np.array([[0.0, 1.0]]), [5], [5, 5], [2], [2, 3], ranks=[1])
    assert scores.cmc[1] == 1.0
    assert scores.mean_average_precision == 1.0


def test_metrics_are_fractions_in_full_precision():
    distances = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    scores = evaluate_distances(distances, [1, 2, 3], [1, 2, 3], [0] * 3, [1] * 3, ranks=[1, 2])
    assert scores.metrics() == {
        "mAP": pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-15),
        "rank1": pytest.approx(1 / 3, abs=1e-15),
        "rank2": pytest.approx(2 / 3, abs=1e-15),
    }


GOOD = dict(
    distances=np.zeros((2, 10)),
    query_pids=[1, 2],
    gallery_pids=[1, 2] * 5,
    query_cameras=[0, 0],
    gallery_cameras=[1] * 10,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(distances=np.zeros((2, 9)), gallery_pids=[1] * 9, gallery_cameras=[1] * 9), "at least 10 images; this one has 9"),
        (dict(gallery_cameras=[0] * 10), "none of the 2 queries"),
        (dict(query_pids=[8, 9]), "none of the 2 queries"),
        (dict(distances=np.zeros((0, 10)), query_pids=[], query_cameras=[]), "none of the 0 queries"),
        (dict(distances=np.full((2, 10), np.nan)), "not a number"),
        (dict(distances=np.zeros(10)), "shape"),
        (dict(query_pids=[1]), "expected 2 query identities"),
        (dict(gallery_cameras=[1]), "expected 10 gallery cameras"),
        (dict(ranks=[0, 1]), "ranks start at 1"),
        (dict(ranks=[]), "ranks start at 1"),
        (dict(junk_pids=[1]), "at least 10 images; this one has 5"),
    ],
)  # fmt: skip
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message):
        evaluate_distances(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("query", "gallery", "distance", "message"),
    [
        (np.zeros((2, 3)), np.zeros((10, 4)), "euclidean", "3 dimensions"),
        (np.full((2, 3), np.inf), np.zeros((10, 3)), "euclidean", "query feature is not finite"),
        (np.zeros((2, 3)), np.full((10, 3), np.nan), "cosine", "gallery feature is not finite"),
        (np.zeros(3), np.zeros((10, 3)), "cosine", "query features of shape"),
        (np.zeros((2, 3)), np.zeros((10, 3)), "manhattan", "unknown distance 'manhattan'"),
    ],
)
def test_bad_features(query, gallery, distance, message):
    labels = {k: v for k, v in GOOD.items() if k != "distances"}
    with pytest.raises(InputError, match=message):
        evaluate(query, gallery, **labels, distance=distance)
