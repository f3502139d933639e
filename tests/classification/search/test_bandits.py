"""Equations against examples worked by hand, and the state that the sampling methods keep."""

import math

import pytest
import torch

from onebit.classification.search import bandits

SHAPE = (2, 14, 5)


def everywhere(*values, dtype=torch.float64):
    """[2, 14, M] with the same values on every edge."""
    return torch.tensor(values, dtype=dtype).expand(2, 14, -1).clone()


def same_everywhere(values):
    assert values.shape[:2] == (2, 14)
    assert torch.equal(values, values[:1, :1].expand_as(values))
    return values[0, 0].tolist()


class TestEquations:
    @pytest.mark.parametrize(("beta_p", "better"), [(2, False), (0.33, True), (0, True), (-1, True)])
    def test_a_worse_child_scores_higher_where_beta_p_is_above_1_as_printed(self, beta_p, better):
        assert (
            bandits.child_parent_indicator(0.6, 0.7, beta_p) > bandits.child_parent_indicator(0.3, 0.7, beta_p)
        ) == better

    @pytest.mark.parametrize(("beta_p", "z"), [(2, 1.0), (0.33, 0.666), (0, 0.6), (1, 0.8), (-1, 0.4)])
    def test_cp_nas_eq_1(self, beta_p, z):
        assert bandits.child_parent_indicator(0.6, 0.8, beta_p) == pytest.approx(z)

    def test_cp_nas_eq_1_rewards_a_child_that_beats_its_parent_less(self):
        assert bandits.child_parent_indicator(0.8, 0.6, 2) == pytest.approx(0.4)

    def test_cp_nas_eq_2(self):
        # exp: 2.71828, 1.82212, 2.22554; their sum 6.76594; the last operation is gone.
        among = everywhere(1, 1, 1, 0, dtype=torch.bool)
        found = same_everywhere(bandits.softmax_among(everywhere(1.0, 0.6, 0.8, 9.0), among))
        assert found == pytest.approx([0.401760, 0.269307, 0.328933, 0], abs=1e-6)

    def test_bnas_line_3(self):
        # K = 5 active operations: the ceil(5 / 2) = 3 smallest; the smallest of all is abandoned.
        alpha = everywhere(0.3, -9.0, 0.1, 0.2, -0.5, 0.4)
        active = everywhere(1, 0, 1, 1, 1, 1, dtype=torch.bool)
        half = same_everywhere(bandits.smaller_half(alpha, active))
        assert half == [False, False, True, True, True, False]

    @pytest.mark.parametrize(("k", "half"), [(8, 4), (7, 4), (6, 3), (5, 3), (4, 2), (3, 2), (2, 1)])
    def test_bnas_line_3_takes_the_ceiling(self, k, half):
        active = torch.arange(8).expand(2, 14, 8) < k
        found = bandits.smaller_half(torch.randn(2, 14, 8), active)
        assert (found.sum(-1) == half).all()
        assert not (found & ~active).any()

    def test_bnas_eqs_7_to_9(self):
        # s_smaller = exp(0.5), exp(0.3) over 1.648721 + 1.349859 = 0.549834, 0.450166; their mean is
        # 1/2, so s_larger = (0.549834 + 0.5) / 2 = 0.524917; half of the old s is added.
        s = bandits.selection_likelihood(
            everywhere(0.2, 0.4, 0.6), everywhere(0.5, 0.3, 0.0), everywhere(1, 1, 0, dtype=torch.bool)
        )
        assert same_everywhere(s) == pytest.approx([0.649834, 0.650166, 0.824917], abs=1e-6)

    def test_bnas_eq_10(self):
        # N = 8: 2 log 8 = 4.158883; over n = 2, 4, 1 and, never selected, again 1.
        bonus = same_everywhere(bandits.exploration(everywhere(2, 4, 1, 1, 0, dtype=torch.long)))
        assert bonus == pytest.approx([1.442027, 1.019667, 2.039334, 2.039334, 2.039334], abs=1e-6)

    def test_nothing_sampled_yet_explores_nothing(self):
        assert same_everywhere(bandits.exploration(everywhere(0, 0, dtype=torch.long))) == [0, 0]

    def test_abanditnas_eqs_3_4_and_6(self):
        # N = 8: half widths 1.442027 and 0.832555.
        m, n = everywhere(0.5, 0.7), everywhere(2, 6, dtype=torch.long)
        lower, upper = bandits.lower_confidence_bound(m, n), bandits.upper_confidence_bound(m, n)
        assert same_everywhere(lower) == pytest.approx([-0.942027, -0.132555], abs=1e-6)
        assert same_everywhere(upper) == pytest.approx([1.942027, 1.532555], abs=1e-6)
        # exp(0.942027) = 2.565176 and exp(0.132555) = 1.141742.
        chance = bandits.sampling_probability(lower, everywhere(1, 1, dtype=torch.bool))
        assert same_everywhere(chance) == pytest.approx([0.691997, 0.308003], abs=1e-6)

    def test_abanditnas_eq_4_leaves_the_abandoned_out(self):
        chance = bandits.sampling_probability(everywhere(0.0, -99.0, 0.0), everywhere(1, 0, 1, dtype=torch.bool))
        assert same_everywhere(chance) == [0.5, 0, 0.5]

    def test_abanditnas_eq_5(self):
        m = bandits.decayed_performance(torch.tensor(0.5, dtype=torch.float64), 0.9, 0.7)
        assert m.item() == pytest.approx(0.78)


