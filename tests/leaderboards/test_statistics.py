"""Hand-worked cases: what several seeds allow one to say, and what they do not."""

import math

import numpy as np
import pytest
from scipy import stats

from onebit.leaderboards.showing import statistics
from onebit.leaderboards.showing.statistics import compare, compare_networks, summarize, verdicts


def seeds(*values):
    return dict(enumerate(values))


def test_summary():
    two = summarize([0.50, 0.52])
    assert two.mean == pytest.approx(0.51)
    assert two.std == pytest.approx(0.02 / math.sqrt(2))
    assert summarize([0.5]).std is None
    assert summarize([]) == statistics.Summary(None, None, 0)
    assert summarize([0.1] * 10).std == pytest.approx(0.0, abs=1e-15)


def test_paired_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, t = 2 / (1 / sqrt 3) = 3.4641 at 2 degrees of freedom.
    # For two degrees p = 1 - t / sqrt(t^2 + 2) = 1 - 3.4641 / sqrt(14) = 0.07418;
    # the interval is 2 +- 4.3027 / sqrt(3) = 2 +- 2.4841.
    found = compare(seeds(11, 22, 33), seeds(10, 20, 30))
    assert found.difference == pytest.approx(2)
    assert found.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert found.beyond_noise is False
    assert "paired t-test over seeds 0, 1, 2" in found.test


def test_networks_are_compared_as_scipy_does():
    a, b = [0.61, 0.58, 0.62], [0.55, 0.57, 0.59, 0.54]
    found, expected = compare_networks(a, b), stats.ttest_ind(a, b)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_one_network_is_rarely_beyond_a_set_it_was_drawn_with():
    """In one of twenty cases, by the threshold."""
    draws = np.random.default_rng(0).normal(0.5, 0.01, (2000, 6))
    beyond = [compare_networks(row[:1], row[1:]).beyond_noise for row in draws]
    assert np.mean(beyond) == pytest.approx(0.05, abs=0.015)


def test_networks_without_spread_or_in_too_small_sets():
    assert compare_networks([1.0], [2.0, 3.0]).p is None
    assert compare_networks([1.0], [2.0, 2.0, 2.0]).p is None
    with pytest.raises(ValueError, match="no network"):
        compare_networks([], [1.0, 2.0, 3.0])


def test_pairing_sees_what_means_hide():
    """The spread between seeds is large and shared; every seed says the same about the two."""
    found = compare(seeds(0.10, 0.50, 0.90), seeds(0.08, 0.479, 0.881))
    assert found.beyond_noise is True
    apart = compare({0: 0.10, 1: 0.50, 2: 0.90}, {3: 0.08, 4: 0.479, 5: 0.881})
    assert apart.beyond_noise is False
    assert "Welch" in apart.test


def test_welch_by_hand():
    # Means 3 and 2, variances 1 and 1, n = 3: t = 1 / sqrt(2/3) = 1.22474 at 4 degrees of freedom.
    # P(|T| > t) at 4 degrees: 1 - u(3 - u^2)/2 with u = t / sqrt(t^2 + 4).
    u = math.sqrt(1.5) / math.sqrt(5.5)
    found = compare({0: 2, 1: 3, 2: 4}, {3: 1, 4: 2, 5: 3})
    assert found.p == pytest.approx(1 - u * (3 - u * u) / 2, abs=1e-6)
    assert found.n == (3, 3)


@pytest.mark.parametrize("n", [3, 5, 30])
def test_tests_are_those_of_scipy(n):
    generator = np.random.default_rng(n)
    a, b = generator.normal(0.7, 0.01, n), generator.normal(0.705, 0.03, n + 2)
    for found, expected in (
        (compare(dict(enumerate(a)), dict(enumerate(b[:n]))), stats.ttest_rel(a, b[:n])),
        (compare(dict(enumerate(a)), {100 + i: v for i, v in enumerate(b)}), stats.ttest_ind(a, b, equal_var=False)),
    ):
        interval = expected.confidence_interval(0.95)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert (found.low, found.high) == pytest.approx(interval, rel=1e-9)


def test_only_common_seeds_are_paired():
    found = compare({0: 1.0, 1: 2.0, 2: 3.5, 9: 100.0}, {0: 0.5, 1: 1.0, 2: 2.0, 8: -7.0})
    assert found.difference == pytest.approx(1.0)
    assert found.n == (3, 3)


@pytest.mark.parametrize("n", [(1, 1), (2, 2), (1, 9), (2, 5)])
def test_one_or_two_seeds_give_no_p_value(n):
    a, b = ({i: 0.9 + 0.01 * i for i in range(k)} for k in n)
    found = compare(a, {s: v - 0.5 for s, v in b.items()})
    assert found.p is None
    assert found.beyond_noise is None
    assert found.difference is not None
    assert "not enough seeds" in found.test


def test_no_seeds_at_all():
    found = compare({}, seeds(1, 2, 3))
    assert found.difference is None
    assert found.p is None


def test_equal_lines_do_not_differ_and_equal_differences_prove_little():
    same = compare(seeds(0.5, 0.6, 0.7), seeds(0.5, 0.6, 0.7))
    assert same.p == 1.0
    # Three differences of exactly one point: a t-test would divide by zero and call it certain.
    alike = compare(seeds(0.5, 0.6, 0.7), seeds(0.49, 0.59, 0.69))
    assert alike.p == pytest.approx(0.25)  # two of the 2^3 sign patterns
    assert alike.beyond_noise is False
    many = compare(dict.fromkeys(range(6), 0.5), dict.fromkeys(range(6), 0.4))
    assert many.p == pytest.approx(2 / 64)
    assert many.beyond_noise is True


def test_no_spread_on_either_side_and_no_common_seeds():
    found = compare({0: 1, 1: 1, 2: 1}, {3: 2, 4: 2, 5: 2})
    assert found.p is None


A = seeds(0.900, 0.904, 0.902)
NEAR_A = seeds(0.901, 0.902, 0.903)
C = seeds(0.700, 0.703, 0.704)


def test_a_clear_winner_is_best():
    assert verdicts([C, A]) == ["worse", "best"]
    assert verdicts([C, A], lower_is_better=True) == ["best", "worse"]


def test_no_winner_inside_the_noise():
    assert verdicts([A, NEAR_A, C]) == ["tie", "tie", "worse"]


def test_a_line_with_too_few_seeds_keeps_the_winner_from_being_one():
    assert verdicts([A, {0: 0.1}, C]) == ["not enough seeds", "not enough seeds", "worse"]
    assert verdicts([{0: 0.99}, A, C]) == ["not enough seeds"] * 3


def test_nothing_to_compare_with():
    assert verdicts([A]) == ["alone"]
    assert verdicts([A, {}]) == ["alone", "not enough seeds"]
    assert verdicts([{}, {}]) == ["not enough seeds"] * 2


def test_false_winners_are_as_rare_as_stated():
    """Lines that differ by noise alone: `best` comes up in at most ALPHA of the cases."""
    import numpy as np

    generator = np.random.default_rng(0)
    tables = generator.normal(size=(300, 3, 4))
    winners = sum("best" in verdicts([dict(enumerate(row)) for row in table]) for table in tables)
    assert winners / len(tables) <= statistics.ALPHA + 0.03
