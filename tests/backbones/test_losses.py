"""Losses that belong to a method: collected, differentiated, and added by mmengine's hook."""

import copy
import re

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones import ChildParentLoss, ClassCentreLoss, OneBitConv2d, method_losses
from onebit.backbones.binarization import BINARIZERS, MCN, ModulatedSign
from onebit.backbones.class_centres import MIN_VARIANCE, BayesFeatureLoss, ClassCentres
from onebit.backbones.losses import feature_losses, paired_convs, reconstruction_error
from onebit.commons.errors import InputError

#: Which binarizer has which loss in its layers.
LOSSES = {
    "mcn": "loss_reconstruction",
    "pcnn": "loss_projection",
    "bonn": "loss_bayes_kernel",
    "bnasxnor": "loss_amplitude",
    "bnaspcnn": "loss_amplitude",
    "bnasxnorw1a32": "loss_amplitude",
    "bnaspcnnw1a32": "loss_amplitude",
}


def gradients(model):
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


# --- collecting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_losses_are_summed_over_the_layers_by_name(binarizer):
    torch.manual_seed(0)
    network = backbones.create_backbone(f"resnet18_w8_{binarizer}", stem="cifar")
    found = method_losses(network)
    convs = [m for m in network.modules() if isinstance(m, OneBitConv2d)]
    assert len(convs) == 16
    if binarizer not in LOSSES:
        assert found == {}
        return
    assert [*found] == [LOSSES[binarizer]]
    expected = sum(conv.quantize_weight.losses(conv.weight)[LOSSES[binarizer]] for conv in convs)
    torch.testing.assert_close(found[LOSSES[binarizer]], expected)
    assert found[LOSSES[binarizer]].dim() == 0
    assert method_losses(network.eval()) == {}


def test_frozen_stages_add_nothing():
    whole = backbones.create_backbone("resnet18_w8_mcn")
    frozen = copy.deepcopy(whole)
    frozen.frozen_stages = 2
    frozen.train()
    later = sum(
        conv.method_losses()["loss_reconstruction"]
        for stage in (frozen.layer3, frozen.layer4)
        for conv in stage.modules()
        if isinstance(conv, OneBitConv2d)
    )
    torch.testing.assert_close(method_losses(frozen)["loss_reconstruction"], later)
    assert later < method_losses(whole)["loss_reconstruction"]


def test_a_module_of_ones_own_takes_part():
    class Decay(nn.Linear):
        def method_losses(self):
            return {"loss_decay": self.weight.square().sum()}

    model = nn.Sequential(Decay(2, 2), nn.Linear(2, 2), Decay(2, 2))
    expected = model[0].weight.square().sum() + model[2].weight.square().sum()
    assert method_losses(model) == {"loss_decay": expected}


def test_reconstruction_error_is_that_of_dcp_nas():
    torch.manual_seed(0)
    network = backbones.create_backbone("dcp_nas_c8", stem="cifar", layers=3)
    total = 0
    for module in network.modules():
        if isinstance(module, OneBitConv2d):
            beta = 0.02 * module.quantize_weight.modulator.abs()
            signs = torch.where(module.weight > 0, 1.0, -1.0)
            total = total + (module.weight - (beta * signs).detach()).square().sum()
    error = reconstruction_error(network)
    torch.testing.assert_close(error, total)
    error.backward()
    conv = next(m for m in network.modules() if isinstance(m, OneBitConv2d))
    torch.testing.assert_close(conv.weight.grad, 2 * (conv.weight - conv.quantize_weight(conv.weight)).detach())
    # As a loss of the layers: f = 0.4 is 0.2 times this.
    quantizer = ModulatedSign(len(conv.weight), reconstruction=0.4)
    single = nn.ModuleDict(dict(conv=conv))
    torch.testing.assert_close(quantizer.losses(conv.weight)["loss_reconstruction"], 0.2 * reconstruction_error(single))
    assert ModulatedSign(2, reconstruction=0).losses(torch.ones(2, 1, 1, 1)) == {}
    assert MCN.weight(2).reconstruction == 1e-4
    with pytest.raises(InputError, match="1-bit convolutions"):
        reconstruction_error(nn.Conv2d(1, 1, 1))


# --- features ---------------------------------------------------------------------------------------


def test_centres_are_running_means_and_variances():
    centres = ClassCentres(2, 3, momentum=0.25).double()
    first = torch.tensor([[0.0, 2.0], [2.0, 2.0], [5.0, 5.0]]).double()
    centres.update(first, torch.tensor([1, 1, 2]))
    assert centres.mean.tolist() == [[0, 0], [1, 2], [5, 5]]
    assert centres.variance.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert centres.seen.tolist() == [False, True, True]
    centres.update(torch.tensor([[5.0, 2.0]]).double(), torch.tensor([1]))
    assert centres.mean.tolist() == [[0, 0], [2, 2], [5, 5]]  # 1 + (5 - 1) / 4
    assert centres.variance.tolist() == [[1, 1], [0.75 * 1 + 0.25 * 9, 0], [0, 0]]


