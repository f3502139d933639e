"""The packed convolution against the training one: 1-bit sums are exact."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.packed.bits import pack_bits, unpack_bits
from onebit.backbones.packed.layers import PackedConv, SignWeightConv, is_plain, packed_conv
from onebit.commons.errors import InputError
from onebit.packed import engine

ONE_BIT = [
    name
    for name in BINARIZERS
    if OneBitConv2d(1, 1, 1, binarizer=name).weight_bits == 1 and OneBitConv2d(1, 1, 1, binarizer=name).input_bits == 1
]
#: Those whose values are -a and +a, without a scale of the output: the fast kernels are theirs.
PLAIN = [name for name in ONE_BIT if is_plain(OneBitConv2d(1, 1, 1, binarizer=name))]


def random_conv(binarizer: str, *shape, **options) -> OneBitConv2d:
    conv = OneBitConv2d(*shape, binarizer=binarizer, **options)
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter)
    return conv.eval()


def sums(conv: OneBitConv2d, x: torch.Tensor) -> torch.Tensor:
    """The sums of 1-bit products in float64, where they are exact."""
    signs = conv.quantize_input(x).double()
    weights = torch.where(conv.quantize_weight(conv.weight) > 0, 1.0, -1.0).double()
    top, left = conv.padding
    padded = F.pad(signs, (left, left, top, top), value=conv.pad_value)
    return F.conv2d(padded, weights, None, conv.stride, 0, conv.dilation)


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_sums_are_exact(kernels: str, data) -> None:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 10**6)))
    kernel = draw(st.sampled_from([1, 3, 5, (1, 3)]))
    conv = random_conv(
        draw(st.sampled_from(PLAIN)),
        draw(st.integers(1, 140)),
        draw(st.integers(1, 40)),
        kernel,
        stride=draw(st.sampled_from([1, 2, (2, 1)])),
        padding=draw(st.sampled_from([0, 1, (1, 2)])),
        dilation=draw(st.sampled_from([1, 2])),
        pad_value=draw(st.sampled_from([-1, 0, 1])),
    )
    size = draw(st.integers(9, 17)), draw(st.integers(9, 17))
    x = torch.randn(draw(st.integers(1, 3)), conv.in_channels, *size)
    x[torch.rand(x.shape) < 0.1] = 0
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        if kernels == "torch":
            patch.setattr(engine, "kernels", lambda: None)
        packed = PackedConv(conv)
        packed.scale.fill_(1)
        found = packed(x)
    assert torch.equal(found.double(), sums(conv, x))


@pytest.mark.parametrize("binarizer", ONE_BIT)
def test_output_is_that_of_the_training_convolution(binarizer: str) -> None:
    torch.manual_seed(0)
    conv = random_conv(binarizer, 70, 24, 3, padding=1)
    x = torch.randn(2, 70, 12, 11)
    with torch.no_grad():
        torch.testing.assert_close(packed_conv(conv)(x), conv(x), rtol=1e-5, atol=1e-4)


def test_several_threads_give_the_same() -> None:
    torch.manual_seed(0)
    packed = PackedConv(random_conv("reactnet", 70, 24, 3, padding=1))
    x = torch.randn(3, 70, 20, 11)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = packed(x)
        torch.set_num_threads(3)
        three = packed(x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, three)


@pytest.mark.parametrize("groups", [1, 12])
def test_real_valued_activations_keep_their_convolution(groups: int) -> None:
    torch.manual_seed(0)
    conv = random_conv("mcn", 12, 24, 3, padding=1, groups=groups, binarize_input=False)
    x = torch.randn(2, 12, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(SignWeightConv(conv)(x), conv(x))


def test_what_has_no_packed_form_is_refused() -> None:
    with pytest.raises(InputError, match="groups"):
        PackedConv(random_conv("bireal", 8, 8, 3, groups=2))
    with pytest.raises(InputError, match="32-bit activations"):
        PackedConv(random_conv("bireal", 8, 8, 3, binarize_input=False))
    conv = random_conv("bireal", 8, 8, 3)
    conv.quantize_weight = torch.nn.Identity()
    conv.quantize_weight.precision = 1
    with pytest.raises(InputError, match="more than one magnitude"):
        PackedConv(conv)
    with pytest.raises(InputError, match="too small"):
        PackedConv(random_conv("bireal", 8, 8, 5))(torch.zeros(1, 8, 4, 9))


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_bits_round_trip(values: list[bool]) -> None:
    flags = torch.tensor(values)
    words = pack_bits(flags)
    assert len(words) == -(-len(values) // 64)
    assert torch.equal(unpack_bits(words, (len(values),)), flags)


_ON_OTHER_PROCESSORS = """
import torch
from tests.backbones.packed.test_conv import random_conv, sums
from onebit.backbones.packed.layers import PackedConv
from onebit.packed import engine, kernels
print(kernels.PIXELS, kernels.VECTORS, engine.instructions().removeprefix("compiled by numba for "), sep=";")
torch.manual_seed(0)
for channels, filters in ((70, 24), (64, 9), (3, 40)):
    conv = random_conv("reactnet", channels, filters, 3, padding=1)
    x = torch.randn(2, channels, 10, 13)
    packed = PackedConv(conv)
    packed.scale.fill_(1)
    assert torch.equal(packed(x).double(), sums(conv, x))
"""


@pytest.mark.parametrize(
    ("features", "name"),
    [("+avx2,+avx,+popcnt,+fma,+sse4.2,+ssse3,+sse3", "AVX2"), ("+sse2", "this processor, without AVX2 or AVX-512")],
    ids=["without AVX-512", "without AVX"],
)
@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names features of x86-64")
def test_older_processors_give_the_same(features: str, name: str, tmp_path) -> None:
    environment = dict(os.environ, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", _ON_OTHER_PROCESSORS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"2;2;{name}"


def test_without_numba_it_is_said_and_works(tmp_path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')")
    code = """
import torch
from tests.backbones.packed.test_conv import random_conv
from onebit.backbones.packed.layers import PackedConv
conv = random_conv("bireal", 8, 8, 3)
x = torch.randn(1, 8, 6, 6)
torch.testing.assert_close(PackedConv(conv)(x), conv(x))
"""
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ, PYTHONPATH=path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "pip install numba" in done.stderr


@pytest.mark.slow
def test_without_a_cache_folder_it_is_said_and_works(tmp_path) -> None:
    code = """
from numba.core import caching
for locator in list(caching.CacheImpl._locator_classes):
    locator.from_function = classmethod(lambda *a, **k: None)
import torch
from tests.backbones.packed.test_conv import random_conv
from onebit.backbones.packed.layers import PackedConv
conv = random_conv("bireal", 8, 8, 3)
x = torch.randn(1, 8, 6, 6)
torch.testing.assert_close(PackedConv(conv)(x), conv(x))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr


@pytest.mark.parametrize("kernels", ["compiled", "torch"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("binarizer", ONE_BIT)
def test_a_norm_before_the_sign_moves_its_threshold(kernels: str, sign: int, binarizer: str, monkeypatch) -> None:
    """Norms of both signs of the scale, whose shift is as large as the thresholds, before every sign."""
    if kernels == "torch":
        monkeypatch.setattr(engine, "kernels", lambda: None)
    torch.manual_seed(0)
    conv = random_conv(binarizer, 70, 24, 3, padding=1)
    norm = torch.nn.BatchNorm2d(70).eval()
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    torch.nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data *= sign
    x = torch.randn(2, 70, 12, 11)
    with torch.no_grad():
        torch.testing.assert_close(packed_conv(conv, norm)(x), conv(norm(x)), rtol=1e-4, atol=1e-3)
