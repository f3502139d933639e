"""The gradient methods and random search, step by step."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from onebit.backbones import Genotype
from onebit.backbones.losses import method_losses, onebit_convs
from onebit.classification.search.architecture import frozen, operation_weights
from onebit.classification.search.curvature import Curvature, kl_divergence
from onebit.classification.search.decoupling import backtracked_operations, squared_norms
from onebit.classification.search.discrepancy import discrepancy
from onebit.classification.search.reconstruction import add_reconstruction_gradient
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, Schedule, SearchData, darts, dcp_nas, get_strategy
from onebit.classification.search.strategies.base import cross_entropy, gradient
from onebit.classification.search.strategies.darts import architecture_optimizer
from onebit.classification.search.supernet import Supernet
from onebit.commons.compat import TORCH, grad_scaler
from onebit.commons.errors import InputError

SPACE = SearchSpace(3, cells=3, channels=4, operations=("none", "skip_connect", "avg_pool_3x3", "dil_conv_3x3"))
SCHEDULE = Schedule(epochs=2, gradient_clip=0)


class Losses(Report):
    def __init__(self) -> None:
        self.steps = []

    def __call__(self, losses, images):
        self.steps.append((dict(losses), images))


def batches(n: int = 2) -> list:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(3, (4,), generator=generator)) for _ in range(n)
    ]


def data() -> SearchData:
    return SearchData(batches(2), batches(1), batches(1))


def make(method: str, space=SPACE, schedule=SCHEDULE, **options):
    torch.manual_seed(0)
    return get_strategy(method)(space, options, schedule)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


GRADIENT_METHODS = [
    ("darts", {}),
    ("darts", dict(binarizer="mcn", decoupled=True)),
    ("pc-darts", dict(k=2, warmup=0.0)),
    ("random", {}),
    ("dcp-nas", {}),
]


@pytest.mark.parametrize(("method", "options"), GRADIENT_METHODS)
def test_an_epoch_repeats_itself_and_leaves_a_cell(method, options):
    states = []
    for _ in range(2):
        strategy, report = make(method, **options), Losses()
        torch.manual_seed(1)
        strategy.epoch(0, data(), report)
        states.append(strategy.state_dict())
    assert same(*states)
    assert all(torch.tensor(list(losses.values())).isfinite().all() for losses, _ in report.steps)
    scores = strategy.scores()
    assert scores.shape == SPACE.shape
    cell = Genotype.derive(scores, strategy.derivation, SPACE.operations)
    assert cell.derivation == strategy.derivation == "top2"


def test_a_restored_state_goes_on_alike():
    strategy, other = make("dcp-nas"), make("dcp-nas")
    strategy.epoch(0, data(), Report())
    other.load_state_dict(copy.deepcopy(strategy.state_dict()))
    for name, optimizer in strategy.optimizers().items():
        other.optimizers()[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each in (strategy, other):
        each.epoch(1, data(), Report())
    assert same(strategy.state_dict(), other.state_dict())


def test_images_are_counted():
    report = Losses()
    make("pc-darts", k=2, warmup=0.5).epoch(0, data(), report)
    assert [images for _, images in report.steps] == [4, 4]  # no architecture steps yet
    report = Losses()
    make("darts").epoch(0, data(), report)
    assert [images for _, images in report.steps] == [8, 8]


def test_pc_darts_takes_a_part_of_the_channels():
    assert make("pc-darts", k=2).channel_fraction == 0.5


@pytest.mark.parametrize(("method", "options"), [("darts", {}), ("pc-darts", dict(k=2, warmup=0.0)), ("dcp-nas", {})])
def test_every_step_moves_weights_and_architecture_at_the_rate_of_its_epoch(method, options):
    strategy, report = make(method, **options), Losses()
    before = strategy.scores()
    strategy.epoch(1, data(), report)
    assert all(any("architecture" in name for name in losses) for losses, _ in report.steps)
    assert not torch.equal(strategy.scores(), before)
    of_weights = [o for o in strategy.optimizers().values() if isinstance(o, torch.optim.SGD)]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in of_weights]
    assert rates == pytest.approx([SCHEDULE.lr_of(1, 2)] * len(rates))
    assert rates[0] < SCHEDULE.lr


def test_a_darts_step_is_adam_along_the_gradient_of_the_validation_loss():
    strategy, (batch,) = make("darts"), batches(1)
    alpha = torch.nn.Parameter(strategy.alpha.detach().clone())
    optimizer = architecture_optimizer([alpha], 3e-4, 1e-3)
    logits = strategy.supernet(batch[0], alpha.softmax(-1))
    (alpha.grad,) = torch.autograd.grad(cross_entropy(logits, batch[1]), alpha)
    optimizer.step()
    before = {n: p.clone() for n, p in strategy.supernet.state_dict().items()}
    strategy.architecture_step(batch, Report())
    torch.testing.assert_close(strategy.alpha, alpha)
    assert same(before, strategy.supernet.state_dict())
    held = strategy.alpha.detach().clone()
    strategy.training_step(batch, Report())
    assert torch.equal(strategy.alpha, held)


@pytest.mark.parametrize("method", ["darts", "pc-darts"])
def test_decoupling_adds_to_the_step(method):
    options = dict(k=2, warmup=0.0) if method == "pc-darts" else {}
    batch = batches(1)[0]
    plain = make(method, **options)
    decoupled = make(method, decoupled="on", eta=0.5, psi=2.0, epsilon=0.25, **options)
    start = plain.alpha.detach().clone()
    for strategy in (plain, decoupled):
        strategy.architecture_step(batch, Report())
    # tau = 1: all but `none`, which has no weights.
    moved = start * torch.tensor([0.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(decoupled.alpha, plain.alpha + 0.5 * 2.0 * moved)


class TestDCPNAS:
    def test_parent_and_child_share_nothing(self):
        strategy = make("dcp-nas")
        places = [
            {p.data_ptr() for p in (*network.parameters(), *network.buffers())}
            for network in (strategy.parent, strategy.child)
        ]
        assert not places[0] & places[1]
        assert strategy.alpha.data_ptr() != strategy.child_alpha.data_ptr()
        batch = batches(1)[0]
        parent, child = (copy.deepcopy(n.state_dict()) for n in (strategy.parent, strategy.child))
        strategy.child_step(batch, Report())
        strategy.child_architecture_step(batch, Report())
        assert same(parent, strategy.parent.state_dict())
        assert not same(child, strategy.child.state_dict())
        child = copy.deepcopy(strategy.child.state_dict())
        held = strategy.child_alpha.detach().clone()
        strategy.parent_step(batch, Report())
        strategy.parent_architecture_step(batch, Report())
        assert same(child, strategy.child.state_dict())
        assert torch.equal(held, strategy.child_alpha)

    def test_the_architecture_is_inherited_both_ways(self):
        strategy = make("dcp-nas")
        seen = []

        class Watch(Report):
            def __call__(self, losses, images):
                seen.append((strategy.alpha.detach().clone(), strategy.child_alpha.detach().clone()))

        child_architecture_step, starts = strategy.child_architecture_step, []

        def watched(batch, report):
            starts.append(strategy.child_alpha.detach().clone())
            return child_architecture_step(batch, report)

        strategy.child_architecture_step = watched
        strategy.epoch(0, data(), Watch())
        assert torch.equal(starts[0], seen[1][0])  # what the Parent's phase ended with
        assert not torch.equal(*seen[1])
        assert torch.equal(seen[3][0], seen[1][0])  # the Parent's stays while the Child learns
        assert torch.equal(strategy.alpha, seen[3][1])
        assert torch.equal(strategy.alpha, strategy.child_alpha)
        assert strategy.alpha.data_ptr() != strategy.child_alpha.data_ptr()

    def test_backtracking_of_the_heir_knows_where_it_starts(self):
        noted = []
        heir, alpha = torch.zeros(2), torch.ones(2)
        dcp_nas.inherit(heir, alpha, None)
        assert heir.tolist() == [1, 1]
        dcp_nas.inherit(heir, alpha * 2, SimpleNamespace(inherit=noted.append))
        assert noted[0] is heir
        assert heir.tolist() == [2, 2]

    @pytest.mark.parametrize("off", [dict(mu=0), dict(reconstruction="off")])
    def test_without_tangent_and_mu_the_childs_step_is_plain_kl(self, off):
        strategy, batch = make("dcp-nas", tangent=False, **off), batches(1)[0]
        twin = copy.deepcopy(strategy.child)
        parent_logits = strategy.parent(batch[0], operation_weights(strategy.alpha)).detach()
        optimizer = torch.optim.SGD(twin.parameters(), 0.025, momentum=0.9, weight_decay=5e-4)
        weights = operation_weights(strategy.child_alpha.detach())
        loss = kl_divergence(parent_logits, twin(batch[0], weights))
        loss.backward()
        optimizer.step()
        found = strategy.child_step(batch, Report())
        assert found == {"loss_child": pytest.approx(loss.item())}
        for ours, theirs in zip(strategy.child.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_with_mu_the_reconstruction_error_is_added(self):
        strategy, batch = make("dcp-nas", mu=0.3), batches(1)[0]
        plain = make("dcp-nas", mu=0)
        expected = sum(
            (conv.weight - conv.quantize_weight(conv.weight)).square().sum()
            for conv in onebit_convs(strategy.child).values()
        ).item()
        losses = strategy.child_step(batch, Report())
        plain.child_step(batch, Report())
        assert losses["reconstruction"] == pytest.approx(expected, rel=1e-5)
        moved = dict(plain.child.named_parameters())
        for name, conv in onebit_convs(make("dcp-nas").child).items():
            residual = (conv.weight - conv.quantize_weight(conv.weight)).detach()
            torch.testing.assert_close(
                dict(strategy.child.named_parameters())[f"{name}.weight"],
                moved[f"{name}.weight"] - 0.025 * 2 * 0.3 * residual,
            )

    def test_the_gradient_of_the_reconstruction_error_is_that_of_the_losses_of_mcn(self):
        torch.manual_seed(0)
        child = Supernet(SPACE, "mcn")
        for conv in onebit_convs(child).values():
            conv.quantize_weight.reconstruction = 2 * 0.7
            torch.nn.init.uniform_(conv.quantize_weight.modulator, 0.5, 1.5)
        method_losses(child)["loss_reconstruction"].backward()
        expected = {n: p.grad for n, p in child.named_parameters() if p.grad is not None}
        child.zero_grad(set_to_none=True)
        add_reconstruction_gradient(child, 0.7)
        found = {n: p.grad for n, p in child.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for name in found:
            torch.testing.assert_close(found[name], expected[name])

    @pytest.mark.parametrize("curvature", ["fisher", pytest.param("ggn", marks=pytest.mark.slow)])
    def test_lambda_auto_fixes_the_share_of_the_tangent_term(self, curvature):
        batch, steps = batches(1)[0], {}
        for options in (
            dict(tangent=False),
            dict(**{"lambda": "auto", "tangent_share": 0.3}),
            dict(**{"lambda": 1e-3}),
        ):
            strategy = make("dcp-nas", curvature=curvature, decoupled=False, **options)
            losses = strategy.child_architecture_step(batch, Report())
            steps[str(options.get("lambda"))] = strategy.child_alpha.grad
            if "lambda" in options:
                assert strategy.measures()["tangent_share"] == pytest.approx(losses["tangent_share"].item())
            else:
                assert "tangent_share" not in strategy.measures()
        plain, auto, fixed = (steps[name] for name in ("None", "auto", "0.001"))
        assert (auto - plain).norm() == pytest.approx(0.3 * plain.norm().item(), rel=1e-3)
        cosine = torch.nn.functional.cosine_similarity((auto - plain).flatten(), (fixed - plain).flatten(), 0)
        assert cosine > 0.98  # the same direction, as far as float32 tells for the small one

    def test_a_lambda_of_zero_leaves_the_architecture_step_unchanged(self):
        batch, alphas = batches(1)[0], []
        for options in (dict(tangent=False), dict(**{"lambda": 0}), dict(**{"lambda": 100.0})):
            strategy = make("dcp-nas", **options)
            losses = strategy.child_architecture_step(batch, Report())
            alphas.append(strategy.child_alpha.detach())
        assert torch.equal(alphas[0], alphas[1])
        assert not torch.equal(alphas[0], alphas[2])
        assert losses["discrepancy"] > 0

    @pytest.mark.parametrize("curvature", ["fisher", "ggn", "hessian"])
    def test_tangent_propagation(self, curvature):
        """The step is along gC + 2 lambda F(gC - gP), Eq. 15 with H_G = -F."""
        strategy = make("dcp-nas", curvature=curvature, decoupled=False, **{"lambda": 10.0})
        images, labels = batches(1)[0]
        alpha = strategy.alpha.detach().requires_grad_()
        logits = strategy.parent(images, operation_weights(alpha))
        (to_parent,) = torch.autograd.grad(cross_entropy(logits, labels), alpha)
        of = Curvature(
            curvature,
            strategy.child,
            lambda a: strategy.child(images, operation_weights(a)),
            strategy.child_alpha,
            logits,
        )
        child_alpha = torch.nn.Parameter(strategy.child_alpha.detach().clone())
        with frozen(strategy.child):
            divergence = kl_divergence(logits, strategy.child(images, child_alpha.softmax(-1)))
        (to_child,) = torch.autograd.grad(divergence, child_alpha)
        expected = to_child + 2 * 10.0 * of.product(to_child - to_parent)
        losses = strategy.child_architecture_step((images, labels), Report())
        torch.testing.assert_close(strategy.child_alpha.grad, expected, rtol=1e-4, atol=1e-6)
        assert losses["discrepancy"] == pytest.approx((to_child - to_parent).square().sum().item(), rel=1e-4)

    @pytest.mark.parametrize("norm", ["l1", "cosine"])
    def test_the_discrepancy_that_was_asked_for_is_followed(self, norm):
        batch = batches(1)[0]
        plain = make("dcp-nas", curvature="fisher", tangent=False, decoupled=False)
        strategy = make("dcp-nas", curvature="fisher", discrepancy=norm, decoupled=False, **{"lambda": 10.0})
        _, tangent, _ = strategy._tangent_direction(batch, Report())
        losses = strategy.child_architecture_step(batch, Report())
        plain.child_architecture_step(batch, Report())
        gradient = plain.child_alpha.grad
        distance, slope = discrepancy(gradient, tangent, norm)
        assert losses["discrepancy"] == pytest.approx(distance.item(), rel=1e-4)
        expected = gradient + 10.0 * gradient * (gradient * slope).sum()
        torch.testing.assert_close(strategy.child_alpha.grad, expected, rtol=1e-4, atol=1e-7)

    def test_each_architecture_is_backtracked_by_the_weights_of_its_own_network(self):
        """Of the Child the smallest convolution has rank 1, of the Parent the identity."""
        batch = batches(1)[0]
        strategy = make("dcp-nas", tangent=False, eta=0.5, psi=2.0, epsilon=0.5)
        with torch.no_grad():
            for parameter in strategy.child.operation_parameters(3):
                parameter.fill_(0.0)  # dil_conv_3x3: beta o sign(w) is what counts
            for conv in onebit_convs(nn.ModuleList(strategy.child.operation_modules(3))).values():
                conv.quantize_weight.modulator.zero_()
            for parameter in strategy.parent.operation_parameters(3):
                parameter.fill_(10.0)
        for network, alpha, step in (
            (strategy.parent, "alpha", "parent_architecture_step"),
            (strategy.child, "child_alpha", "child_architecture_step"),
        ):
            norms = squared_norms(network)
            chosen = backtracked_operations(norms, 0.5)
            start = getattr(strategy, alpha).detach().clone()
            twin = torch.nn.Parameter(start.clone())
            getattr(strategy, step)(batch, Report())
            twin.grad = getattr(strategy, alpha).grad
            architecture_optimizer([twin], 1e-4, 1e-3).step()
            expected = twin.detach() + 0.5 * 2.0 * start * chosen
            torch.testing.assert_close(getattr(strategy, alpha).detach(), expected)
            assert bool(chosen[3]) == (network is strategy.parent)


@pytest.mark.skipif(TORCH < (2, 3), reason="float16 on a CPU needs torch 2.3")
def test_a_gradient_that_float16_cannot_hold_moves_no_architecture(monkeypatch):
    class Half(Report):
        scaler = grad_scaler("cpu")

    for method, step in (
        ("darts", "architecture_step"),
        ("dcp-nas", "parent_architecture_step"),
        ("dcp-nas", "child_architecture_step"),
        ("bnas", "_architecture_step"),
    ):
        strategy = make(method, channel_fraction=1.0) if method == "bnas" else make(method)
        before = [p.detach().clone() for p in strategy.parameters()]
        module = importlib.import_module(type(strategy).__module__)
        holed = lambda *a, **k: tuple(g.index_fill(0, torch.tensor([0]), torch.inf) for g in gradient(*a, **k))  # noqa: E731
        with monkeypatch.context() as patch:
            patch.setattr(module, "gradient", holed)
            patch.setattr("onebit.classification.search.curvature.gradient", holed)
            options = {"curvature": "fisher"} if method == "dcp-nas" else {}
            strategy.options = dataclasses.replace(strategy.options, **options)
            left = (strategy.operations.active,) if method == "bnas" else ()
            getattr(strategy, step)(batches(1)[0], Half(), *left)
        assert all(map(torch.equal, before, strategy.parameters()))


def test_random_search_scores_by_mean_performance():
    strategy = make("random", schedule=Schedule(epochs=3))
    performances = iter([0.2, 0.4, 0.9])
    choices = []

    def evaluate(supernet, batches, choice):
        choices.append(choice)
        return next(performances)

    strategy.evaluate = evaluate
    for index in range(3):
        strategy.epoch(index, data(), Report())
    for kind in range(2):
        for edge in range(14):
            for m in range(4):
                got = [p for p, c in zip((0.2, 0.4, 0.9), choices, strict=True) if c[kind, edge] == m]
                expected = sum(got) / len(got) if got else 0.0
                assert strategy.scores()[kind, edge, m].item() == pytest.approx(expected)


def test_accuracy_is_the_fraction_of_right_predictions():
    strategy = make("random")

    def network(images, **path):
        assert path == {"choice": 7}
        return torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3).float()

    batch = (torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert strategy.evaluate(network, [batch, batch], choice=7) == 0.5
    with pytest.raises(InputError, match="at least one batch"):
        strategy.evaluate(network, [], choice=7)


def test_learning_rates_follow_a_cosine():
    schedule = Schedule(epochs=4, lr=0.1, min_lr=0.02)
    rates = [schedule.lr_of(index, 4) for index in range(5)]
    assert rates == pytest.approx([0.1, 0.0883, 0.06, 0.0317, 0.02], abs=1e-4)


def test_gradients_are_clipped():
    moved = []
    for clip in (0.0, 1e-3):
        schedule = Schedule(epochs=2, weight_decay=0.0, gradient_clip=clip)
        strategy = make("darts", schedule=schedule)
        before = torch.cat([p.detach().flatten().clone() for p in strategy.supernet.parameters()])
        strategy.training_step(batches(1)[0], Report())
        after = torch.cat([p.detach().flatten() for p in strategy.supernet.parameters()])
        moved.append((after - before).norm().item())
    assert moved[0] > 2 * 0.025e-3
    assert moved[1] == pytest.approx(0.025e-3, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(curvatur="ggn"), "unknown option of dcp-nas 'curvatur'; did you mean curvature"),
        (dict(curvature="kfac"), "expected 'fisher', 'ggn', 'hessian' or 'hessian-explicit'"),
        (dict(tangent="maybe"), "dcp-nas, option tangent 'maybe': expected a valid boolean"),
        (dict(mu="much"), "option mu 'much': expected a valid number"),
        (dict(mu=-1), "option mu -1: expected greater than or equal to 0"),
        (dict(**{"lambda": "nan"}), "option lambda 'nan': expected a valid number or 'auto'"),
        (dict(epsilon=2), "option epsilon 2: expected less than or equal to 1"),
        (dict(binarizer="mnc"), "unknown binarizer 'mnc'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        make("dcp-nas", **options)


def test_options_from_texts():
    strategy = make("dcp-nas", **{"lambda": "5e-3", "tangent": "off", "eta-psi": "1e-3"})
    assert (strategy.options.lambda_, strategy.options.tangent) == (5e-3, False)
    assert strategy.options.eta_psi == 1e-3
    assert make("darts", binarizer="none").options.binarizer is None
    assert make("pc-darts", k="2").options.k == 2
    with pytest.raises(InputError, match=r"option k 2\.5: expected a valid integer"):
        make("pc-darts", k="2.5")
    with pytest.raises(InputError, match="unknown search method 'dcpnas'; did you mean dcp-nas"):
        get_strategy("dcpnas")


@pytest.mark.parametrize(
    "value",
    [dict(epochs=0), dict(lr=-1.0), dict(momentum="0.9"), dict(optimizer="lamb"), dict(momentum=1.0, optimizer="adam")],
)
def test_bad_schedules(value):
    with pytest.raises(InputError, match=next(iter(value))):
        Schedule(**value)


def test_the_architecture_optimizer_is_adam_with_the_papers_betas():
    """DARTS, appendix A.1: 0.5 and 0.999; two steps by hand, Kingma and Ba, Algorithm 1."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = architecture_optimizer([parameter], 0.1, 0.01)
    value, m, v = parameter.detach().clone(), 0, 0
    for t, slope in enumerate((torch.tensor([0.3, 0.7]), torch.tensor([-0.2, 0.4])), start=1):
        parameter.grad = slope.double()
        optimizer.step()
        g = slope.double() + 0.01 * value
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g**2
        value = value - 0.1 * (m / (1 - 0.5**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(parameter.detach(), value)


def test_the_weights_move_by_sgd_with_the_schedules_momentum_and_decay():
    """Two steps down a constant slope, by hand."""
    schedule = Schedule(epochs=2, lr=0.1, momentum=0.8, weight_decay=0.05, gradient_clip=0)
    strategy = get_strategy("random")(SPACE, {}, schedule)
    network = nn.Linear(2, 1, bias=False).double()
    optimizer = strategy.weight_optimizer("weights", network)
    value, velocity = network.weight.detach().clone(), 0
    slope = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    for _ in range(2):
        strategy.weight_step(network, optimizer, lambda: (network.weight * slope).sum(), Report())
        velocity = 0.8 * velocity + slope + 0.05 * value
        value = value - 0.1 * velocity
        torch.testing.assert_close(network.weight.detach(), value)


def test_the_weights_move_by_adam_where_the_schedule_says_so():
    """Two steps down a constant slope, by hand: Kingma and Ba, Algorithm 1, the decay part of the gradient."""
    schedule = Schedule(epochs=2, lr=0.1, momentum=0.8, weight_decay=0.05, gradient_clip=0, optimizer="adam")
    strategy = get_strategy("random")(SPACE, {}, schedule)
    network = nn.Linear(2, 1, bias=False).double()
    optimizer = strategy.weight_optimizer("weights", network)
    value, m, v = network.weight.detach().clone(), 0, 0
    slope = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    for t in (1, 2):
        strategy.weight_step(network, optimizer, lambda: (network.weight * slope).sum(), Report())
        g = slope + 0.05 * value
        m, v = 0.8 * m + 0.2 * g, 0.999 * v + 0.001 * g**2
        value = value - 0.1 * (m / (1 - 0.8**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(network.weight.detach(), value)


@pytest.mark.parametrize("index", [0, 4])
def test_the_entropy_bonus_counts_every_edge_and_fades(index):
    """Kim et al., ECCV 2020: L_valid - lambda exp(-t / tau) H."""
    strategy, (batch,) = make("darts", entropy=2.0, entropy_decay=3.0), batches(1)
    alpha = torch.nn.Parameter(torch.randn(SPACE.shape))
    strategy.alpha.data.copy_(alpha.detach())
    optimizer = architecture_optimizer([alpha], 3e-4, 1e-3)
    mean_entropy = sum(-(edge.softmax(-1) * edge.log_softmax(-1)).sum() for cell in alpha for edge in cell) / 28
    loss = cross_entropy(strategy.supernet(batch[0], alpha.softmax(-1)), batch[1])
    loss = loss - 2.0 * math.exp(-index / 3.0) * mean_entropy
    (alpha.grad,) = torch.autograd.grad(loss, alpha)
    optimizer.step()
    strategy.epoch(index, SearchData((), (), ()), Report())  # without a batch it only learns its number
    strategy.architecture_step(batch, Report())
    torch.testing.assert_close(strategy.alpha, alpha)


@pytest.mark.parametrize(("method", "options"), [("darts", {}), ("pc-darts", dict(k=2, warmup=0.5))])
def test_the_scores_of_the_best_epoch_are_kept(method, options):
    strategy = make(method, keep="best", schedule=Schedule(epochs=4), **options)
    assert strategy.parts() == ("train", "valid", "evaluation")
    accuracies, ends = iter([0.3, 0.6, 0.6, 0.1]), []

    def evaluate(supernet, batches, **mixture):
        assert set(mixture) == set(strategy.mixture())
        ends.append(strategy.own_scores())
        return next(accuracies)

    strategy.evaluate = evaluate
    for index in range(4):
        strategy.epoch(index, data(), Report())
    if method == "pc-darts":
        assert len(ends) == 2  # in the first two epochs alpha has not learnt anything
    else:
        assert len(ends) == 4
        assert not torch.equal(strategy.scores(), strategy.own_scores())
    assert torch.equal(strategy.scores(), ends[1])  # of equal ones the first
    other = make(method, keep="best", schedule=Schedule(epochs=4), **options)
    other.load_state_dict(strategy.state_dict())
    assert torch.equal(other.scores(), ends[1])


class TestSecondOrder:
    """DARTS, Eqs. 7 and 8, in float64 against the function whose gradient they are."""

    @staticmethod
    def unrolled(**options):
        schedule = Schedule(epochs=2, lr=0.2, momentum=0.7, weight_decay=0.03, gradient_clip=0)
        strategy = make("darts", order="second", schedule=schedule, **options).double()
        train, valid = ((images.double(), labels) for images, labels in batches(2))
        strategy.training_step(train, Report())  # so that there is momentum
        return strategy, train, valid

    @staticmethod
    def after_a_step(strategy, train, valid, alpha):
        """L_valid at the weights that one step of SGD down L_train leads to, differentiable."""
        named = dict(strategy.supernet.named_parameters())
        call = functools.partial(torch.func.functional_call, strategy.supernet)
        weights = alpha.softmax(-1)
        loss = cross_entropy(call(named, (train[0], weights)), train[1])
        slopes = torch.autograd.grad(loss, list(named.values()), create_graph=True)
        state = strategy.optimizers()["weights"].state
        moved = {}
        for (name, weight), slope in zip(named.items(), slopes, strict=True):
            velocity = 0.7 * state[weight]["momentum_buffer"] + slope + 0.03 * weight
            moved[name] = weight - 0.2 * velocity
        return cross_entropy(call(moved, (valid[0], weights)), valid[1])

    @pytest.mark.parametrize("options", [pytest.param({}, marks=pytest.mark.slow), dict(structure="darts")])
    def test_the_gradient_is_that_of_the_unrolled_loss(self, options, monkeypatch):
        monkeypatch.setattr(darts, "DIFFERENCE", 1e-6)  # a larger one crosses bends of PReLU and ReLU
        strategy, train, valid = self.unrolled(**options)
        before = {name: value.clone() for name, value in strategy.supernet.state_dict().items()}
        loss, (found,) = strategy.unrolled_gradient(valid, train, Report())
        assert same(before, strategy.supernet.state_dict())
        alpha = strategy.alpha.detach()
        torch.testing.assert_close(loss, self.after_a_step(strategy, train, valid, alpha))
        exact = alpha.clone().requires_grad_()
        torch.testing.assert_close(found, *torch.autograd.grad(self.after_a_step(strategy, train, valid, exact), exact))
        along = torch.randn(SPACE.shape, dtype=torch.float64)
        ends = [self.after_a_step(strategy, train, valid, alpha + s * along).item() for s in (1e-7, -1e-7)]
        assert (found * along).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4)
        first = alpha.clone().requires_grad_()
        loss = cross_entropy(strategy.supernet(valid[0], first.softmax(-1)), valid[1])
        (plain,) = torch.autograd.grad(loss, first)
        assert (found - plain).norm() > 0.05 * plain.norm()

    def test_a_step_takes_that_gradient(self):
        strategy, train, valid = self.unrolled()
        twin = torch.nn.Parameter(strategy.alpha.detach().clone())
        _, (twin.grad,) = strategy.unrolled_gradient(valid, train, Report())
        optimizer = architecture_optimizer([twin], 3e-4, 1e-3)
        optimizer.step()
        strategy.architecture_step(valid, Report(), train)
        torch.testing.assert_close(strategy.alpha, twin)

    def test_it_needs_sgd(self):
        with pytest.raises(InputError, match=r"order 'second': expected schedule\.optimizer sgd"):
            make("darts", order="second", schedule=Schedule(optimizer="adam"))

    def test_it_needs_a_binarizer_without_memory(self):
        with pytest.raises(InputError, match="order 'second': binarizer rebnn remembers its last step"):
            make("darts", order="second", binarizer="rebnn")

    def test_an_epoch_of_it(self):
        strategy = make("pc-darts", order="second", structure="darts", k=2, warmup=0.0)
        before = strategy.scores()
        strategy.epoch(0, data(), Report())
        assert strategy.scores().isfinite().all()
        assert not torch.equal(strategy.scores(), before)
