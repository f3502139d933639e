"""CMC, mAP and mINP against torchreid and against an obvious reference."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError
from onebit.reid.evaluation import PROTOCOLS, average_splits, check_labels, evaluate, evaluate_distances
from onebit.reid.evaluation import distances as evaluation_distances
from onebit.reid.evaluation import ranking as evaluation_ranking
from onebit.reid.torchreid_adapter import evaluate_rank


def ranking(row, pid, camera, gallery_pids, gallery_cameras):
    """Identities in the order of the ranking; None where an image takes no rank."""
    ranked = sorted(range(len(row)), key=lambda i: (row[i], i))  # ties by gallery order
    return [gallery_pids[i] for i in ranked if not (gallery_pids[i] == pid and gallery_cameras[i] == camera)]


def chance_of_a_match(pids, pid, rank):
    """Draw one image of every identity in every possible way and look at each draw."""
    places = [[n for n, p in enumerate(pids) if p == identity] for identity in sorted(set(pids))]
    draws = [sorted(draw) for draw in itertools.product(*places)]
    return sum(pid in [pids[n] for n in draw[:rank]] for draw in draws) / len(draws)


def reference(distances, query_pids, gallery_pids, query_cameras, gallery_cameras, ranks, protocol="market"):
    """One query at a time, one gallery image at a time; None when no query is valid."""
    junk = [-1] if protocol == "market" else []
    keep = [i for i, pid in enumerate(gallery_pids) if pid not in junk]
    pids, cameras = [gallery_pids[i] for i in keep], [gallery_cameras[i] for i in keep]
    precisions, penalties, curves = [], [], []
    for row, pid, camera in zip(distances, query_pids, query_cameras, strict=True):
        ranked = ranking([row[i] for i in keep], pid, camera, pids, cameras)
        places = [n for n, found in enumerate(ranked, 1) if found == pid]
        if not places:
            continue
        precisions.append(sum(hits / n for hits, n in enumerate(places, 1)) / len(places))
        penalties.append(len(places) / places[-1])
        if protocol == "cuhk03-classic":
            curves.append([chance_of_a_match(ranked, pid, k) for k in ranks])
        else:
            curves.append([places[0] <= k for k in ranks])
    if not precisions:
        return None
    cmc = {k: sum(curve[n] for curve in curves) / len(curves) for n, k in enumerate(ranks)}
    return np.mean(precisions), np.mean(penalties), cmc, len(curves)


@st.composite
def cases(draw, ties: bool, largest: int = 40):
    """Distances and labels: same-camera matches, junk (-1), distractors (0), single cameras."""
    seed = draw(st.integers(0, 2**32 - 1))
    queries = draw(st.integers(1, 12))
    size = draw(st.integers(1, largest))
    people = draw(st.integers(1, 6))
    cameras = draw(st.integers(1, 4))
    lowest = draw(st.sampled_from([-1, 0, 1]))
    rng = np.random.default_rng(seed)
    if ties:
        distances = rng.integers(0, draw(st.integers(1, 6)), (queries, size)) / 7.0
    else:
        distances = np.stack([rng.permutation(size) for _ in range(queries)]) / 7.0
    if draw(st.booleans()):
        distances = distances.astype(np.float32)
    return (
        distances,
        rng.integers(1, people + 1, queries),
        rng.integers(lowest, people + 1, size),
        rng.integers(0, cameras, queries),
        rng.integers(0, draw(st.integers(1, cameras)), size),
    )


def assert_equals_reference(case, ranks, protocol="market"):
    kept = np.sum(case[2] >= 0) if protocol == "market" else len(case[2])
    if kept < max(ranks):
        with pytest.raises(InputError, match=f"at least {max(ranks)} images; this one has {kept}"):
            evaluate_distances(*case, ranks=ranks, protocol=protocol)
        return
    expected = reference(*case, ranks=ranks, protocol=protocol)
    if expected is None:
        with pytest.raises(InputError, match="none of the"):
            evaluate_distances(*case, ranks=ranks, protocol=protocol)
        with pytest.raises(InputError, match="none of the"):
            check_labels(*case[1:], ranks=ranks, protocol=protocol)
        return
    check_labels(*case[1:], ranks=ranks, protocol=protocol)
    scores = evaluate_distances(*case, ranks=ranks, protocol=protocol)
    assert scores.mean_average_precision == pytest.approx(expected[0], abs=1e-12)
    assert scores.mean_inp == pytest.approx(expected[1], abs=1e-12)
    assert scores.cmc == pytest.approx(expected[2], abs=1e-12)
    assert scores.valid_queries == expected[3]


@settings(max_examples=200, deadline=None)
@given(case=st.booleans().flatmap(lambda ties: cases(ties=ties)))
def test_equals_torchreid(case):
    """Where distances tie, torchreid is given their order in the gallery instead."""
    case = (case[0], case[1], np.abs(case[2]), *case[3:])  # its loaders leave junk out
    distances, query_pids, gallery_pids, query_cameras, gallery_cameras = case
    places = np.argsort(np.argsort(distances, axis=1, kind="stable"), axis=1)
    left_out = (query_pids[:, None] == gallery_pids) & (query_cameras[:, None] == gallery_cameras)
    valid = ((query_pids[:, None] == gallery_pids) & ~left_out).any(1)
    # torchreid cannot stack its curves where a query keeps fewer than max_rank gallery images.
    assume(valid.any() and ((~left_out).sum(1)[valid] >= 5).all())
    cmc, mean_ap = evaluate_rank(places, *case[1:], max_rank=5)
    ours = evaluate_distances(*case, ranks=(1, 2, 3, 4, 5))
    assert ours.mean_average_precision == pytest.approx(mean_ap, abs=1e-12)
    assert list(ours.cmc.values()) == pytest.approx(cmc, abs=1e-6)  # torchreid's are float32
    assert ours.valid_queries == valid.sum()


@settings(max_examples=200, deadline=None)
@given(case=st.booleans().flatmap(lambda ties: cases(ties=ties)), only_junk=st.integers(1, 12), junk=st.floats(0, 1))
def test_queries_with_nothing_but_junk_equal_torchreid(case, only_junk, junk):
    """All of their matches are under their own camera, or are junk (-1), however near."""
    distances, query_pids, gallery_pids, query_cameras, gallery_cameras = case
    only_junk = min(only_junk, len(query_pids))
    rng = np.random.default_rng(len(gallery_pids))
    gallery_pids[rng.random(len(gallery_pids)) < junk / 2] = -1
    for n in range(only_junk):
        query_pids[n] = 100 + n
        own = rng.random(len(gallery_pids)) < junk / 4
        gallery_pids[own], gallery_cameras[own] = query_pids[n], query_cameras[n]
    kept = gallery_pids >= 0  # its loaders leave junk out
    assume(kept.sum() >= 5)
    places = np.argsort(np.argsort(distances[:, kept], axis=1, kind="stable"), axis=1)
    theirs = (places, query_pids, gallery_pids[kept], query_cameras, gallery_cameras[kept])
    same = query_pids[:, None] == gallery_pids[kept]
    left_out = same & (query_cameras[:, None] == gallery_cameras[kept])
    valid = (same & ~left_out).any(1)
    assert not valid[:only_junk].any()
    if not valid.any():
        with pytest.raises(AssertionError, match="all query identities do not appear in gallery"):
            evaluate_rank(*theirs, max_rank=5)
        with pytest.raises(InputError, match=f"none of the {len(query_pids)} queries"):
            evaluate_distances(*case, ranks=(1, 2, 3, 4, 5))
        return
    assume(((~left_out).sum(1)[valid] >= 5).all())
    cmc, mean_ap = evaluate_rank(*theirs, max_rank=5)
    ours = evaluate_distances(*case, ranks=(1, 2, 3, 4, 5))
    assert ours.mean_average_precision == pytest.approx(mean_ap, abs=1e-12)
    assert list(ours.cmc.values()) == pytest.approx(cmc, abs=1e-6)
    assert ours.valid_queries == valid.sum()


@settings(max_examples=300, deadline=None)
@given(
    case=cases(ties=True),
    rows=st.integers(1, 5),
    counted=st.sampled_from([0, 2, 256]),
    ranks=st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True),
    protocol=st.sampled_from(["market", "cuhk03-new"]),
)
def test_equals_the_reference_with_ties(case, rows, counted, ranks, protocol):
    """However the work is cut in pieces, and whether matches are counted or the row is sorted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_distances, "PAIRS_AT_A_TIME", rows * case[0].shape[1])
        patch.setattr(evaluation_ranking, "COUNTED_MATCHES", counted)
        assert_equals_reference(case, ranks, protocol)


