"""Face verification: how well a distance tells whether two images show the same person."""

from __future__ import annotations

import math

import numpy as np

from onebit.commons.errors import InputError
from onebit.reid.evaluation.distances import prepared

#: False accept rates at which the true accept rate is reported, where there are pairs enough.
FALSE_ACCEPT_RATES = (1e-3, 1e-4)


def pair_distances(first: np.ndarray, second: np.ndarray, distance: str) -> np.ndarray:
    """Distances [N] between the rows of two arrays of features [N, D], as re-ID computes them.

    Raises:
        InputError: unknown distance, shapes that do not fit, or a feature that is not finite.
    """
    both, count = prepared(first, second, distance), len(first)
    if len(both) != 2 * count:
        raise InputError(f"expected as many features of both sides, found {count} and {len(both) - count}")
    first, second = both[:count], both[count:]
    if distance == "cosine":
        return 1.0 - (first * second).sum(1)
    return ((first - second) ** 2).sum(1)


def best_threshold(distances: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the highest accuracy; a pair is accepted at a distance up to it.

    It lies in the middle between two neighbouring distances; of several equally good ones it is the
    lowest (ours; a grid of thresholds is customary). ``-inf`` accepts no pair, ``inf`` all.

    Args:
        distances: [N], at least one.
        same: [N] bool, whether a pair shows one person.
    """
    order = np.argsort(distances, kind="stable")
    sorted_distances, sorted_same = distances[order], same[order]
    # Correct answers when the k nearest pairs are accepted, k = 0..N.
    accepted = np.concatenate([[0], np.cumsum(np.where(sorted_same, 1, -1))])
    correct = accepted + np.count_nonzero(~same)
    # Pairs of equal distance are accepted together.
    possible = np.concatenate([[True], sorted_distances[1:] > sorted_distances[:-1], [True]])
    k = int(np.argmax(np.where(possible, correct, -1)))
    if k == 0:
        return -math.inf
    if k == len(distances):
        return math.inf
    low, high = sorted_distances[k - 1], sorted_distances[k]
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)  # neighbouring floats have no middle


def fold_accuracies(distances: np.ndarray, same: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of every fold under the threshold that is best on all the others (LFW, view 2).

    Args:
        distances: [N].
        same: [N] bool.
        folds: [N] the fold of every pair.

    Returns:
        accuracies and thresholds, [folds] each, in ascending order of the folds.

    Raises:
        InputError: fewer than two folds, or only one kind of pair.
    """
    distances, same, folds = np.asarray(distances, float), np.asarray(same, bool), np.asarray(folds)
    if not distances.shape == same.shape == folds.shape or distances.ndim != 1:
        raise InputError(
            f"expected one distance, label and fold per pair, found {distances.shape}, {same.shape}, {folds.shape}"
        )
    if np.isnan(distances).any():
        raise InputError("a distance is not a number")
    numbers = np.unique(folds)
    if len(numbers) < 2 or same.all() or not same.any():
        raise InputError("expected at least two folds with matching pairs and others")
    thresholds = np.array([best_threshold(distances[folds != k], same[folds != k]) for k in numbers])
    accuracies = np.array(
        [
            ((distances[folds == k] <= threshold) == same[folds == k]).mean()
            for k, threshold in zip(numbers, thresholds, strict=True)
        ]
    )
    return accuracies, thresholds


def true_accept_rate(distances: np.ndarray, same: np.ndarray, false_accept_rate: float) -> float | None:
    """The fraction of matching pairs accepted when at most ``false_accept_rate`` of others are.

    All folds together. The threshold is the largest that keeps to the rate: matching pairs are
    accepted that are nearer than the other pair that would be one too many.

    Returns:
        None when there are too few other pairs for a single one to be within the rate.
    """
    distances, same = np.asarray(distances, float), np.asarray(same, bool)
    others = np.sort(distances[~same])
    allowed = math.floor(false_accept_rate * len(others) + 1e-9)
    if not allowed or allowed >= len(others) or not same.any():
        return None
    return float((distances[same] < others[allowed]).mean())


def metrics_of(
    name: str, distances: np.ndarray, same: np.ndarray, folds: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of one set of pairs, and details for a record.

    Returns:
        ``accuracy_<name>`` (mean over folds) and ``tar_<name>_far_1e-3`` and the like where there are
        pairs enough; the accuracy's standard deviation over the folds and the number of pairs.
    """
    accuracies, _ = fold_accuracies(distances, same, folds)
    metrics = {f"accuracy_{name}": float(accuracies.mean())}
    for rate in FALSE_ACCEPT_RATES:
        value = true_accept_rate(distances, same, rate)
        if value is not None:
            metrics[f"tar_{name}_far_1e-{round(-math.log10(rate))}"] = value
    details = {f"accuracy_{name}_std": float(accuracies.std()), f"pairs_{name}": len(distances)}
    return metrics, details
