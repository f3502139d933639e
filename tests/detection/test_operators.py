"""The operators against slow loops written from their definitions."""

import importlib.machinery
import importlib.util
import math
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit import detection  # noqa: F401  (puts the fallback operators in)

# ruff: isort: split
from mmcv.ops import RoIAlign, batched_nms, nms, roi_align

from onebit.commons import mmcv_extension
from onebit.detection import operators, plain_operators


def bilinear(channel, y, x):
    """One sample of a map [H, W] at (y, x), as RoIAlign's definition wants it at the border."""
    height, width = channel.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy = 0.0 if top == height - 1 else y - top
    dx = 0.0 if left == width - 1 else x - left
    above = channel[top, left] * (1 - dx) + channel[top, right] * dx
    below = channel[bottom, left] * (1 - dx) + channel[bottom, right] * dx
    return float(above * (1 - dy) + below * dy)


def slow_roi_align(maps, rois, size, scale, sampling_ratio, aligned):
    out = torch.zeros(len(rois), maps.size(1), *size, dtype=maps.dtype)
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - (0.5 if aligned else 0) for c in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / size[0], width / size[1]
        n_y = sampling_ratio or math.ceil(bin_h)
        n_x = sampling_ratio or math.ceil(bin_w)
        for c in range(maps.size(1)):
            for i in range(size[0]):
                for j in range(size[1]):
                    total = sum(
                        bilinear(
                            maps[int(image), c],
                            y1 + i * bin_h + (a + 0.5) * bin_h / n_y,
                            x1 + j * bin_w + (b + 0.5) * bin_w / n_x,
                        )
                        for a in range(n_y)
                        for b in range(n_x)
                    )
                    out[k, c, i, j] = total / max(n_y * n_x, 1)
    return out


def random_rois(count, images, extent, generator):
    """Boxes of all sizes, some outside the image, one of them without area."""
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64) * 1.6 * extent
    corners = corners.sort(dim=1).values - 0.3 * extent
    corners[0, 1] = corners[0, 0]
    images = torch.randint(images, (count, 1), generator=generator).double()
    return torch.cat([images, corners.flatten(1)], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
def test_roi_align_is_its_definition(aligned, sampling_ratio):
    generator = torch.Generator().manual_seed(sampling_ratio)
    maps = torch.randn(2, 2, 9, 13, generator=generator, dtype=torch.float64)
    rois = random_rois(12, 2, 100.0, generator)
    expected = slow_roi_align(maps, rois, (3, 4), 1 / 8, sampling_ratio, aligned)
    found = roi_align(maps, rois, (3, 4), 1 / 8, sampling_ratio, "avg", aligned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    single = roi_align(maps.float(), rois.float(), (3, 4), 1 / 8, sampling_ratio, "avg", aligned)
    torch.testing.assert_close(single, expected.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_gradient(aligned, sampling_ratio):
    generator = torch.Generator().manual_seed(7)
    maps = torch.randn(2, 2, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    rois = random_rois(5, 2, 50.0, generator)
    torch.autograd.gradcheck(lambda m: roi_align(m, rois, (2, 3), 1 / 8, sampling_ratio, "avg", aligned), maps)


def test_roi_align_in_chunks_is_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, 3, 20, 20, generator=generator, requires_grad=True)
    rois = random_rois(30, 2, 160.0, generator).float()
    results = []
    for pairs in (plain_operators._ROI_PAIRS, 500):
        monkeypatch.setattr(plain_operators, "_ROI_PAIRS", pairs)
        out = roi_align(maps, rois, 7, 1 / 8, 0)
        (gradient,) = torch.autograd.grad(out.square().sum(), maps)
        results.append((out, gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-4)


def test_roi_align_without_boxes_and_with_none_on_an_image():
    maps = torch.randn(2, 3, 8, 8, requires_grad=True)
    assert roi_align(maps, torch.zeros(0, 5), 7).shape == (0, 3, 7, 7)
    far_off = torch.tensor([[1.0, 900, 900, 990, 990]])
    out = roi_align(maps, far_off, 7)
    assert not out.any()
    out.sum().backward()
    assert not maps.grad.any()


def test_the_module_mmdet_uses():
    maps = torch.arange(64.0).view(1, 1, 8, 8)
    layer = RoIAlign(output_size=2, spatial_scale=1.0, sampling_ratio=0)
    # The whole map in 2 x 2 bins: each is the mean of its quarter.
    found = layer(maps, torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]]))
    torch.testing.assert_close(found[0, 0], torch.tensor([[13.5, 17.5], [45.5, 49.5]]))


def slow_nms(boxes, scores, threshold, offset):
    def area(b):
        return (b[2] - b[0] + offset) * (b[3] - b[1] + offset)

    def overlap(a, b):
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
        union = area(a) + area(b) - width * height
        return width * height / union if union else 0.0

    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # stable: ties in given order
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=40),
    levels=st.integers(1, 6),
    threshold=st.sampled_from([0.1, 0.3, 0.55, 0.7]),
    offset=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
)
def test_nms_is_the_greedy_loop(boxes, levels, threshold, offset, seed):
    corners = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    scores = torch.randint(levels, (len(boxes),), generator=torch.Generator().manual_seed(seed))
    expected = slow_nms(corners, scores.tolist(), threshold, offset)
    found = plain_operators.nms(
        torch.tensor(corners, dtype=torch.float64).view(-1, 4), scores.double(), threshold, offset
    )
    assert found.tolist() == expected