@pytest.mark.parametrize("kind", [BayesFeatureLoss, ClassCentreLoss])
def test_feature_loss_against_its_formula(kind):
    torch.manual_seed(0)
    loss = kind(4, 3).double()
    for _ in range(3):  # the third call meets statistics that are no single batch's
        features = torch.randn(7, 4, dtype=torch.double, requires_grad=True)
        labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
        assert loss(features, labels) is None
        found = method_losses(loss)[kind.name]
    assert method_losses(loss) == {}  # handed over once
    found.backward()
    value, expected = 0.0, torch.zeros_like(features)
    for i, (f, label) in enumerate(zip(features.detach(), labels.tolist(), strict=True)):
        for n in range(4):
            distance = (f[n] - loss.centres.mean[label, n]).item()
            variance = max(loss.centres.variance[label, n].item(), MIN_VARIANCE)
            if kind is BayesFeatureLoss:
                value += distance**2 + distance**2 / variance + torch.tensor(variance).log().item()
                expected[i, n] = 1e-3 * distance * (1 + 1 / variance) / 7
            else:
                value += distance**2
                expected[i, n] = 1e-3 * distance / 7
    assert found.item() == pytest.approx(0.5e-3 * value / 7, rel=1e-5)
    torch.testing.assert_close(features.grad, expected)
    loss.eval()
    before = loss.centres.mean.clone()
    loss(features, labels)
    assert method_losses(loss) == {}
    assert torch.equal(loss.centres.mean, before)


def test_only_bonn_looks_at_features():
    for binarizer in BINARIZERS:
        network = backbones.create_backbone(f"resnet18_w8_{binarizer}", out_indices=(0,))
        found = [type(m) for m in feature_losses(network, 8, 5)]
        assert found == ([BayesFeatureLoss] if binarizer == "bonn" else [])


# --- Child and Parent -------------------------------------------------------------------------------


def test_child_parent_loss_against_its_formula():
    torch.manual_seed(0)
    child = backbones.create_backbone("resnet18_w8_bireal").double()
    parent = backbones.create_backbone("resnet18_w8").double()
    names = {**child.state_dict()}.keys()
    child.child_parent = ChildParentLoss(child, parent, factor=0.5)
    assert child.state_dict().keys() == names  # the parent is no part of the child
    found = method_losses(child)
    assert [*found] == ["loss_child_parent"]
    value, wanted = 0.0, {}
    pairs = [
        (f"layer{s}.{b}.unit{c}.conv", f"layer{s}.{b}.conv{c}") for s in (1, 2, 3, 4) for b in (0, 1) for c in (1, 2)
    ]
    for ours, theirs in pairs:
        w, h = (dict(n.named_modules())[k].weight.detach() for n, k in ((child, ours), (parent, theirs)))
        n = w[0].numel()
        for k in range(len(w)):
            reconstructed = w[k].abs().mean() * torch.where(w[k] > 0, 1.0, -1.0).double()
            value += 0.5 * (h[k] - reconstructed).square().mean().item()
            inside = (w[k].abs() <= 1).double()
            wanted.setdefault(ours, []).append((reconstructed - h[k]) * inside / n)
    assert found["loss_child_parent"].item() == pytest.approx(value, rel=1e-10)
    found["loss_child_parent"].backward()
    for name, rows in wanted.items():
        torch.testing.assert_close(dict(child.named_modules())[name].weight.grad, torch.stack(rows))
    assert all(p.grad is None for p in parent.parameters())


@pytest.mark.parametrize("name", ["resnet18_w8", "resnet50_w8", "dcp_nas_c8"])
def test_layers_of_child_and_parent_are_paired(name):
    cells = name.startswith("dcp")
    child = backbones.create_backbone(name if cells else f"{name}_mcn")
    parent = backbones.create_backbone(f"{name}_real" if cells else name)
    pairs = paired_convs(child, parent)
    assert len(pairs) == sum(isinstance(m, OneBitConv2d) for m in child.modules())
    assert len({id(theirs) for _, theirs in pairs}) == len(pairs)
    assert all(a.weight.shape == b.weight.shape for a, b in pairs)
    in_child = {id(m): n for n, m in child.named_modules()}
    in_parent = {id(m): n for n, m in parent.named_modules()}
    for ours, theirs in pairs:
        if cells:
            assert in_child[id(ours)] == in_parent[id(theirs)]
        else:
            expected = re.sub(r"unit(\d)\.conv", r"conv\1", in_child[id(ours)])
            assert in_parent[id(theirs)] == expected


