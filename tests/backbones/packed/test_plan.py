"""Plans: a packed network as one list of compiled steps."""

from __future__ import annotations

import copy
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onebit import backbones
from onebit.backbones.classifier import Classifier
from onebit.backbones.packed.builder import Builder, Together
from onebit.backbones.packed.deploy import deploy
from onebit.backbones.packed.lowering import NoSteps, Runner, lower, timed_steps
from onebit.commons.errors import InputError
from onebit.packed import engine
from onebit.packed.plan import share_memory
from tests.backbones.packed.test_deploy import trained_looking

pytestmark = pytest.mark.skipif(engine.kernels() is None, reason="needs numba")
#: One of each family whose every part has steps.
PLANNED = [
    *("resnet18_w16_reactnet", "wrn22_w16_adabin", "resnet20_w8_xnorpp", "reactnet_a_w8"),
    *("dcp_nas_c8", "bnas_c8_l6", "bnas_imagenet_c8_l6", "dcp_nas_c8_bnasxnorw1a32"),
]


def packed(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return deploy(trained_looking(backbones.create_backbone(name, **options), 3, 64, 64))


class Layer(nn.Module):
    """A module of torch, to run as a plan."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval()
        self.runner = Runner()

    def lower(self, builder, x):
        return lower(self.module, builder, x)

    def forward(self, x):
        return self.runner.run(self, x)


@pytest.mark.parametrize("name", PLANNED)
def test_a_network_is_one_plan(name: str) -> None:
    network = packed(name)
    network(torch.randn(1, 3, 64, 64))
    assert network._runner.reason is None
    steps = timed_steps(network, torch.randn(1, 3, 64, 64), repeat=1)
    assert {"load", "conv_floats"} <= {step.kernel for step in steps}
    assert (sum(step.bit_macs for step in steps) > 0) == (backbones.describe(name)["activation_bits"] == 1)
    assert all(step.milliseconds > 0 for step in steps)


@pytest.mark.parametrize("name", PLANNED)
def test_threads_and_batches_give_the_same(name: str) -> None:
    """To the last bit: every output is summed in one order whoever computes it."""
    network = packed(name)
    x = torch.randn(3, 3, 61, 270)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = network(x)
        singles = [network(image[None]) for image in x]
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            for a, b in zip(whole, network(x), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)
    for a, *parts in zip(whole, *singles, strict=True):
        assert torch.equal(a, torch.cat(parts))


@pytest.mark.parametrize("name", PLANNED)
def test_it_is_as_near_to_float64_as_torch_is(name: str) -> None:
    """At most three times as far as torch's float32. Signs that flip would hide it: every unit sees the same input."""
    torch.manual_seed(0)
    network = trained_looking(backbones.create_backbone(name), 3, 64, 64)
    plan, exact = deploy(network), copy.deepcopy(network).double()
    seen = {}
    units = [key for key, m in network.named_modules() if type(m).__name__ in ("OneBitUnit", "Cell")]
    for key in units:
        network.get_submodule(key).register_forward_hook(lambda m, x, y, key=key: seen.__setitem__(key, (x, y)))
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
        for key in units:
            inputs, single = seen[key]
            inputs = [x for x in inputs if isinstance(x, torch.Tensor)]
            double = exact.get_submodule(key)(*(x.double() for x in inputs))
            flipped = (single - double).abs() > 1e-3 * double.abs().max()
            ours = plan.get_submodule(key)(*inputs)
            far = ((ours - double).abs() * ~flipped).norm(), ((single - double).abs() * ~flipped).norm()
            if not (ours - single).abs().max() > 1e-3 * double.abs().max():  # a sign at its threshold, in ours alone
                assert far[0] <= 3 * far[1] + 1e-7 * double.norm(), key


def test_a_classifier_is_one_plan_with_its_head() -> None:
    torch.manual_seed(0)
    network = Classifier(backbones.create_backbone("resnet18_w16_bireal", out_indices=(3,)), 10)
    trained_looking(network.backbone, 3, 64, 64)
    network.eval()
    fast, x = deploy(network), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert (fast(x) - network(x)).norm() < 0.05 * network(x).norm()
    assert timed_steps(fast, x, repeat=1)[-1].name == "classifier"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "slice"])