@pytest.mark.parametrize("block", [1, 7, 256])
def test_nms_over_many_blocks(block, monkeypatch):
    monkeypatch.setattr(plain_operators, "_NMS_BLOCK", block)
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(300, 2, generator=generator, dtype=torch.float64) * 60
    boxes = torch.cat([corners, corners + 30 * torch.rand(300, 2, generator=generator).double()], 1)
    scores = (torch.rand(300, generator=generator, dtype=torch.float64) * 50).round()
    expected = slow_nms(boxes.tolist(), scores.tolist(), 0.5, 0)
    assert plain_operators.nms(boxes, scores, 0.5).tolist() == expected


@pytest.mark.parametrize("block", [2, 16, 256])
@pytest.mark.parametrize("offset", [0, 1])
def test_nms_of_boxes_that_lie_apart(block, offset, monkeypatch):
    """As mmcv's batched_nms hands them over: each class in a place of its own; some just touch."""
    monkeypatch.setattr(plain_operators, "_NMS_BLOCK", block)
    generator = torch.Generator().manual_seed(5)
    corners = torch.randint(20, (400, 2), generator=generator)
    boxes = torch.cat([corners, corners + torch.randint(12, (400, 2), generator=generator)], 1)
    boxes = (boxes + 30 * torch.randint(8, (400, 1), generator=generator)).double()
    boxes[7] = torch.tensor([5.0, 5, 3, 3])  # inverted
    scores = torch.randint(99, (400,), generator=generator).double()
    for threshold in (0.0, 0.5, 0.7):
        expected = slow_nms(boxes.tolist(), scores.tolist(), threshold, offset)
        assert plain_operators.nms(boxes, scores, threshold, offset).tolist() == expected
    if block == 2:
        assert len(plain_operators._apart(boxes, offset)) > 3


def test_nms_below_zero_keeps_one_box():
    boxes = torch.tensor([[0.0, 0, 1, 1], [50, 50, 60, 60], [90, 90, 99, 99]])
    assert plain_operators.nms(boxes, torch.tensor([0.1, 0.3, 0.2]), -0.5).tolist() == [1]


def test_nms_of_boxes_that_are_no_numbers():
    boxes = torch.full((600, 4), float("nan"))
    assert len(plain_operators.nms(boxes, torch.rand(600), 0.5)) == 600


def test_mmcv_calls_it():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.8, 0.9, 0.7])
    kept, indices = nms(boxes, scores, 0.5)
    assert indices.tolist() == [1, 2]
    assert kept[0].tolist() == pytest.approx([1, 1, 10, 10, 0.9])
    classes = torch.tensor([0, 1, 1])
    assert batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.5))[1].tolist() == [1, 0, 2]


@pytest.mark.skipif(operators.operator_status()["nms"] == "native", reason="mmcv is compiled here")
def test_other_operators_say_what_is_missing():
    from mmcv.ops import roi_pool

    with pytest.raises(NotImplementedError, match=r"roi_pool_forward needs a compiled mmcv"):
        roi_pool(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2)
    with pytest.raises(NotImplementedError, match="max RoIAlign"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2, 1.0, 0, "max")


class _Compiled:
    """A finder that has a compiled ``mmcv._ext`` to offer, as an installed one would."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mmcv._ext":
            return importlib.machinery.ModuleSpec(name, _Compiled)
        return None

    @staticmethod
    def create_module(spec):
        return ModuleType(spec.name)

    @staticmethod
    def exec_module(module):
        module.nms = "compiled"


def test_a_compiled_extension_wins(monkeypatch):
    finder = next(f for f in sys.meta_path if isinstance(f, mmcv_extension.ExtensionFinder))
    assert sys.meta_path.index(finder) > sys.meta_path.index(importlib.machinery.PathFinder)
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Compiled if f is finder else f for f in sys.meta_path] + [finder])
    assert importlib.import_module("mmcv._ext").nms == "compiled"
    assert set(operators.operator_status().values()) == {"native"}


def test_installing_twice_adds_one_finder():
    mmcv_extension.install("onebit.detection.operators")
    mmcv_extension.install("onebit.detection.operators")
    assert sum(isinstance(f, mmcv_extension.ExtensionFinder) for f in sys.meta_path) == 1


@pytest.mark.parametrize("at", [4.0, 4.001, -1.0, -1.001])
def test_roi_align_takes_samples_up_to_one_pixel_beyond_the_border(at):
    """A sample on the map's far edge, or one pixel before its start, counts; beyond it is 0."""
    maps = torch.arange(1.0, 17.0, dtype=torch.float64).view(1, 1, 4, 4)
    # One bin of one sample, in the middle of a box of one pixel.
    box = torch.tensor([[0.0, at - 0.5, 1.0, at + 0.5, 2.0]], dtype=torch.float64)
    found = roi_align(maps, box, 1, 1.0, 1, "avg", False)
    torch.testing.assert_close(found, slow_roi_align(maps, box, (1, 1), 1.0, 1, False))
    assert bool(found.any()) == (at in (4.0, -1.0))
