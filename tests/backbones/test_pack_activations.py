"""Activations kept for backward in bits: the same gradients to the last bit, and how many bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit import backbones
from onebit.backbones import OneBitConv2d, integer_conv, pack_activations
from onebit.backbones.binarization import BINARIZERS, packing
from tests.backbones.reference import cases, corner_or_random

WITH_INPUT = [name for name, b in BINARIZERS.items() if b.input is not None]


@given(st.lists(st.booleans(), max_size=70))
@settings(max_examples=60, deadline=None)
def test_bits_come_back(values):
    row = torch.tensor(values, dtype=torch.bool)
    bits = packing.pack_bits(row)
    assert bits.dtype == torch.uint8
    assert len(bits) == -(-len(values) // 8)
    assert torch.equal(packing.unpack_bits(bits, len(values)).bool(), row)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@given(st.integers(0, 70), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_codes_come_back(bits, count, seed):
    row = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed))
    packed = packing.pack_codes(row.to(torch.uint8), bits)
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(packing.unpack_codes(packed, bits, count).long(), row)


def test_bits_without_numpy_are_the_same(monkeypatch):
    """The path of devices other than the CPU, which has its own."""
    row = torch.rand(83) < 0.5
    packed = packing.pack_bits(row)

    class Elsewhere:
        type = "meta"

    class Row(torch.Tensor):
        @property
        def device(self):
            return Elsewhere

    places = packing._places(torch.device("cpu"))
    monkeypatch.setattr(packing, "_places", lambda device: places)
    there = packing.pack_bits(row.as_subclass(Row)).as_subclass(torch.Tensor)
    assert torch.equal(there, packed)
    back = packing.unpack_bits(packed.as_subclass(Row), 83).as_subclass(torch.Tensor)
    assert torch.equal(back.bool(), row)


def gradients(conv, x, grad, pack):
    pack_activations(conv, pack)
    conv.zero_grad()
    leaf = x.clone().requires_grad_()
    y = conv(leaf)
    y.backward(grad if grad is not None else torch.linspace(-1, 1, y.numel()).reshape(y.shape))
    return [y.detach(), leaf.grad, *(p.grad.clone() for p in conv.parameters())]


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("binarizer", list(BINARIZERS))
@settings(max_examples=12, deadline=None)
@given(case=cases(), channels_last=st.booleans())
def test_gradients_are_the_same_to_the_last_bit(binarizer, integers, case, channels_last):
    rng, geometry = case["rng"], dict(case["geometry"])
    if BINARIZERS[binarizer].input is None or binarizer.startswith(("dorefa", "adabin")):
        geometry["pad_value"] = 0
    conv = OneBitConv2d(case["channels"], case["filters"], case["kernel"], binarizer=binarizer, **geometry)
    x = torch.from_numpy(corner_or_random(rng, (case["batch"], case["channels"], *case["size"])))
    # Random mantissas beside the corners: slopes of every bit pattern.
    x = torch.where(torch.rand(x.shape) < 0.5, x.float(), torch.randn(x.shape))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    if hasattr(conv.quantize_input, "bias"):
        torch.nn.init.normal_(conv.quantize_input.bias)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_conv, "MIN_POSITIONS", 0 if integers else 10**9)
        plain, packed = (gradients(conv, x, None, pack) for pack in (False, True))
    for a, b in zip(plain, packed, strict=True):
        assert torch.equal(a, b)


@given(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=50))
@settings(max_examples=200, deadline=None)
def test_slopes_of_any_float32_come_back(values):
    x = torch.tensor(values).reshape(1, 1, 1, -1)
    results = []
    for pack in (False, True):
        leaf = x.clone().requires_grad_()
        quantizer = BINARIZERS["bireal"].input(1)
        quantizer.pack = pack
        quantizer(leaf).backward(torch.full_like(x, 3.7))
        results.append(leaf.grad)
    assert torch.equal(*results)


@pytest.mark.parametrize("binarizer", ["bireal", "reactnet"])
def test_nan_reaches_the_gradient_packed_or_not(binarizer):
    conv = OneBitConv2d(2, 2, 1, binarizer=binarizer)
    x = torch.zeros(1, 2, 3, 3)
    x[0, 1, 1, 1] = torch.nan
    for pack in (False, True):
        grad = gradients(conv, x, torch.ones(1, 2, 3, 3), pack)[1]
        assert grad[0, 1, 1, 1].isnan()
        assert grad.isnan().sum() == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    for binarizer in WITH_INPUT:
        conv = OneBitConv2d(4, 4, 3, binarizer=binarizer).to(dtype)
        x = torch.randn(1, 4, 6, 6).to(dtype)
        grad = torch.randn(1, 4, 4, 4).to(dtype)
        for a, b in zip(gradients(conv, x, grad, False), gradients(conv, x, grad, True), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("binarizer", WITH_INPUT)
def test_autocast(binarizer):
    torch.manual_seed(0)
    conv, x = OneBitConv2d(4, 4, 3, binarizer=binarizer), torch.randn(1, 4, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, packed = (
            gradients(conv, x, torch.ones(1, 4, 4, 4, dtype=torch.bfloat16), pack) for pack in (False, True)
        )
    for a, b in zip(plain, packed, strict=True):
        assert torch.equal(a, b)


def kept_bytes(conv, x):
    """What autograd keeps of the input: everything but the weights' own tensors."""
    weights = {p.data_ptr() for p in conv.parameters()}
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(0 if t.data_ptr() in weights else t.nbytes) or t, lambda t: t
    ):
        y = conv(x.requires_grad_())
    return sum(size for size in saved if size != conv.weight.nbytes), y  # nor the quantized weights