@settings(max_examples=200, deadline=None)
@given(case=cases(ties=True, largest=9), ranks=st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True))
def test_single_shot_is_the_mean_over_all_draws(case, ranks):
    assert_equals_reference(case, ranks, "cuhk03-classic")


def classic_case(images: int):
    rng = np.random.default_rng(3)
    gallery_pids = np.repeat(np.arange(12), images)
    distances = rng.random((30, len(gallery_pids)))
    query_pids, query_cameras = rng.integers(0, 12, 30), np.zeros(30, int)
    return distances, query_pids, gallery_pids, query_cameras, np.ones(len(gallery_pids), int)


def test_single_shot_equals_torchreid_where_nothing_is_left_to_chance(monkeypatch):
    monkeypatch.setattr(np, "bool", bool, raising=False)  # torchreid was written for numpy 1
    case = classic_case(images=1)
    cmc, mean_ap = evaluate_rank(*case, max_rank=10, use_metric_cuhk03=True)
    ours = evaluate_distances(*case, protocol="cuhk03-classic", ranks=range(1, 11))
    assert list(ours.cmc.values()) == pytest.approx(cmc, abs=1e-6)
    assert ours.mean_average_precision == pytest.approx(mean_ap, abs=1e-12)


def test_single_shot_is_what_torchreids_draws_tend_to(monkeypatch):
    monkeypatch.setattr(np, "bool", bool, raising=False)
    np.random.seed(0)  # torchreid draws from the global generator
    case = classic_case(images=4)
    runs = np.array([evaluate_rank(*case, max_rank=10, use_metric_cuhk03=True)[0] for _ in range(100)])
    ours = evaluate_distances(*case, protocol="cuhk03-classic", ranks=range(1, 11))
    error = runs.std(0) / np.sqrt(len(runs))
    assert (np.abs(runs.mean(0) - list(ours.cmc.values())) < 4 * error + 1e-6).all()
    market = evaluate_distances(*case, protocol="market", ranks=range(1, 11))
    assert market.cmc[1] != pytest.approx(ours.cmc[1], abs=0.01)
    assert market.mean_average_precision == ours.mean_average_precision