def test_images_of_any_strides(layout: str) -> None:
    network, x = packed("resnet18_w16_bireal"), torch.randn(2, 3, 64, 64)
    expected = network(x)[-1]
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "slice":
        x = torch.cat((x, x), 3)[..., :64]
    assert torch.equal(network(x)[-1], expected)


def test_outputs_of_two_calls_are_two() -> None:
    network = packed("resnet18_w16_bireal")
    one = network(torch.randn(1, 3, 64, 64))[-1]
    kept = one.clone()
    network(torch.randn(1, 3, 64, 64))
    assert torch.equal(one, kept)


def test_several_callers_at_once() -> None:
    network = packed("resnet18_w16_bireal")
    images = [torch.randn(1, 3, 64, 64) for _ in range(8)]
    expected = [network(x)[-1] for x in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: network(x)[-1], images))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_other_weights_make_another_plan() -> None:
    x = torch.randn(1, 3, 64, 64)
    network = packed("resnet18_w16_bireal")
    network(x)
    torch.manual_seed(1)
    other = deploy(trained_looking(backbones.create_backbone("resnet18_w16_bireal"), 3, 64, 64))
    network.load_state_dict(other.state_dict())
    assert torch.equal(network(x)[-1], other(x)[-1])


def test_a_copy_has_memory_of_its_own() -> None:
    network, x = packed("resnet18_w16_bireal"), torch.randn(1, 3, 64, 64)
    expected = network(x)[-1]
    copied = copy.deepcopy(network)
    del network
    assert torch.equal(copied(x)[-1], expected)


def test_a_part_without_steps_runs_module_by_module_and_says_so() -> None:
    torch.manual_seed(0)
    network = trained_looking(backbones.create_backbone("resnet18_w16_bireal"), 3, 64, 64)
    network.maxpool = nn.LPPool2d(2, 3, 2)
    fast, x = deploy(network), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert (fast(x)[-1] - network(x)[-1]).norm() < 0.05 * network(x)[-1].norm()
    assert fast._runner.reason
    with pytest.raises(InputError, match=r"runs module by module: .* has no steps"):
        timed_steps(fast, x)
    with pytest.raises(InputError, match="not packed as a whole"):
        timed_steps(nn.Conv2d(3, 8, 3), x)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_real_valued_layers_are_those_of_torch(data) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 10**6)))
    channels, filters = draw(st.integers(1, 40)), draw(st.integers(1, 150))
    kernel = draw(st.sampled_from([1, 2, 3, (3, 1), 7]))
    options = dict(stride=draw(st.sampled_from([1, 2, (2, 1)])), padding=draw(st.sampled_from([0, 1, (0, 1)])))
    if draw(st.booleans()):
        dilation = draw(st.sampled_from([1, 2]))
        layer = nn.Conv2d(channels, filters, kernel, dilation=dilation, bias=draw(st.booleans()), **options)
    else:
        kernel, options["padding"] = draw(st.sampled_from([2, 3])), draw(st.sampled_from([0, 1]))
        ceil = draw(st.booleans())
        if draw(st.booleans()):
            layer = nn.MaxPool2d(kernel, ceil_mode=ceil, **options)
        else:
            layer = nn.AvgPool2d(kernel, ceil_mode=ceil, count_include_pad=False, **options)
    x = torch.randn(draw(st.integers(1, 2)), channels, draw(st.integers(13, 30)), draw(st.integers(13, 30)))
    after = [nn.ReLU(inplace=True)] if draw(st.booleans()) else []
    module = nn.Sequential(layer, *after).eval()
    with torch.no_grad():
        torch.testing.assert_close(Layer(module)(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Hardtanh(),
        nn.ReLU6(),
        nn.PReLU(12),
        nn.Conv2d(12, 12, 3, groups=12),
        nn.BatchNorm2d(12),
        nn.AdaptiveAvgPool2d(1),
    ],
)
def test_further_layers_are_those_of_torch(layer: nn.Module) -> None:
    x = 4 * torch.randn(2, 12, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(Layer(layer)(x), layer.eval()(x))


class Shared(nn.Module):
    """One map is read with and without a border, as a whole and in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1)
        self.plain, self.bordered = nn.Conv2d(5, 7, 2), nn.Conv2d(5, 7, 3, padding=1)
        self.of_both = nn.Conv2d(10, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return self.plain(x), self.bordered(x), self.of_both(torch.cat((x, x), 1)), x


class Halves(nn.Module):
    """A part of a concatenation gets a border after it was computed in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.bordered = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 6, 3, padding=1)

    def lower(self, builder, x):
        together = Together(2)
        part = builder.pointwise(lower(self.part, builder, x), into=together.part(0))
        builder.pointwise(lower(self.part, builder, x), into=together.part(1))
        return together.whole, lower(self.bordered, builder, part)


