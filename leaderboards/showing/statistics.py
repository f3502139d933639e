"""Statistics over seeds: what a difference between two lines of a table is worth.

A line's spread over its seeds is the noise that any comparison has to beat. Two lines that share at
least three seeds are compared by a paired t-test over these; otherwise, if each has three of its own,
by Welch's t-test; with fewer there is no verdict and no p-value. The choice of tests and thresholds
is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Seeds below which nothing is said about a difference.
MIN_SEEDS = 3
#: A difference with a p-value below this is larger than seed noise.
ALPHA = 0.05

BEST, TIE, WORSE, UNKNOWN, ALONE = "best", "tie", "worse", "not enough seeds", "alone"


@dataclass(frozen=True)
class Summary:
    """Several seeds of one line.

    Attributes:
        mean: None without a value.
        std: sample standard deviation (n - 1 in the denominator); None for fewer than two seeds.
        n: number of seeds.
    """

    mean: float | None
    std: float | None
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and number of ``values``."""
    n = len(values)
    if n == 0:
        return Summary(None, None, 0)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)


@dataclass(frozen=True)
class Comparison:
    """The difference ``a - b`` of two lines.

    Attributes:
        difference: of the means over the seeds that the test uses; over all seeds without a test;
            None when a line has no seed at all.
        low, high: 95 % confidence interval of the difference; None where the test gives none.
        p: two-sided p-value; None without a test.
        test: what was computed, in words, or why nothing was.
        n: the two numbers of seeds that entered.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    test: str
    n: tuple[int, int]

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the difference is larger than seed noise; None when that cannot be said."""
        return None if self.p is None else self.p < ALPHA


def compare(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Compare two lines, each given as seed -> value."""
    common = sorted(a.keys() & b.keys())
    if len(common) >= MIN_SEEDS:
        return _paired([a[s] for s in common], [b[s] for s in common], common)
    if min(len(a), len(b)) >= MIN_SEEDS:
        return _unpaired(list(a.values()), list(b.values()))
    means = summarize(list(a.values())).mean, summarize(list(b.values())).mean
    difference = None if None in means else means[0] - means[1]
    reason = f"not enough seeds ({len(a)} and {len(b)}; {MIN_SEEDS} each are needed)"
    return Comparison(difference, None, None, None, reason, (len(a), len(b)))


def _paired(a: list[float], b: list[float], seeds: list[int]) -> Comparison:
    n = len(seeds)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = math.fsum(differences) / n
    over = f"over seeds {', '.join(map(str, seeds))}"
    if _constant(differences):
        # A t-test divides by the spread. Without any, all that is left is the sign: exact
        # permutation of the n signs, which needs six equal seeds to reach 0.05.
        if abs(mean) < 1e-12:
            return Comparison(mean, None, None, 1.0, f"no difference {over}", (n, n))
        p = min(1.0, 2.0 / 2**n)
        return Comparison(mean, None, None, p, f"exact sign permutation test {over} (all differ alike)", (n, n))
    error = summarize(differences).std / math.sqrt(n)
    return Comparison(mean, *_student(mean, error, n - 1), f"paired t-test {over}", (n, n))


def _unpaired(a: list[float], b: list[float]) -> Comparison:
    n = len(a), len(b)
    difference = math.fsum(a) / n[0] - math.fsum(b) / n[1]
    if _constant(a) and _constant(b):
        return Comparison(difference, None, None, None, "no spread over the seeds of either: no test applies", n)
    parts = [summarize(values).std ** 2 / len(values) for values in (a, b)]
    variance = math.fsum(parts)
    # Welch-Satterthwaite: degrees of freedom of two variances that may differ.
    freedom = variance**2 / math.fsum(p**2 / (m - 1) for p, m in zip(parts, n, strict=True))
    return Comparison(
        difference, *_student(difference, math.sqrt(variance), freedom), "Welch's t-test, too few seeds in common", n
    )


def compare_networks(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare two sets of networks, one value per network: a two-sample t-test, pooled variance.

    What differs within a set is the networks, and the noise of a seed with them. One network may
    stand against a set; the question is then whether it is another draw from that set.

    Raises:
        ValueError: a set without a network.
    """
    n = len(a), len(b)
    if 0 in n:
        raise ValueError("no network to compare")
    difference = math.fsum(a) / n[0] - math.fsum(b) / n[1]
    freedom = n[0] + n[1] - 2
    if max(n) < MIN_SEEDS:
        reason = f"not enough networks ({n[0]} and {n[1]}; one side needs {MIN_SEEDS})"
        return Comparison(difference, None, None, None, reason, n)
    if _constant(a) and _constant(b):
        return Comparison(difference, None, None, None, "no spread within either: no test applies", n)
    squares = math.fsum((summarize(v).std or 0.0) ** 2 * (len(v) - 1) for v in (a, b))
    error = math.sqrt(squares / freedom * (1 / n[0] + 1 / n[1]))
    return Comparison(difference, *_student(difference, error, freedom), "t-test over networks, pooled variance", n)


def _student(difference: float, error: float, freedom: float) -> tuple[float, float, float]:
    """Ends of the 95 % interval and two-sided p-value by Student's distribution.

    What ``scipy.stats.ttest_rel`` and ``ttest_ind`` give, without the second that importing them and
    calling them for every cell of a large table takes.
    """
    from scipy.special import stdtr, stdtrit

    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return difference - half, difference + half, p


def _constant(values: Sequence[float]) -> bool:
    return max(values) - min(values) < 1e-12


def verdicts(lines: Sequence[Mapping[int, float]], lower_is_better: bool = False) -> list[str]:
    """One verdict per line of a group that is compared within itself.

    ``best``: better than every other line beyond noise. ``tie``: the line with the best mean, where
    some other is within its noise, and those others. ``worse``: beyond noise behind the best mean.
    ``not enough seeds``: the comparison with the best mean cannot be made. ``alone``: nothing to
    compare with. Lines without a value are ``not enough seeds``.

    A winner has to beat every other line, each at :data:`ALPHA`; the probability that all of these
    tests err together is no larger, so no further correction is made.
    """
    means = [summarize(list(line.values())).mean for line in lines]
    present = [i for i, mean in enumerate(means) if mean is not None]
    found = [UNKNOWN] * len(lines)
    if len(present) == 1:
        found[present[0]] = ALONE
    if len(present) < 2:
        return found
    leader = (min if lower_is_better else max)(present, key=lambda i: means[i])
    others = [i for i in present if i != leader]
    for i in others:
        beyond = compare(lines[leader], lines[i]).beyond_noise
        found[i] = UNKNOWN if beyond is None else WORSE if beyond else TIE
    if any(found[i] == TIE for i in others):
        found[leader] = TIE
    elif all(found[i] == WORSE for i in others):
        found[leader] = BEST
    return found