def test_hundreds_of_matches():
    """Beyond ``COUNTED_MATCHES`` rows are sorted."""
    rng = np.random.default_rng(0)
    labels = (rng.integers(1, 3, 4), rng.integers(0, 3, 1500), rng.integers(0, 3, 4), rng.integers(0, 3, 1500))
    assert_equals_reference((rng.integers(0, 90, (4, 1500)), *labels), (1, 5, 10))


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
    labels = (*(rng.integers(0, 5, n) for n in (20, 50)), *(rng.integers(0, 3, n) for n in (20, 50)))
    if distance == "euclidean":
        matrix = ((query[:, None] - gallery[None]) ** 2).sum(-1)
    else:
        norms = np.linalg.norm(query, axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
        matrix = 1 - query @ gallery.T / norms
    expected = evaluate_distances(matrix, *labels)
    assert evaluate(query, gallery, *labels, distance=distance) == expected
    assert evaluate(query.astype(np.float32), gallery.astype(np.float32), *labels, distance=distance) == expected


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_features_are_scored_the_same_in_pieces(monkeypatch, distance):
    rng = np.random.default_rng(1)
    labels = (*(rng.integers(0, 5, n) for n in (20, 50)), *(rng.integers(0, 3, n) for n in (20, 50)))
    features = rng.normal(size=(20, 8)), rng.normal(size=(50, 8))
    whole = evaluate(*features, *labels, distance=distance)
    monkeypatch.setattr(evaluation_distances, "PAIRS_AT_A_TIME", 150)
    monkeypatch.setattr(evaluation_distances, "LEAST_ROWS", 1)
    assert evaluate(*features, *labels, distance=distance) == whole


def test_the_two_distances_differ():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[9.0, 0.0], [0.0, 1.0]])
    labels = ([1], [1, 2], [0], [1, 1])
    assert evaluate(query, gallery, *labels, distance="cosine", ranks=[1]).cmc[1] == 1.0
    assert evaluate(query, gallery, *labels, distance="euclidean", ranks=[1]).cmc[1] == 0.0


def test_junk_is_ignored_and_distractors_are_not():
    distances = np.array([[0.0, 1.0, 2.0]])
    arguments = (distances, [5], [-1, 0, 5], [0], [1, 1, 1])
    without = evaluate_distances(*arguments, ranks=[1])
    assert without.mean_average_precision == pytest.approx(1 / 2)
    kept = evaluate_distances(*arguments, ranks=[1], protocol="cuhk03-new")
    assert kept.mean_average_precision == pytest.approx(1 / 3)