def test_a_map_that_several_read_keeps_its_layout() -> None:
    torch.manual_seed(0)
    module, x = Shared().eval(), torch.randn(2, 3, 9, 11)
    with torch.no_grad():
        for found, expected in zip(Layer(module)(x), module(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_part_of_a_map_gets_its_border_elsewhere() -> None:
    torch.manual_seed(0)
    module, x = Halves().eval(), torch.randn(2, 3, 9, 11)
    with torch.no_grad():
        whole, bordered = Layer(module)(x)
        part = module.part(x)
        torch.testing.assert_close(whole, torch.cat((part, part), 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(bordered, module.bordered(part), rtol=1e-4, atol=1e-4)


def _forked(network: nn.Module, x: torch.Tensor, answers) -> None:
    answers.put(network(x)[-1].sum().item())


def test_a_fork_has_threads_of_its_own() -> None:
    network, x = packed("resnet18_w16_bireal"), torch.randn(1, 3, 64, 64)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = network(x)[-1].sum().item()
        context = multiprocessing.get_context("fork")
        answers = context.SimpleQueue()
        child = context.Process(target=_forked, args=(network, x, answers))
        child.start()
        child.join(60)
        alive = child.is_alive()
        child.kill()
    finally:
        torch.set_num_threads(before)
    assert not alive
    assert answers.get() == pytest.approx(expected)


def test_a_maximum_of_what_is_no_number_is_none() -> None:
    x = torch.randn(1, 5, 12, 12)
    x[0, 2, 5, 6] = float("nan")
    pool = nn.MaxPool2d(3, 2, 1)
    found, expected = Layer(pool)(x), pool(x)
    assert torch.equal(found.isnan(), expected.isnan())


def test_an_image_too_small_is_one_line() -> None:
    with pytest.raises(InputError, match="too small"):
        Layer(nn.Conv2d(3, 8, 5))(torch.randn(1, 3, 4, 9))


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=30))
def test_maps_in_use_at_once_nevershare_memory(lives) -> None:
    builder = Builder()
    buffers = []
    for size, first, length in lives:
        buffer = builder.new(1, 1, 1, size).buffer
        buffer.first, buffer.last = first, first + length
        buffers.append(buffer)
    share_memory(buffers)
    for i, a in enumerate(buffers):
        for b in buffers[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            assert apart or not together


def test_memory_begins_at_cache_lines() -> None:
    network = packed("resnet18_w16_bireal")
    plan, _ = network._runner.plan(network, torch.randn(1, 3, 64, 64))
    for piece in plan.pieces.values():
        assert piece.ctypes.data % 64 == 0


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2, dilation=2),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AvgPool2d(3, padding=1, count_include_pad=True),
        nn.AdaptiveAvgPool2d(2),
    ],
    ids=["dilation", "divisor", "border", "positions"],
)
def test_a_pooling_that_has_no_step_is_left_to_torch(pool) -> None:
    builder = Builder()
    with pytest.raises(NoSteps, match="pooling"):
        lower(pool, builder, builder.new(1, 9, 9, 4))
