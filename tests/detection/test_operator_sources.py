"""Each operator by plain torch, by torchvision's compiled ones and by stand-ins that take torchvision's arguments.

The expected numbers are those of mmcv's own tests; they were also compared with its operators compiled for CPUs.
"""

import sys

import pytest
import torch

from onebit import detection  # noqa: F401  (puts the operators in)

# ruff: isort: split
from mmcv.ops import (
    CARAFE,
    DeformConv2dPack,
    MaskedConv2d,
    ModulatedDeformConv2dPack,
    batched_nms,
    carafe,
    deform_conv2d,
    modulated_deform_conv2d,
    nms,
    nms_match,
    roi_align,
    sigmoid_focal_loss,
    soft_nms,
)

from onebit.commons.compat import ensure_torchvision
from onebit.detection import operators, plain_convs
from onebit.leaderboards import cli
from tests.detection.test_operators import _Compiled, random_rois, slow_nms, slow_roi_align

pytestmark = pytest.mark.skipif(operators.operator_status()["nms"] == "native", reason="mmcv is compiled here")


class StandIns:
    """Operators with the arguments of torchvision's, by slow loops; ``calls`` names those that were called."""

    def __init__(self):
        self.calls = set()

    def find(self, name, device):
        def called(*arguments):
            self.calls.add(name)
            return getattr(self, name)(*arguments)

        return called

    def nms(self, dets, scores, iou_threshold):
        return torch.tensor(slow_nms(dets.tolist(), scores.tolist(), iou_threshold, 0), dtype=torch.long)

    def roi_align(self, input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
        assert (rois[:, 3:] >= rois[:, 1:3]).all() or sampling_ratio > 0
        return slow_roi_align(input, rois, (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned)

    def _roi_align_backward(self, grad, rois, scale, height, width, n, channels, h, w, sampling_ratio, aligned):
        # The operator is linear in the map: its gradient is what every single pixel pools to.
        gradient = grad.new_zeros(n, channels, h, w)
        for pixel in range(n * h * w):
            map_ = grad.new_zeros(n * h * w)
            map_[pixel] = 1
            pooled = slow_roi_align(map_.view(n, 1, h, w), rois, (height, width), scale, sampling_ratio, aligned)
            image, y, x = pixel // (h * w), pixel % (h * w) // w, pixel % w
            gradient[image, :, y, x] = (grad * pooled).sum((0, 2, 3))
        return gradient

    _deform_conv2d_backward = "asked for by its name only: autograd calls it"

    def deform_conv2d(
        self, input, weight, offset, mask, bias, sy, sx, py, px, dy, dx, groups, deform_groups, modulated
    ):
        sizes = (sy, sx), (py, px), (dy, dx), groups, deform_groups
        assert mask.shape == ((len(input), offset.size(1) // 2, *offset.shape[2:]) if modulated else (len(input), 1))
        out = plain_convs.deform_conv2d(input, weight, offset, mask if modulated else None, *sizes)
        return out + bias[:, None, None]


@pytest.fixture(params=["plain", "torchvision", "stand-in"])
def source(request, monkeypatch):
    """Whose operators do the work; those of torchvision only where it is compiled for this torch."""
    if request.param == "torchvision":
        if not ensure_torchvision():
            pytest.skip("torchvision's operators do not load here")
        yield
        return
    stand_ins = StandIns()
    monkeypatch.setattr(operators, "_kernel", stand_ins.find if request.param == "stand-in" else lambda *_: None)
    yield
    assert bool(stand_ins.calls) == (request.param == "stand-in")


BOXES = torch.tensor([[6.0, 3, 8, 7], [3, 6, 9, 11], [3, 7, 10, 12], [1, 4, 13, 7]])
SCORES = torch.tensor([0.6, 0.9, 0.7, 0.2])


def test_nms(source):
    kept, indices = nms(BOXES, SCORES, 0.3)
    assert indices.tolist() == [1, 0, 3]
    torch.testing.assert_close(kept, torch.cat([BOXES, SCORES[:, None]], 1)[indices])
    # With a last pixel that counts, the first box covers 3 * 2 of 7 * 6 + 3 * 5 - 6 pixels of the second one.
    assert nms(BOXES, SCORES, 6 / 51 - 0.01, offset=1)[1].tolist() == [1]
    assert nms(BOXES, SCORES, 0.3, max_num=2)[1].tolist() == [1, 0]
    assert nms(BOXES[:0], SCORES[:0], 0.3)[1].tolist() == []
    assert nms(BOXES.half(), SCORES.half(), 0.3)[1].tolist() == [1, 0, 3]


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_by_class(source, offset):
    generator = torch.Generator().manual_seed(offset)
    corners = torch.randint(40, (60, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(1, 20, (60, 2), generator=generator)], 1).float()
    scores = torch.randperm(60, generator=generator) / 60
    classes = torch.randint(3, (60,), generator=generator)
    expected = []
    for label in range(3):
        members = (classes == label).nonzero().flatten()
        kept = slow_nms(boxes[members].tolist(), scores[members].tolist(), 0.4, offset)
        expected += members[kept].tolist()
    how = dict(type="nms", iou_threshold=0.4, offset=offset)
    found = batched_nms(boxes, scores, classes, how)[1].tolist()
    assert found == sorted(expected, key=lambda index: -scores[index])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align(source, aligned, sampling_ratio):
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = random_rois(3, 2, 24.0, generator)
    rois[1, 1], rois[1, 3] = 20, 6  # inverted along x: nothing is sampled where the number of samples follows the size
    expected = slow_roi_align(maps.detach(), rois, (2, 3), 1 / 8, sampling_ratio, aligned)
    found = roi_align(maps, rois, (2, 3), 1 / 8, sampling_ratio, "avg", aligned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.autograd.gradcheck(
        lambda m: roi_align(m, rois, (2, 3), 1 / 8, sampling_ratio, "avg", aligned), maps, fast_mode=True
    )


def test_roi_align_of_half_precision_does_not_round_boxes(source):
    maps = torch.randn(1, 1, 4, 300, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 257.3, 0.4, 259.9, 3.7]])
    found = roi_align(maps.half(), rois, 2)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), roi_align(maps, rois, 2), rtol=0, atol=3e-3)


def test_deform_conv(source):
    """The numbers of mmcv's own test."""
    conv = DeformConv2dPack(1, 1, 2, padding=0)
    offset_weight = [
        *([0.1, 0.4, 0.6, 0.1], [0.3, 0.2, 0.1, 0.3], [0.5, 0.5, 0.2, 0.8], [0.8, 0.3, 0.9, 0.1]),
        *([0.3, 0.1, 0.2, 0.5], [0.3, 0.7, 0.5, 0.3], [0.6, 0.2, 0.5, 0.3], [0.4, 0.1, 0.8, 0.4]),
    ]
    conv.conv_offset.weight.data = torch.tensor(offset_weight).view(8, 1, 2, 2)
    conv.conv_offset.bias.data = torch.tensor([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7])
    conv.weight.data = torch.tensor([0.4, 0.2, 0.1, 0.9]).view(1, 1, 2, 2)
    image = torch.tensor([[1.0, 2, 3], [0, 1, 2], [3, 5, 2]]).repeat(10, 1, 1, 1).requires_grad_()
    out = conv(image)
    out.sum().backward()
    close = dict(rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(out, torch.tensor([[1.65, 0], [0, 0]]).expand_as(out), **close)
    expected = torch.tensor([[-0.666, 0.204, 0], [0.03, -0.416, 0.012], [0, 0.252, 0.129]])
    torch.testing.assert_close(image.grad, expected.expand_as(image), **close)
    bias = torch.tensor([1.44, -0.72, 0, 0, -0.1, -0.08, -0.54, -0.54])
    torch.testing.assert_close(conv.conv_offset.bias.grad / 10, bias, **close)
    expected = bias.view(8, 1, 1, 1) * torch.tensor([[1.0, 2], [0, 1]])
    torch.testing.assert_close(conv.conv_offset.weight.grad / 10, expected, **close)
    expected = torch.tensor([[3.62, 0], [0.4, 0.18]])
    torch.testing.assert_close(conv.weight.grad[0, 0] / 10, expected, **close)


def test_modulated_deform_conv(source):
    """The numbers of mmcv's own test: offsets of 0, some taps exactly one pixel before the map."""
    conv = ModulatedDeformConv2dPack(1, 1, 2, padding=1, bias=False)
    conv.weight.data.fill_(1)
    image = torch.tensor([1.0, 2, 3]).repeat(1, 1, 3, 1).requires_grad_()
    out = conv(image)
    out.sum().backward()
    expected = torch.tensor([[0.5, 1.5, 2.5, 1.5], [1, 3, 5, 3], [1, 3, 5, 3], [0.5, 1.5, 2.5, 1.5]])
    torch.testing.assert_close(out[0, 0], expected)
    torch.testing.assert_close(image.grad, torch.full_like(image, 2))
    torch.testing.assert_close(conv.weight.grad, torch.full_like(conv.weight, 9))
    expected = torch.tensor([-3.0, -1.5, -3, -1.5, -3, -1.5, -3, -1.5, 4.5, 4.5, 4.5, 4.5])
    torch.testing.assert_close(conv.conv_offset.bias.grad, expected)
    expected = torch.tensor([[-9.0, 7.5], [-6, 5]])
    torch.testing.assert_close(conv.conv_offset.weight.grad[1, 0], expected)


@pytest.mark.parametrize(
    ("groups", "deform_groups", "stride", "padding", "dilation"),
    [(1, 1, 1, 1, 1), (2, 4, (2, 1), (1, 2), 1), (1, 2, 1, 2, (2, 1))],
)
def test_deform_conv_by_grid_sample(source, groups, deform_groups, stride, padding, dilation):
    """Against torch's own sampler, tap by tap; and the gradients against differences."""
    generator = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    pair = torch.nn.modules.utils._pair
    (sy, sx), (py, px), (dy, dx) = pair(stride), pair(padding), pair(dilation)
    image, weight, bias = random(2, 4, 6, 7), random(4, 4 // groups, 3, 2), random(4)
    height, width = (6 + 2 * py - 2 * dy - 1) // sy + 1, (7 + 2 * px - dx - 1) // sx + 1
    offset = random(2, deform_groups * 12, height, width)
    mask = random(2, deform_groups * 6, height, width).sigmoid()
    columns = []
    for tap in range(6):
        parts = []
        for group, part in enumerate(image.chunk(deform_groups, 1)):
            moved = offset[:, (group * 6 + tap) * 2 :][:, :2]
            y = (torch.arange(height) * sy - py + tap // 2 * dy)[:, None] + moved[:, 0]
            x = torch.arange(width) * sx - px + tap % 2 * dx + moved[:, 1]
            grid = torch.stack([(2 * x + 1) / 7 - 1, (2 * y + 1) / 6 - 1], -1)
            sampled = torch.nn.functional.grid_sample(part, grid, align_corners=False)
            parts.append(sampled * mask[:, group * 6 + tap, None])
        columns.append(torch.cat(parts, 1))
    columns = torch.stack(columns, 2).unflatten(1, (groups, -1))
    expected = torch.einsum("ngcthw,goct->ngohw", columns, weight.view(groups, 4 // groups, 4 // groups, 6)).flatten(
        1, 2
    )
    sizes = (stride, padding, dilation, groups, deform_groups)
    found = modulated_deform_conv2d(image, offset, mask, weight, bias, *sizes)
    torch.testing.assert_close(found, expected + bias[:, None, None])
    ones = torch.ones_like(mask)
    plain = deform_conv2d(image, offset, weight, *sizes)
    torch.testing.assert_close(plain, modulated_deform_conv2d(image, offset, ones, weight, None, *sizes))
    leaves = [tensor.requires_grad_() for tensor in (image, offset, mask, weight, bias)]
    torch.autograd.gradcheck(lambda *given: modulated_deform_conv2d(*given, *sizes), leaves, fast_mode=True)
    torch.autograd.gradcheck(lambda *given: deform_conv2d(*given, *sizes), (image, offset, weight), fast_mode=True)


def test_deform_conv_reads_the_leading_offsets_of_a_larger_map(source):
    """As mmcv's compiled operator does (compared with it once); DyHead relies on it."""
    generator = torch.Generator().manual_seed(0)
    image, weight = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 3, 3, 3, generator=generator)
    offset, mask = (torch.randn(2, taps, 8, 10, generator=generator, requires_grad=True) for taps in (18, 9))
    read = offset.flatten(1)[:, : 18 * 20].view(2, 18, 4, 5)
    weighed = mask.flatten(1)[:, : 9 * 20].view(2, 9, 4, 5)
    found, expected = (
        modulated_deform_conv2d(image, o, m, weight, None, 1, 1) for o, m in ((offset, mask), (read, weighed))
    )
    assert torch.equal(found, expected)
    for ours, theirs in zip(
        *(torch.autograd.grad(out.sum(), (offset, mask)) for out in (found, expected)), strict=True
    ):
        assert torch.equal(ours, theirs)
    with pytest.raises(RuntimeError):
        modulated_deform_conv2d(image, offset[..., :3, :3], mask, weight, None, 1, 1)


@pytest.mark.parametrize(
    ("method", "indices", "scores"),
    [
        ("linear", [1, 0, 2, 3], [0.9, 0.6, 0.29024392, 0.2]),
        ("gaussian", [1, 0, 2, 3], [0.9, 0.59630775, 0.35275510, 0.18650459]),
        ("naive", [1, 0, 3], [0.9, 0.6, 0.2]),
    ],
)
def test_soft_nms(method, indices, scores):
    """The numbers of mmcv's own test."""
    kept, found = soft_nms(BOXES, SCORES, iou_threshold=0.3, sigma=0.5, min_score=0.01, method=method)
    assert found.tolist() == indices
    torch.testing.assert_close(kept, torch.cat([BOXES[indices], torch.tensor(scores)[:, None]], 1))
    assert len(soft_nms(BOXES[:0], SCORES[:0])[0]) == 0
    assert soft_nms(BOXES, SCORES, iou_threshold=0.3, min_score=0.25, method=method)[1].tolist() == [
        index for index, score in zip(indices, scores, strict=True) if score >= 0.25
    ]


def test_nms_match():
    """The boxes of mmcv's own test."""
    boxes = [[49.1, 32.4, 51, 35.9, 0.9], [49.3, 32.9, 51, 35.3, 0.9], [35.3, 11.5, 39.9, 14.5, 0.4]]
    boxes.append([35.2, 11.7, 39.7, 15.7, 0.3])
    assert [group.tolist() for group in nms_match(torch.tensor(boxes), 0.5)] == [[0, 1], [2, 3]]
    assert [group.tolist() for group in nms_match(torch.tensor(boxes), 0.9)] == [[0], [1], [2], [3]]
    # An overlap of exactly the threshold matches.
    assert len(nms_match(torch.tensor([[0.0, 0, 2, 1, 0.9], [0, 0, 1, 1, 0.8]]), 0.5)) == 1


def test_carafe():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, 2 * 9, 6, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(2, 4, 6, 8, dtype=torch.float64)
    padded = torch.nn.functional.pad(features.detach(), (1, 1, 1, 1))
    for channel in range(4):
        for y in range(6):
            for x in range(8):
                window = padded[:, channel, y // 2 : y // 2 + 3, x // 2 : x // 2 + 3]
                weights = masks.detach()[:, channel // 2 * 9 :][:, :9, y, x].view(2, 3, 3)
                expected[:, channel, y, x] = (window * weights).sum((1, 2))
    torch.testing.assert_close(carafe(features, masks, 3, 2, 2), expected)
    torch.autograd.gradcheck(CARAFE(3, 2, 2), (features, masks), fast_mode=True)


@pytest.mark.parametrize("padding", [0, 1])
def test_masked_conv(padding):
    conv = MaskedConv2d(3, 2, 3, padding=padding).eval()
    image = torch.randn(1, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(1, 7, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    everywhere = torch.nn.functional.conv2d(image, conv.weight, conv.bias, padding=padding)
    part = mask[:, None, : everywhere.size(2), : everywhere.size(3)]
    torch.testing.assert_close(conv(image, mask), everywhere * part)


def test_sigmoid_focal_loss():
    """The numbers of mmcv's own test."""
    x = torch.tensor([[1.0, 0, -1], [0, 1, 2]], requires_grad=True)
    loss = sigmoid_focal_loss(x, torch.tensor([2, 1]), 2.0, 0.25, None, "mean")
    loss.backward()
    assert loss.item() == pytest.approx(1.10251057)
    expected = [[0.28808805, 0.11185755, -0.09602935], [0.11185755, -0.00657264, 0.40376765]]
    torch.testing.assert_close(x.grad, torch.tensor(expected), rtol=1e-5, atol=0)
    # The background (a target of 3) makes every class a wrong one and has no factor of its own.
    weights = torch.tensor([1.0, 1, 5])
    plain, weighted = (
        sigmoid_focal_loss(x, torch.tensor([2, 3]), 2.0, 0.25, weight, "none") for weight in (None, weights)
    )
    torch.testing.assert_close(weighted, plain * torch.tensor([[5.0], [1]]))


@pytest.fixture
def fresh_kernels():
    operators._kernel.cache_clear()
    yield
    operators._kernel.cache_clear()


def test_the_order_of_sources(fresh_kernels, monkeypatch):
    monkeypatch.setattr(operators, "ensure_torchvision", lambda: False)
    assert set(operators.operator_status().values()) == {"fallback"}
    assert "do not load" in operators.operator_sources()["nms"][1]
    monkeypatch.setattr(operators, "ensure_torchvision", lambda: True)
    monkeypatch.setattr(torch.ops, "torchvision", StandIns())
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda name, key: key == "CPU")
    operators._kernel.cache_clear()
    by_torchvision = {name for name, status in operators.operator_status().items() if status == "torchvision"}
    assert by_torchvision == {
        *("nms", "roi_align_forward", "roi_align_backward", "deform_conv_forward", "deform_conv_backward_input"),
        *("deform_conv_backward_parameters", "modulated_deform_conv_forward", "modulated_deform_conv_backward"),
    }
    assert operators.operator_sources()["softnms"] == (
        "fallback",
        "mmcv is not compiled, and torchvision has no such operator",
    )
    assert operators.operator_sources("cuda")["nms"] == (
        "fallback",
        "neither mmcv nor torchvision is compiled for cuda",
    )
    monkeypatch.setattr(sys, "meta_path", [_Compiled, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    assert set(operators.operator_status().values()) == {"native"}


def test_doctor_names_the_source_of_every_operator(capsys, tmp_path):
    assert cli.main(["doctor", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (status, reason) in operators.operator_sources().items():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert status in line
        assert reason in line