def test_networks_that_are_no_child_and_parent():
    child = backbones.create_backbone("resnet18_w8_bireal")
    with pytest.raises(InputError, match=r"no convolution like layer1.0.unit1.conv.*\(8, 8, 3, 3\)"):
        ChildParentLoss(child, backbones.create_backbone("resnet18_w16"))
    with pytest.raises(InputError, match="expected a child with 1-bit"):
        ChildParentLoss(backbones.create_backbone("resnet18_w8"), child)


# --- mmengine's hook --------------------------------------------------------------------------------


class Runner:
    def __init__(self, model):
        self.model = model


def build(binarizer):
    """An mmengine model that knows nothing of binarizers."""
    from mmengine.model import BaseModel

    class Classifier(BaseModel):
        def __init__(self):
            super().__init__()
            suffix = f"_{binarizer}" if binarizer else ""
            self.backbone = backbones.create_backbone(f"resnet18_w8{suffix}", stem="cifar", out_indices=(1,))

        def forward(self, inputs, labels, mode="loss"):
            logits = self.backbone(inputs)[-1].mean((2, 3))
            return dict(loss_cls=nn.functional.cross_entropy(logits, labels), accuracy=logits.mean().detach())

    torch.manual_seed(0)
    return Classifier().double()


def hook():
    from mmengine.registry import HOOKS

    return HOOKS.build(dict(type="onebit.MethodLossHook"))


DATA = dict(
    inputs=torch.randn(2, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0)),
    labels=torch.tensor([0, 3]),
)


@pytest.mark.parametrize("binarizer", ["mcn", "bonn", "bnaspcnnw1a32"])
def test_hook_differentiates_the_explicit_sum(binarizer):
    model = build(binarizer)
    explicit = copy.deepcopy(model)
    loss = explicit(**DATA)["loss_cls"] + sum(method_losses(explicit).values())
    loss.backward()

    ours = hook()
    ours.before_train(Runner(model))
    total, logged = model.parse_losses(model(**DATA))
    total.backward()
    assert {*logged} == {"loss", "loss_cls", "accuracy", LOSSES[binarizer]}
    torch.testing.assert_close(total, loss)
    assert logged[LOSSES[binarizer]] > 0 or binarizer == "bonn"  # a log-likelihood
    for (name, found), expected in zip(gradients(model).items(), gradients(explicit).values(), strict=True):
        torch.testing.assert_close(found, expected, msg=name, rtol=1e-12, atol=1e-14)
    # It does make a difference.
    plain = build(binarizer)
    plain(**DATA)["loss_cls"].backward()
    assert any(not torch.equal(a, b) for a, b in zip(gradients(plain).values(), gradients(model).values(), strict=True))

    ours.after_train(Runner(model))
    assert "parse_losses" not in vars(model)
    assert {*model.parse_losses(model(**DATA))[1]} == {"loss", "loss_cls", "accuracy"}


@pytest.mark.parametrize("binarizer", [None, "reactnet", "dorefa4"])
def test_hook_leaves_other_networks_alone(binarizer):
    model, plain = build(binarizer), build(binarizer)
    hook().before_train(Runner(model))
    found, expected = model.parse_losses(model(**DATA)), plain.parse_losses(plain(**DATA))
    assert found == expected
    found[0].backward()
    expected[0].backward()
    for a, b in zip(gradients(model).values(), gradients(plain).values(), strict=True):
        assert torch.equal(a, b)


def test_hook_counts_once_after_an_interrupted_training():
    model, ours = build("mcn"), hook()
    ours.before_train(Runner(model))
    once = model.parse_losses(model(**DATA))[0]
    ours.before_train(Runner(model))  # no after_train in between
    torch.testing.assert_close(model.parse_losses(model(**DATA))[0], once)


def test_hook_refuses_what_it_cannot_add_to():
    with pytest.raises(InputError, match="parse_losses, found Linear"):
        hook().before_train(Runner(nn.Linear(1, 1)))
    model = build("mcn")
    hook().before_train(Runner(model))
    with pytest.raises(InputError, match="losses named loss_reconstruction itself"):
        model.parse_losses(dict(loss_reconstruction=torch.zeros(())))


def test_hook_reaches_into_the_distributed_wrapper():
    from mmengine.model import MMDistributedDataParallel

    model = build("mcn")
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = model
    hook().before_train(Runner(wrapper))
    assert "loss_reconstruction" in wrapper.module.parse_losses(model(**DATA))[1]
