"""CP-NAS, BNAS and ABanditNAS: what they sample and what they drop."""

import pytest
import torch

from onebit.backbones import Genotype
from onebit.commons.errors import InputError
from tests.classification.search.sampled import FEW, METHODS, NOTHING, build, eight, run


class TestSchedule:
    @pytest.mark.parametrize(
        ("method", "options", "epochs"),
        [
            ("cp-nas", {}, 105),
            ("cp-nas", {"T": 1}, 35),
            ("bnas", {}, 5 + 57 + 7),
            ("bnas", {"L": 11, "V": 0, "T": 1}, 11 + 19),
            ("bnas", {"last_pair": "both"}, 5 + 60 + 7),
            ("bnas-1bit", {}, 105 + 7),
            ("bnas-1bit", {"V": 0}, 105),
            ("abanditnas", {}, 8 + 105),
        ],
    )
    def test_epochs_with_eight_operations(self, method, options, epochs, untrained):
        untrained(lambda *_: 0.5)
        assert eight(method, **options).epochs == epochs

    def test_a_smaller_search_space_takes_fewer(self, untrained):
        untrained(lambda *_: 0.5)
        assert build("cp-nas").epochs == 3 * (3 + 2)
        assert build("bnas").epochs == 5 + 3 * (2 + 1) + 2

    @pytest.mark.parametrize("method", METHODS)
    def test_the_learning_rate_falls_over_all_epochs(self, method, untrained):
        untrained(lambda *_: 0.5)
        strategy = run(build(method), NOTHING)
        last = next(iter(strategy.optimizers().values())).param_groups[0]["lr"]
        expected = strategy.schedule.lr_of(strategy.epochs - 1, strategy.epochs)
        assert last == expected < strategy.schedule.lr / 10


class TestSampling:
    @pytest.mark.parametrize("method", ["cp-nas", "bnas-1bit"])
    def test_every_operation_is_scored_t_times_a_round(self, method, untrained):
        choices = untrained(lambda *_: torch.rand(()).item())
        strategy = eight(method, V=0) if "bnas" in method else eight(method)
        index = 0
        for k in range(8, 1, -1):
            active = strategy.operations.active.clone()
            assert (active.sum(-1) == k).all()
            choices.clear()
            run(strategy, NOTHING, range(index, index + 3 * k))
            index += 3 * k
            # CP-NAS asks twice, for Child and Parent.
            seen = choices[::2] if method == "cp-nas" else choices
            for sweep in range(3):
                counts = count(seen[sweep * k : (sweep + 1) * k])
                assert torch.equal(counts, active.long())
        assert index == strategy.epochs
        assert (strategy.operations.active.sum(-1) == 1).all()

    def test_bnas_scores_the_half_with_smaller_alpha_t_times(self, untrained):
        choices = untrained(lambda *_: torch.rand(()).item())
        strategy = eight("bnas", L=0, V=0)
        index = 0
        for half in (4, 4, 3, 3, 2, 2, 1):
            torch.manual_seed(index)
            strategy.alpha.data.normal_()  # PC-DARTS is not run here
            alpha = strategy.alpha.detach().masked_fill(~strategy.operations.active, torch.inf)
            limit = alpha.sort(-1).values[..., half - 1 : half]
            choices.clear()
            run(strategy, NOTHING, range(index, index + 3 * half))
            index += 3 * half
            assert torch.equal(count(choices), 3 * (alpha <= limit).long())

    def test_child_and_parent_are_judged_on_the_same_architecture(self, untrained):
        choices = untrained(lambda *_: 0.5)
        run(build("cp-nas"), NOTHING)
        assert all(torch.equal(a, b) for a, b in zip(choices[::2], choices[1::2], strict=True))

    def test_abanditnas_begins_with_every_operation_once(self, untrained):
        choices = untrained(lambda *_: 0.5)
        run(eight("abanditnas"), NOTHING, range(8))
        assert (count(choices) == 1).all()

    def test_abanditnas_prefers_what_it_expects_little_of(self, untrained):
        # The last operation is bad on every edge: s_L is smaller by 0.9, so that in a round of many
        # samples it is drawn more often, by e^0.9 while counts are alike.
        choices = untrained(lambda _, __, choice: 0.05 if choice[0, 0] == 7 else 0.95)
        strategy = eight("abanditnas", T=12)
        run(strategy, NOTHING, range(8 + 8 * 12 - 1))
        counts = count(choices)[0, 0]
        assert counts[7] > counts[:7].double().mean()

    def test_abanditnas_rounds_take_k_t_samples(self, untrained):
        untrained(lambda *_: torch.rand(()).item())
        strategy = eight("abanditnas")
        left = []
        for index in range(strategy.epochs):
            run(strategy, NOTHING, [index])
            left.append(int(strategy.operations.active.sum(-1).unique()))
        assert [left.count(k) for k in range(8, 0, -1)] == [7 + 24, 21, 18, 15, 12, 9, 6, 1]
        # N is the number of samples, on every edge.
        assert (strategy.selected.sum(-1) == strategy.epochs).all()


