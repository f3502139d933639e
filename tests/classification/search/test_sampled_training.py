"""CP-NAS, BNAS and ABanditNAS: what they train, and the versions of BNAS."""

import pytest
import torch

from onebit.classification.search.strategies import Report, Schedule, SearchData
from onebit.classification.search.supernet import SuperCell
from tests.classification.search.sampled import METHODS, NOTHING, TWO, build, run


@pytest.fixture
def data():
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0].mean((1, 2)) > 0).long()
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    return SearchData(batches[:1], batches[1:], batches[1:])


def short(method):
    """A search of two to four epochs."""
    return build(method, TWO, T=1, **({"L": 1, "freeze": 0} if method == "bnas" else {}))


class TestTraining:
    """With supernets of three cells, really trained."""

    @pytest.mark.parametrize("method", METHODS)
    def test_the_same_seed_finds_the_same_even_if_interrupted(self, method, data):
        torch.manual_seed(0)
        whole = run(short(method), data)
        torch.manual_seed(0)
        part = short(method)
        half = part.epochs // 2
        run(part, data, range(half))
        resumed = short(method)
        resumed.load_state_dict(part.state_dict())
        for name, optimizer in resumed.optimizers().items():
            optimizer.load_state_dict(part.optimizers()[name].state_dict())
        run(resumed, data, range(half, part.epochs))
        assert whole.state_dict().keys() == resumed.state_dict().keys()
        for name, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[name]), name

    @pytest.mark.parametrize("method", METHODS)
    def test_an_abandoned_operation_is_never_evaluated_again(self, method, data, monkeypatch):
        evaluated = set()
        original = SuperCell._evaluate

        def note(cell, m, edge, source):
            evaluated.add((cell.kind, edge, m))
            return original(cell, m, edge, source)

        monkeypatch.setattr(SuperCell, "_evaluate", note)
        strategy = short(method)
        for index in range(strategy.epochs):
            active = strategy.operations.active.clone()
            evaluated.clear()
            run(strategy, data, [index])
            assert evaluated
            assert all(active[where] for where in evaluated)

    @pytest.mark.parametrize("method", METHODS)
    def test_an_epoch_trains_what_is_on_the_path_alone(self, method, data):
        torch.manual_seed(0)
        strategy = build(method, **({"L": 0} if method == "bnas" else {}))
        before = {name: p.clone() for name, p in strategy.named_parameters()}
        choices = []
        first = getattr(strategy, "first_sampling", None) or strategy.sampling
        original = first.draw
        first.draw = lambda: choices.append(original()) or choices[-1]
        run(strategy, data, [0])
        (choice,) = choices
        for name, supernet in strategy.named_children():
            if not hasattr(supernet, "path_modules"):
                continue
            on_path = {id(p) for m in supernet.path_modules(choice) for p in m.parameters()}
            moved = 0
            for parameter_name, p in supernet.cells.named_parameters(f"{name}.cells"):
                same = torch.equal(p, before[parameter_name])
                if id(p) not in on_path:
                    assert same, parameter_name
                moved += not same
            assert moved

    def test_reports_name_the_losses_and_count_the_images(self, data):
        class Keep(Report):
            def __init__(self):
                self.calls = []

            def __call__(self, losses, images):
                self.calls.append((set(losses), images))

        bnas, pc_darts = build("bnas", TWO), {"loss_weights", "loss_architecture"}
        for strategy, index, expected in (
            (build("cp-nas", TWO), 0, ({"loss_child", "loss_parent"}, 4)),
            (build("abanditnas", TWO), 0, ({"loss_weights"}, 4)),
            (bnas, 0, ({"loss_weights"}, 4)),
            (bnas, 3, (pc_darts, 8)),
            (bnas, 5, ({"loss_weights"}, 4)),
        ):
            report = Keep()
            strategy.epoch(index, data, report)
            assert report.calls == [expected]


