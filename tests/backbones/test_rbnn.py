"""RBNN against its formulas in numpy, float64, and the rotation against what it is to maximize."""

import math

import numpy as np
import pytest
import torch

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.binarization import get_binarizer
from onebit.backbones.binarization.rbnn import factors
from onebit.backbones.packed import deploy
from tests.backbones.reference import away_from_kinks, differences, filter_mean, near


def integral(x, t, k):
    """Of max(k (sqrt(2) t - t^2 |x|), 0), from 0."""
    x = np.clip(x, -math.sqrt(2) / t, math.sqrt(2) / t)
    return k * (math.sqrt(2) * t * x - t * t * x * np.abs(x) / 2)


def standardized(w):
    return (w - filter_mean(w)) / np.sqrt(w.var(axis=(1, 2, 3), ddof=1, keepdims=True))


def np_weights(w, w0, scale, angle, angle0, rotations, progress):
    def rotated(w, angle):
        u = standardized(w)
        matrices = u.reshape(len(u), len(rotations[0]), -1)
        r = np.einsum("ba,kbc,cd->kad", rotations[0], matrices, rotations[1]).reshape(w.shape)
        return u + np.abs(np.sin(angle)) * (r - u)

    t = 10 ** (-2 + 3 * progress)
    return scale * near(lambda v: integral(v, t, max(1 / t, 1)), rotated(w, angle), rotated(w0, angle0))


@pytest.mark.parametrize("progress", [0.0, 0.6, 1.0])
def test_weights_against_the_formula(progress):
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(3, 2, 3, 2)), rng.normal(size=(3, 2, 3, 2))
    quantizer = get_binarizer("rbnn").weight(3).double()
    weight = torch.from_numpy(w).requires_grad_()
    quantizer.fit(weight)
    np.testing.assert_allclose(quantizer.scale.detach(), filter_mean(np.abs(w)))
    backbones.set_progress(quantizer, progress)
    angle, scale = rng.uniform(0.2, 6, (3, 1, 1, 1)), rng.uniform(0.5, 1.5, (3, 1, 1, 1))
    quantizer.angle.data.copy_(torch.from_numpy(angle))
    quantizer.scale.data.copy_(torch.from_numpy(scale))
    quantized = quantizer(weight)  # which finds the rotations first
    rotations = [r.numpy() for r in (quantizer.rotation1, quantizer.rotation2)]
    assert [r.shape for r in rotations] == [(3, 3), (4, 4)]
    quantized.backward(torch.from_numpy(g))
    at = (w, w, scale, angle, angle, rotations, progress)
    np.testing.assert_allclose(quantized.detach(), np_weights(*at), rtol=1e-12)
    expected = differences(lambda v: (g * np_weights(v, *at[1:])).sum(), w)
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-4, atol=1e-6)
    expected = differences(lambda v: (g * np_weights(*at[:3], v, *at[4:])).sum(), angle)
    np.testing.assert_allclose(quantizer.angle.grad, expected, rtol=1e-4, atol=1e-6)
    expected = differences(lambda v: (g * np_weights(*at[:2], v, *at[3:])).sum(), scale)
    np.testing.assert_allclose(quantizer.scale.grad, expected, rtol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.8])
def test_activations_against_the_formula(progress):
    rng = np.random.default_rng(1)
    x, g = away_from_kinks(rng, (2, 3, 2, 3)), rng.normal(size=(2, 3, 2, 3))
    quantizer = get_binarizer("rbnn").input(3).double()
    backbones.set_progress(quantizer, progress)
    leaf = torch.from_numpy(x).requires_grad_()
    quantizer(leaf).backward(torch.from_numpy(g))
    t = max(10 ** (-2 + 3 * progress), 1)

    def value(v):
        unit, unit0 = (u / np.sqrt(u.var(axis=(1, 2, 3), ddof=1, keepdims=True) + 1e-5) for u in (v, x))
        return (g * near(lambda u: integral(u, t, 1), unit, unit0)).sum()

    np.testing.assert_allclose(leaf.grad, differences(value, x), rtol=1e-4, atol=1e-6)


def aligned(matrices, one, two):
    """What the rotations maximize."""
    return np.abs(one.T @ matrices @ two).sum()


def test_rotation_aligns_weights_with_their_signs_better_with_every_round():
    torch.manual_seed(0)
    conv = OneBitConv2d(7, 20, 3, binarizer="rbnn").double()
    quantizer = conv.quantize_weight
    u = standardized(conv.weight.detach().numpy()).reshape(20, 7, 9)
    found = [aligned(u, quantizer.rotation1.numpy(), quantizer.rotation2.numpy())]
    for fraction in (0, 0.1, 0.2):
        backbones.set_progress(conv, fraction)
        conv(torch.randn(1, 7, 4, 4, dtype=torch.float64))
        one, two = quantizer.rotation1.numpy(), quantizer.rotation2.numpy()
        for rotation in (one, two):
            np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-10)
        found.append(aligned(u, one, two))
    assert found[1] > 1.02 * found[0]
    assert found[1] < found[2] < found[3]


def test_rotations_change_when_the_progress_does_in_training_only():
    torch.manual_seed(0)
    conv, x = OneBitConv2d(4, 8, 3, binarizer="rbnn"), torch.randn(1, 4, 5, 5)
    quantizer = conv.quantize_weight

    def changes():
        before = quantizer.rotation1.clone(), quantizer.rotation2.clone()
        conv(x)
        return not (torch.equal(before[0], quantizer.rotation1) and torch.equal(before[1], quantizer.rotation2))

    backbones.set_progress(conv, 0.5)
    conv.eval()
    assert not changes()
    conv.train()
    assert changes()
    assert not changes()
    backbones.set_progress(conv, 0.5004)  # the next step of a training that counts steps
    assert not changes()
    backbones.set_progress(conv, 0.51)
    assert changes()


def test_no_rotation_is_left_in_the_packed_form_or_in_its_cost():
    torch.manual_seed(0)
    conv = OneBitConv2d(70, 6, 3, padding=1, binarizer="rbnn")
    x = torch.randn(1, 70, 5, 5)
    conv(x)
    conv.eval()
    with torch.no_grad():
        packed = deploy(conv)
        torch.testing.assert_close(packed(x), conv(x), rtol=1e-5, atol=1e-5)
    assert not any("rotation" in name for name in packed.state_dict())
    ours, irnet = (backbones.cost(OneBitConv2d(8, 8, 3, binarizer=name), (8, 9, 9)) for name in ("rbnn", "irnet"))
    assert (ours.bops, ours.flops) == (irnet.bops, irnet.flops)


def test_factors_are_as_close_as_they_can_be():
    for count in (1, 7, 9, 36, 50, 576, 4608):
        a, b = factors(count)
        assert a * b == count
        assert a <= b
        assert not any(count % n == 0 for n in range(a + 1, math.isqrt(count) + 1))