#: Bytes per value: a bit for the sign (k bits for a code), and a bit for the mask; of ApproxSign
#: three bytes more where |x| < 1, which holds for 68.3 % of normal values.
BYTES = {"dorefa2": 3 / 8, "dorefa4": 5 / 8, "bireal": 2 / 8 + 3 * 0.683, "reactnet": 2 / 8 + 3 * 0.683}
#: IR-Net's slope is 0 nowhere. XNOR-Net++ and EBN keep their output, to scale it; ReCU, RBNN and AdaBin keep what they
#: divide and multiply; FDA keeps the signs with noise, and what its noise is made of.
BYTES |= {"irnet": 2 / 8 + 4, "xnorpp": 2 / 8 + 4.5, "recu": 10.3, "adabin": 10.3, "fda": 15.1}
BYTES |= {"rebnn": BYTES["reactnet"], "rbonn": BYTES["reactnet"], "rbnn": 11.6, "ebn": 4.25}
UNPACKED = {"xnorpp": 12.5, "recu": 16, "adabin": 16, "fda": 16.3, "rbnn": 16, "ebn": 12}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("binarizer", WITH_INPUT)
def test_bytes_kept(binarizer, groups, monkeypatch):
    torch.manual_seed(0)
    conv = OneBitConv2d(32, 32, 1, groups=groups, binarizer=binarizer)
    x = torch.randn(8, 32, 16, 16)
    monkeypatch.setattr(integer_conv, "MIN_POSITIONS", 10**9)
    straightforward, _ = kept_bytes(conv, x)
    assert straightforward / x.numel() == pytest.approx(UNPACKED.get(binarizer, 8), rel=0.1)
    assert pack_activations(conv) == 1
    packed, _ = kept_bytes(conv, x)
    assert packed / x.numel() == pytest.approx(BYTES.get(binarizer, 2 / 8), rel=0.1, abs=0.1)
    if BYTES.get(binarizer, 0) < 2:
        assert straightforward / packed > 4


def test_a_whole_network_is_switched_and_learns_the_same():
    nets = []
    for pack in (False, True):
        torch.manual_seed(0)
        network = backbones.create_backbone("resnet18_w8_xnor", stem="cifar", out_indices=(2,))
        if pack:
            assert pack_activations(network) == 12
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            optimizer.zero_grad()
            network(images)[0].square().mean().backward()
            optimizer.step()
        nets.append(network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].values(), nets[1].values(), strict=True))
    assert pack_activations(network, False) == 12
    assert not any(
        m.pack_activations or m.quantize_input.pack for m in network.modules() if isinstance(m, OneBitConv2d)
    )


def test_switched_on_by_an_mmengine_hook():
    from mmengine.registry import HOOKS

    network = backbones.create_backbone("resnet18_w8_pcnn", out_indices=(0,))

    class Runner:
        model = network

    HOOKS.build(dict(type="onebit.PackActivationsHook")).before_train(Runner)
    assert all(m.pack_activations for m in network.modules() if isinstance(m, OneBitConv2d))


def test_convolutions_of_real_valued_activations_stay_as_they_are():
    conv = OneBitConv2d(4, 4, 3, binarizer="bnasxnorw1a32", pack_activations=True)
    assert pack_activations(conv) == 0
    conv(torch.randn(1, 4, 5, 5, requires_grad=True)).sum().backward()
    assert conv.weight.grad is not None