class TestChildAndParent:
    def test_they_share_no_weights(self):
        strategy = build("cp-nas", TWO)
        child, parent = ({p.data_ptr() for p in n.parameters()} for n in (strategy.child, strategy.parent))
        assert not child & parent
        assert strategy.child.binarizer.name == "xnor"
        assert strategy.parent.binarizer is None

    def test_the_childs_loss_is_that_of_eqs_3_and_4(self, data):
        """Without the two terms of Eq. 3 the Child learns otherwise, and the Parent alike."""

        def after(**options):
            torch.manual_seed(0)
            strategy = build("cp-nas", TWO, Schedule(gradient_clip=0), **options)
            run(strategy, data, [0])
            return strategy

        plain = after(child_parent=0, class_centre=0)
        for options in ({"child_parent": 1, "class_centre": 0}, {"child_parent": 0, "class_centre": 1}):
            other = after(**options)
            for a, b in zip(plain.parent.parameters(), other.parent.parameters(), strict=True):
                assert torch.equal(a, b)
            pairs = zip(plain.child.parameters(), other.child.parameters(), strict=True)
            assert any(not torch.equal(a, b) for a, b in pairs), options

    def test_the_child_is_drawn_to_its_parents_kernels(self, data):
        from onebit.backbones import ChildParentLoss

        def distance(factor):
            torch.manual_seed(0)
            strategy = build("cp-nas", TWO, child_parent=factor, T=2)
            run(strategy, data)
            loss = ChildParentLoss(strategy.child, strategy.parent)
            return loss.method_losses()["loss_child_parent"].item()

        assert distance(1.0) < distance(0.0)


class TestBNASVersions:
    def test_alpha_is_fixed_for_three_epochs_of_the_warm_up(self, data):
        torch.manual_seed(0)
        strategy = build("bnas", TWO)
        start = strategy.alpha.detach().clone()
        moved = []
        for index in range(5):
            before = strategy.supernet.classifier.weight.clone()
            run(strategy, data, [index])
            assert not torch.equal(before, strategy.supernet.classifier.weight)
            moved.append(not torch.equal(start, strategy.alpha))
        assert moved == [False, False, False, True, True]

    def test_pc_darts_goes_on_between_rounds(self, data):
        torch.manual_seed(0)
        strategy = build("bnas", TWO, T=1, L=0)
        run(strategy, data, range(1))  # a round of one sample
        before = strategy.alpha.detach().clone()
        run(strategy, data, [1])
        assert not torch.equal(before, strategy.alpha)

    def test_both_of_the_last_pair_are_sampled_where_asked(self, untrained):
        # As printed the last round gives both operations 1 (Eqs. 7 and 8), and what was the better
        # one of a sampled half stays above what was never sampled.
        def last(last_pair):
            operations = ("none", "skip_connect", "max_pool_3x3")
            untrained(lambda _, __, choice: (0.2, 0.3, 0.9)[int(choice[0, 0])])
            strategy = build("bnas", operations, T=1, L=0, V=0, last_pair=last_pair)
            strategy.alpha.data.copy_(torch.tensor([0.1, 0.2, 0.9]))
            return run(strategy, NOTHING).operations.active[0, 0].tolist()

        assert last("printed") == [False, True, False]
        assert last("both") == [False, False, True]

    @pytest.mark.parametrize(
        ("version", "kernels", "name", "bits"),
        [
            ("w1a32", "pcnn", "bnaspcnnw1a32", None),
            ("w1a32", "xnor", "bnasxnorw1a32", None),
            ("1bit", "pcnn", "bnaspcnn", 1),
            ("1bit", "xnor", "bnasxnor", 1),
        ],
    )
    def test_binarizers(self, version, kernels, name, bits):
        binarizer = build("bnas", TWO, version=version, kernels=kernels).supernet.binarizer
        assert binarizer.name == name
        assert (binarizer.input is None) == (bits is None)