def count(choices):
    counts = torch.zeros(2, 14, 8, dtype=torch.long)
    for choice in choices:
        counts.scatter_add_(-1, choice[..., None], torch.ones(2, 14, 1, dtype=torch.long))
    return counts


class TestAbandonment:
    @pytest.mark.parametrize("method", METHODS)
    def test_an_abandoned_operation_is_never_sampled_again(self, method, untrained):
        choices = untrained(lambda *_: torch.rand(()).item())
        strategy = eight(method)
        for index in range(strategy.epochs):
            active = strategy.operations.active.clone()
            choices.clear()
            run(strategy, NOTHING, [index])
            for choice in choices:
                assert active.gather(-1, choice[..., None]).all()
            assert not (strategy.operations.active & ~active).any()

    @pytest.mark.parametrize("method", METHODS)
    def test_ties_are_broken_by_the_seed(self, method, untrained):
        untrained(lambda *_: 0.5)
        first, again, other = (run(eight(method), NOTHING, seed=seed).operations.active for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        # No operation is favoured for its place in the list: of 28 edges, 3.5 keep each.
        assert first.sum((0, 1)).max() <= 12

    @pytest.mark.parametrize("method", METHODS)
    def test_the_derived_cell_holds_the_survivors(self, method, untrained):
        untrained(lambda *_: torch.rand(()).item())
        strategy = run(build(method, ("skip_connect", "max_pool_3x3", "dil_conv_3x3")), NOTHING)
        names = strategy.space.operations
        genotype = Genotype.derive(strategy.scores(), strategy.derivation, names)
        assert genotype.derivation == "all14"
        survivors = strategy.operations.active.long().argmax(-1).tolist()
        for cell, left in zip((genotype.normal, genotype.reduce), survivors, strict=True):
            assert [name for node in cell for name, _ in node] == [names[m] for m in left]

    @pytest.mark.parametrize("method", METHODS)
    def test_the_better_operation_survives_where_it_decides(self, method, untrained):
        """Accuracy counts the edges that have operation 5, of the two that matter."""
        edges = [(0, 9), (1, 2)]

        def accuracy(strategy, supernet, choice):
            return sum(int(choice[edge] == 5) for edge in edges) / len(edges)

        untrained(accuracy)
        strategy = run(eight(method, T=6), NOTHING)
        best = strategy.scores().argmax(-1)
        assert [best[edge].item() for edge in edges] == [5] * 2

    def test_cp_nas_follows_eqs_1_and_2(self, untrained):
        # Two operations, T = 1, beta_P = 2. Operation 0: Child 0.5, Parent 0.6, so z = 0.7;
        # operation 1: Child 0.4, Parent 0.8, so z = 1.2. e = 1 / (1 + e^0.5) = 0.377541 for the
        # first, which goes, though its Child is the better one.
        strategy = build("cp-nas", ("skip_connect", "max_pool_3x3"), T=1)
        table = {strategy.child: (0.5, 0.4), strategy.parent: (0.6, 0.8)}
        # Line 4 draws every edge for itself; here all draw alike, so that the edges agree.
        untrained(lambda _, supernet, choice: table[supernet][int(choice[0, 0])])
        strategy.sampling.draw = iter([torch.zeros(2, 14).long(), torch.ones(2, 14).long()]).__next__
        run(strategy, NOTHING)
        assert strategy.evaluation[1, 7].tolist() == pytest.approx([0.377541, 0.622459], abs=1e-6)
        assert strategy.operations.active[1, 7].tolist() == [False, True]

    def test_beta_p_0_looks_at_the_child_alone(self, untrained):
        strategy = build("cp-nas", ("skip_connect", "max_pool_3x3"), T=1, beta_p=0)
        table = {strategy.child: (0.5, 0.4), strategy.parent: (0.6, 0.8)}
        untrained(lambda _, supernet, choice: table[supernet][int(choice[0, 0])])
        strategy.sampling.draw = iter([torch.zeros(2, 14).long(), torch.ones(2, 14).long()]).__next__
        run(strategy, NOTHING)
        assert strategy.operations.active[1, 7].tolist() == [True, False]

    def test_bnas_follows_eqs_7_to_11(self, untrained):
        # Four operations, alpha = 0.3, 0.1, 0.2, 0.4: operations 1 and 2 are sampled, T = 1, with
        # accuracies 0.5 and 0.3. s = 0.549834 and 0.450166; 0.524917 for the others. 2 is dropped.
        strategy = build("bnas", ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3"), T=1, L=0, V=0)
        strategy.alpha.data.copy_(torch.tensor([0.3, 0.1, 0.2, 0.4]))
        ones = torch.ones(2, 14, dtype=torch.long)
        draws = [ones, 2 * ones]
        strategy.sampling.draw = lambda: draws.pop(0)
        untrained(lambda _, __, choice: {1: 0.5, 2: 0.3}[int(choice[0, 0])])
        run(strategy, NOTHING, range(2))
        expected = [0.524917, 0.549834, 0.450166, 0.524917]
        assert strategy.likelihood[0, 3].tolist() == pytest.approx(expected, abs=1e-6)
        assert strategy.operations.active[0, 3].tolist() == [True, True, False, True]
        # Next round, K = 3: 1 and 0 have the smaller alpha; accuracies 0.3 and 0.5.
        draws += [ones, 0 * ones]
        untrained(lambda _, __, choice: {1: 0.3, 0: 0.5}[int(choice[0, 0])])
        run(strategy, NOTHING, range(2, 4))
        # s / 2 + 0.549834 = 0.812292; 0.274917 + 0.450166 = 0.725083; 0.262458 + 0.524917 = 0.787375
        s = strategy.likelihood[0, 3]
        assert s[[0, 1, 3]].tolist() == pytest.approx([0.812292, 0.725083, 0.787375], abs=1e-6)
        assert strategy.operations.active[0, 3].tolist() == [True, False, False, True]

    def test_bnas_at_1_bit_adds_eq_10(self, untrained):
        # Two operations, T = 2: N = 4, n = 2, so that 2 sqrt(2 log 4 / 2) = 2.354820 is added to
        # s = exp(0.6), exp(0.4) over their sum = 0.549834, 0.450166.
        strategy = build("bnas-1bit", ("skip_connect", "max_pool_3x3"), T=2, V=0)
        ones = torch.ones(2, 14, dtype=torch.long)
        draws = [0 * ones, ones, ones, 0 * ones]
        strategy.sampling.draw = lambda: draws.pop(0)
        untrained(lambda _, __, choice: (0.6, 0.4)[int(choice[0, 0])])
        run(strategy, NOTHING)
        expected = [2.904654, 2.804986]
        assert strategy.likelihood[0, 3].tolist() == pytest.approx(expected, abs=1e-6)

    def test_eq_10_changes_nothing_where_all_operations_are_sampled(self, untrained):
        # All have the same n, so that all of an edge get the same bonus.
        untrained(lambda *_: torch.rand(()).item())
        with_it, without = (run(eight("bnas-1bit", delta=delta), NOTHING) for delta in (2, 0))
        assert torch.equal(with_it.operations.abandoned_in, without.operations.abandoned_in)

    @pytest.mark.parametrize(("version", "delta"), [("w1a32", 2.0), ("1bit", 0.0)])
    def test_delta_is_an_option_of_both_versions(self, version, delta, untrained):
        untrained(lambda *_: 0.5)
        strategy = run(build("bnas", version=version, delta=delta, L=0, V=0), NOTHING)
        assert (strategy.likelihood.max() > 2) == bool(delta)

    def test_abanditnas_follows_eqs_3_to_7(self, untrained):
        # Two operations, T = 1, lambda = 0.7. First accuracies 0.2 and 0.9, then operation 0 twice
        # with 0.5: m = 0.3 * 0.2 + 0.7 * 0.5 = 0.41, then 0.473. N = 4, n = 3 and 1:
        # s_U = 0.473 + 0.961350 = 1.434350 and 0.9 + 1.665109 = 2.565109; 0 is dropped.
        strategy = build("abanditnas", ("skip_connect", "max_pool_3x3"), T=1)
        zero = torch.zeros(2, 14, dtype=torch.long)
        draws = [zero, zero + 1]
        strategy.first_sampling.draw = lambda: draws.pop(0)
        strategy._sample = lambda: zero
        accuracies = iter([0.2, 0.9, 0.5, 0.5])
        untrained(lambda *_: next(accuracies))
        run(strategy, NOTHING)
        assert strategy.performance[0, 0].tolist() == pytest.approx([0.473, 0.9])
        assert strategy.operations.active[0, 0].tolist() == [False, True]
        assert strategy.scores()[0, 0].tolist() == pytest.approx([-1, 2.565109], abs=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("cp-nas", {"T": 0}, "option T"),
        ("cp-nas", {"beta_p": "much"}, "beta_p"),
        ("cp-nas", {"beta": 1}, "unknown option of cp-nas 'beta'"),
        ("bnas", {"version": "w2"}, "'1bit' or 'w1a32'"),
        ("bnas", {"delta": -1}, "delta"),
        ("bnas", {"V": 1.5}, "integer"),
        ("bnas", {"channel_fraction": 0.3}, "channel_fraction"),
        ("abanditnas", {"decay": 1.5}, "decay"),
        ("abanditnas", {"binarizer": "nosuch"}, "nosuch"),
    ],
)
def test_bad_options_are_refused(method, options, message):
    with pytest.raises(InputError, match=message):
        build(method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_one_operation_leaves_nothing_to_choose(method):
    with pytest.raises(InputError, match="at least 2 operations"):
        build(method, ("skip_connect",))


def test_an_indicator_is_of_its_round_alone(untrained):
    """CP-NAS, Algorithm 1: Eq. 2 sees what this round has given, not the rounds before."""
    values = iter(range(10_000))
    untrained(lambda *_: next(values) / 10_000)
    strategy = build("cp-nas", T=2)
    k, index = len(FEW), 0
    while k > 1:
        run(strategy, NOTHING, range(index, index + 2 * k - 1))
        # Of two sweeps all but the last draw are done.
        assert strategy.indicator.count.sum(-1).unique().tolist() == [2 * k - 1]
        index += 2 * k - 1
        run(strategy, NOTHING, range(index, index + 1))
        assert not strategy.indicator.count.any()
        assert not strategy.indicator.total.any()
        index, k = index + 1, k - 1