def test_junk_is_ignored_in_features_too():
    query, gallery = np.array([[0.0]]), np.array([[0.0], [1.0], [2.0]])
    scores = evaluate(query, gallery, [5], [-1, 0, 5], [0], [1, 1, 1], ranks=[1])
    assert scores.mean_average_precision == pytest.approx(1 / 2)


def test_a_zero_vector_is_at_cosine_distance_one():
    query, gallery = np.array([[1.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 0.0]])
    labels = ([1], [1, 2, 3], [0], [1, 1, 1])
    scores = evaluate(query, gallery, *labels, distance="cosine", ranks=[1, 2, 3])
    assert list(scores.cmc.values()) == [0.0, 1.0, 1.0]


def test_the_inverse_negative_penalty_looks_at_the_last_match():
    distances = np.array([[0.0, 1.0, 2.0, 3.0]])
    scores = evaluate_distances(distances, [5], [5, 6, 5, 7], [0], [1] * 4, ranks=[1])
    assert scores.mean_inp == pytest.approx(2 / 3)


def test_splits_are_averaged():
    one = evaluate_distances(np.array([[0.0, 1.0]]), [7], [7, 8], [0], [1, 1], ranks=[1])
    two = evaluate_distances(np.array([[1.0, 0.0]]), [7], [7, 8], [0], [1, 1], ranks=[1])
    both = average_splits([one, two])
    assert both.metrics() == {"mAP": 0.75, "rank1": 0.5, "mINP": 0.75}
    assert both.valid_queries == 2
    with pytest.raises(InputError, match="at least one split"):
        average_splits([])
    other = evaluate_distances(np.array([[0.0, 1.0]]), [7], [7, 8], [0], [1, 1], ranks=[2])
    with pytest.raises(InputError, match="different ranks"):
        average_splits([one, other])


def test_every_protocol_says_what_it_does():
    assert len({protocol.text for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


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
        "mINP": pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-15),
    }
    assert next(iter(scores.metrics("_reranked"))) == "mAP_reranked"


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
        (
            dict(distances=np.zeros((2, 9)), gallery_pids=[1] * 9, gallery_cameras=[1] * 9),
            "at least 10 images; this one has 9",
        ),
        (dict(gallery_cameras=[0] * 10), "none of the 2 queries"),
        (dict(query_pids=[8, 9]), "none of the 2 queries"),
        (dict(distances=np.zeros((0, 10)), query_pids=[], query_cameras=[]), "none of the 0 queries"),
        (dict(distances=np.full((2, 10), np.nan)), "not a number"),
        (dict(distances=np.zeros(10)), "shape"),
        (dict(query_pids=[1]), "expected 2 query identities"),
        (dict(gallery_cameras=[1]), "expected 10 gallery cameras"),
        (dict(ranks=[0, 1]), "ranks start at 1"),
        (dict(ranks=[]), "ranks start at 1"),
        (dict(gallery_pids=[-1, 2] * 5), "at least 10 images; this one has 5"),
        (dict(protocol="markt"), "protocol 'markt': expected one of market, cuhk03-new"),
    ],
)
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
        (np.zeros((2, 3)), np.zeros((10, 3)), "manhattan", "distance 'manhattan': expected one of euclidean, cosine"),
    ],
)
def test_bad_features(query, gallery, distance, message):
    labels = {k: v for k, v in GOOD.items() if k != "distances"}
    with pytest.raises(InputError, match=message):
        evaluate(query, gallery, **labels, distance=distance)


def test_as_many_labels_as_features_are_expected():
    labels = {k: v for k, v in GOOD.items() if k != "distances"}
    with pytest.raises(InputError, match="expected"):
        evaluate(np.zeros((3, 3)), np.zeros((10, 3)), **labels)


def test_the_mean_of_one_split_is_that_split():
    scores = evaluate_distances(**GOOD)
    assert average_splits([scores]) == scores


@pytest.mark.parametrize(("protocol", "rank"), [("market", 2), ("no-cameras", 1)])
def test_images_of_the_querys_camera_count_where_cameras_are_not_known(protocol, rank):
    """The nearest image is of the query's person and camera, the next of another person, the last of both others."""
    scores = evaluate(
        np.zeros((1, 1)),
        np.array([[1.0], [2.0], [3.0]]),
        [7],
        [7, 8, 7],
        [0],
        [0, 1, 1],
        protocol=protocol,
        ranks=[1, 2],
    )
    assert next(k for k in (1, 2) if scores.cmc[k] == 1) == rank
