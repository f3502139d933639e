"""Ten-fold accuracy and TAR at FAR, against slow references and by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError
from onebit.reid.evaluation.distances import distance_chunks, prepared
from onebit.reid.verification import best_threshold, fold_accuracies, metrics_of, pair_distances, true_accept_rate

#: Few different values, so that ties are common.
PAIRS = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=40)


def accuracy(distances, same, threshold):
    return sum((d <= threshold) == s for d, s in zip(distances, same, strict=True)) / len(same)


def slow_best(distances, same):
    """Every possible cut tried, from accepting nothing upwards."""
    values = sorted(set(distances))
    cuts = [-math.inf]
    cuts += [(low + high) / 2 for low, high in itertools.pairwise(values)]
    cuts += [math.inf]
    return max(cuts, key=lambda cut: (accuracy(distances, same, cut), -cut))


@given(PAIRS)
def test_the_threshold_against_a_slow_reference(pairs):
    distances, same = (np.array(column) for column in zip(*pairs, strict=True))
    assert best_threshold(distances.astype(float), same) == slow_best(distances, same)


@settings(max_examples=50)
@given(PAIRS.filter(lambda p: len({s for _, s in p}) == 2), st.integers(2, 5))
def test_fold_accuracies_against_a_slow_reference(pairs, folds):
    distances, same = (np.array(column) for column in zip(*pairs, strict=True))
    fold = np.arange(len(pairs)) % folds
    if len(set(fold)) < 2:
        return
    found, thresholds = fold_accuracies(distances, same, fold)
    for k, value, threshold in zip(np.unique(fold), found, thresholds, strict=True):
        expected = slow_best(distances[fold != k], same[fold != k])
        assert threshold == expected
        assert value == accuracy(distances[fold == k], same[fold == k], expected)


@given(PAIRS, st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]))
def test_tar_at_far_against_a_slow_reference(pairs, rate):
    distances, same = (np.array(column) for column in zip(*pairs, strict=True))
    found = true_accept_rate(distances, same, rate)
    others = distances[~same]
    if found is None:
        allowed = math.floor(rate * len(others) + 1e-9)
        assert not same.any() or not allowed or allowed >= len(others)
        return
    # The largest set {d < t} that keeps to the rate, over every threshold there could be.
    reached = [
        (distances[same] < t).mean()
        for t in {*distances.tolist(), 100}
        if (others < t).sum() <= rate * len(others) + 1e-9
    ]
    assert found == max(reached)


def test_by_hand():
    distances = np.array([0.1, 0.2, 0.6, 0.3, 0.8, 0.9])
    same = np.array([True, True, True, False, False, False])
    # Below 0.25: two of three matches, no mistake, 5 of 6 right.
    assert best_threshold(distances, same) == pytest.approx(0.25)
    folds = np.array([0, 0, 1, 0, 1, 1])
    accuracies, thresholds = fold_accuracies(distances, same, folds)
    # Fold 1 alone: 0.6 | 0.8 0.9. Fold 0 alone: 0.1 0.2 | 0.3.
    assert thresholds.tolist() == pytest.approx([0.7, 0.25])
    assert accuracies.tolist() == pytest.approx([2 / 3, 2 / 3])
    assert true_accept_rate(distances, same, 0.34) == 1.0
    assert true_accept_rate(distances, same, 0.33) is None


def test_the_threshold_never_sees_its_own_fold():
    """A fold whose distances are turned around is all wrong; the others are all right."""
    same = np.tile([True, False], 30)
    folds = np.repeat(np.arange(10), 6)
    distances = np.where(same, 0.2, 0.8)
    distances[folds == 4] = 1 - distances[folds == 4]
    accuracies, _ = fold_accuracies(distances, same, folds)
    assert accuracies.tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]


def test_neighbouring_floats():
    low = 0.1
    high = np.nextafter(low, 1)
    threshold = best_threshold(np.array([low, high]), np.array([True, False]))
    assert low <= threshold < high


def test_accepting_nothing_or_all():
    distances = np.array([0.1, 0.5])
    assert best_threshold(distances, np.array([False, False])) == -math.inf
    assert best_threshold(distances, np.array([True, True])) == math.inf


def test_metrics_name_only_rates_that_the_pairs_permit():
    rng = np.random.default_rng(0)

    def names(count):
        same = np.arange(2 * count) % 2 == 0
        metrics, details = metrics_of("lfw", rng.random(2 * count), same, np.arange(2 * count) % 10)
        assert details["pairs_lfw"] == 2 * count
        return set(metrics)

    assert names(999) == {"accuracy_lfw"}
    assert names(1000) == {"accuracy_lfw", "tar_lfw_far_1e-3"}
    assert names(10_000) == {"accuracy_lfw", "tar_lfw_far_1e-3", "tar_lfw_far_1e-4"}


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_distances_are_those_of_re_id(distance):
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 12, 5))
    both = prepared(first, second, distance)
    matrix = np.concatenate(list(distance_chunks(both[:12], both[12:], distance)))
    assert pair_distances(first, second, distance) == pytest.approx(np.diag(matrix))


def test_bad_input():
    same = np.array([True, False])
    with pytest.raises(InputError, match="at least two folds"):
        fold_accuracies(np.ones(2), same, np.zeros(2))
    with pytest.raises(InputError, match="matching pairs and others"):
        fold_accuracies(np.ones(2), np.array([True, True]), np.arange(2))
    with pytest.raises(InputError, match="not a number"):
        fold_accuracies(np.array([1, np.nan]), same, np.arange(2))
    with pytest.raises(InputError, match="per pair"):
        fold_accuracies(np.ones(3), same, np.arange(2))
    with pytest.raises(InputError, match="as many features"):
        pair_distances(np.ones((2, 3)), np.ones((3, 3)), "cosine")
    with pytest.raises(InputError, match=r"distance .*: expected one of euclidean, cosine"):
        pair_distances(np.ones((2, 3)), np.ones((2, 3)), "manhattan")