def lots(state):
    return bandits.lots(state.active.shape)


class TestActiveOperations:
    def test_the_minimum_goes_and_never_comes_back(self):
        state = bandits.ActiveOperations((2, 14, 3))
        state.abandon_worst(everywhere(0.5, 0.1, 0.3), lots(state))
        assert same_everywhere(state.active) == [True, False, True]
        # The abandoned operation's value is the smallest still; it is not counted again.
        state.abandon_worst(everywhere(0.5, -9.0, 0.3), lots(state))
        assert same_everywhere(state.active) == [True, False, False]
        assert same_everywhere(state.abandoned_in) == [0, 1, 2]

    def test_every_edge_loses_its_own_minimum(self):
        values = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
        state = bandits.ActiveOperations(SHAPE)
        state.abandon_worst(values, lots(state))
        assert torch.equal((~state.active).long().argmax(-1), values.argmin(-1))
        assert ((~state.active).sum(-1) == 1).all()

    def test_ties_go_to_the_smallest_lot(self):
        state = bandits.ActiveOperations((2, 14, 4))
        state.abandon_worst(everywhere(0.5, 0.1, 0.1, 0.1), everywhere(0.1, 0.9, 0.4, 0.7))
        assert same_everywhere(state.active) == [True, True, False, True]
        state.abandon_worst(everywhere(0.5, 0.1, 0.1, 0.1), everywhere(0.1, 0.9, 0.4, 0.7))
        assert same_everywhere(state.active) == [True, True, False, False]

    def test_ranks_put_the_abandoned_last_in_the_order_of_leaving(self):
        state = bandits.ActiveOperations((2, 14, 4))
        state.abandon_worst(everywhere(0.2, 0.9, 0.1, 0.3), lots(state))
        state.abandon_worst(everywhere(0.2, 0.9, 0.1, 0.3), lots(state))
        ranked = same_everywhere(state.ranked(everywhere(5.0, 0.9, 5.0, 0.0)))
        assert ranked == [-2, 0.9, -3, 0]


class TestWithoutReplacement:
    def test_every_operation_of_every_edge_is_drawn_once(self):
        torch.manual_seed(0)
        among = torch.ones(SHAPE, dtype=torch.bool)
        among[..., 3] = False
        sampling, drawn = bandits.WithoutReplacement(SHAPE), torch.zeros(SHAPE)
        sampling.restart(among)
        for _ in range(4):
            bandits.add_at(drawn, sampling.draw(), 1)
        assert torch.equal(drawn, among.float())
        assert not sampling.remaining.any()

    def test_edges_are_drawn_independently_and_evenly(self):
        torch.manual_seed(0)
        sampling, drawn = bandits.WithoutReplacement(SHAPE), torch.zeros(SHAPE)
        for _ in range(300):
            sampling.restart(torch.ones(SHAPE, dtype=torch.bool))
            bandits.add_at(drawn, sampling.draw(), 1)
        # 300 draws of chance 1/5: mean 60, deviation 6.9.
        assert (drawn - 60).abs().max() < 5 * math.sqrt(300 * 0.2 * 0.8)
        assert sampling.draw().unique().numel() > 1

    def test_a_saved_state_goes_on_with_the_same_draws(self):
        torch.manual_seed(3)
        first, second = (bandits.WithoutReplacement(SHAPE) for _ in range(2))
        first.restart(torch.ones(SHAPE, dtype=torch.bool))
        first.draw()
        second.load_state_dict(first.state_dict())
        torch.manual_seed(4)
        expected = first.draw()
        torch.manual_seed(4)
        assert torch.equal(second.draw(), expected)


def test_mean_scores():
    scores = bandits.MeanScores((2, 14, 3))
    first = torch.zeros(2, 14, dtype=torch.long)
    for choice, value in ((first, 0.4), (first + 1, 0.9), (first, 0.6)):
        scores.give(choice, value)
    assert same_everywhere(scores.mean()) == pytest.approx([0.5, 0.9, 0])
    assert same_everywhere(scores.count) == [2, 1, 0]
    scores.reset()
    assert same_everywhere(scores.mean()) == [0, 0, 0]
