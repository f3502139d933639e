"""NMS, its relatives and RoIAlign in plain torch, for any device, in the form that mmcv calls.

:mod:`onebit.detection.operators` hands them to mmcv where neither mmcv nor torchvision has a compiled one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: NMS compares this many boxes with all that follow at a time: the size of its only big matrix.
_NMS_BLOCK = 256
#: RoIAlign writes down at most this many (bin, pixel) pairs at a time.
_ROI_PAIRS = 2**22


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression, as ``mmcv.ops.nms`` calls it.

    The result is that of the usual loop over boxes by falling score (equal scores in their given
    order). Boxes that lie apart are never compared: mmcv moves the boxes of each class or FPN level
    to a place of their own and has them all suppressed in one call.

    Args:
        bboxes: [N, 4] corners (x1, y1, x2, y2).
        scores: [N].
        iou_threshold: a box is dropped when its IoU with a kept one is larger than this.
        offset: 0, or 1 for boxes whose last pixel counts (width x2 - x1 + 1).

    Returns:
        [K] indices into ``bboxes`` of the kept ones, by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = bboxes[order]
    kept = torch.zeros(len(order), dtype=torch.bool, device=boxes.device)
    # Below 0 even boxes without overlap suppress each other.
    parts = _apart(boxes, offset) if iou_threshold >= 0 else [torch.arange(len(order), device=boxes.device)]
    for part in parts:
        kept[part[_greedy(boxes[part], iou_threshold, offset)]] = True
    return order[kept]


def _apart(boxes: Tensor, offset: int) -> list[Tensor]:
    """Split boxes [N, 4] into sets without any overlap between them along x.

    Returns:
        ascending indices; of at least ``_NMS_BLOCK`` boxes each (the last one of fewer), because
        that many are compared at a time anyway.
    """
    by_left = boxes[:, 0].argsort()
    left, reach = boxes[by_left, 0], boxes[by_left, 2].cummax(dim=0).values
    starts = 1 + ((reach[:-1] - left[1:]) + offset <= 0).nonzero().flatten()
    cuts = [0]
    for start in starts.tolist():
        if start - cuts[-1] >= _NMS_BLOCK:
            cuts.append(start)
    sizes = [end - start for start, end in zip(cuts, [*cuts[1:], len(boxes)], strict=True)]
    return [part.sort().values for part in by_left.split(sizes)]


def _greedy(boxes: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Positions of the boxes that stay, of boxes [N, 4] by falling score.

    Blocks of boxes are resolved together: within a block, "kept" is iterated from all-true until it
    no longer changes, which happens after as many steps as the longest chain of suppressions, and
    is then the greedy answer.
    """
    order = torch.arange(len(boxes), device=boxes.device)
    kept = [order[:0]]
    while len(boxes):
        block = boxes[:_NMS_BLOCK]
        suppresses = _iou(block, boxes, offset) > iou_threshold
        within = suppresses[:, : len(block)].triu(diagonal=1)
        keep = torch.ones(len(block), dtype=torch.bool, device=boxes.device)
        while True:
            update = ~(within & keep[:, None]).any(dim=0)
            if torch.equal(update, keep):
                break
            keep = update
        kept.append(order[: len(block)][keep])
        survives = ~suppresses[keep][:, len(block) :].any(dim=0)
        boxes, order = boxes[len(block) :][survives], order[len(block) :][survives]
    return torch.cat(kept)


def _iou(first: Tensor, second: Tensor, offset: int) -> Tensor:
    """[M, 4], [N, 4] -> [M, N]; an empty union gives NaN, which is never above a threshold."""
    a, b = first.t()[:, :, None], second.t()[:, None, :]  # x1, y1, x2, y2
    width, height = (
        (torch.minimum(a[i + 2], b[i + 2]).sub_(torch.maximum(a[i], b[i])).add_(offset).clamp_(min=0)) for i in (0, 1)
    )
    intersection = width.mul_(height)
    area_a, area_b = ((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b))
    return intersection / (area_a + area_b - intersection)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft NMS (Bodla et al., 2017): a box's score falls with its overlap with every box that is kept before it.

    Args:
        boxes, scores: [N, 4] and [N].
        dets: [N, 5]; its first K rows become the boxes with their lowered scores, in the order of keeping.
        iou_threshold: where ``naive`` and ``linear`` begin to lower.
        sigma: of ``gaussian``.
        min_score: a box is dropped when its score has been lowered below this.
        method: 0 ``naive``, 1 ``linear``, 2 ``gaussian``.
        offset: 0, or 1 for boxes whose last pixel counts.

    Returns:
        [K] indices of the kept boxes. Equal scores are taken in their given order.
    """
    left = torch.arange(len(boxes), device=boxes.device)
    scores = scores.clone()
    kept = []
    while len(left):
        best = scores[left].argmax()
        box = left[best]
        dets[len(kept), :4], dets[len(kept), 4] = boxes[box], scores[box]
        kept.append(box)
        left = torch.cat([left[:best], left[best + 1 :]])
        overlap = _iou(boxes[box, None], boxes[left], offset)[0]
        if method == 2:
            factor = torch.exp(-overlap.square() / sigma)
        else:
            lowered = torch.zeros_like(overlap) if method == 0 else 1 - overlap
            factor = torch.where(overlap >= iou_threshold, lowered, 1)
        scores[left] *= factor
        left = left[scores[left] >= min_score]
    return torch.stack(kept) if kept else left


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """NMS that tells for every kept box which ones it suppressed.

    Args:
        dets: [N, 5] boxes with their scores.
        iou_threshold: a box is suppressed when its IoU with a kept one is at least this (:func:`nms`: larger than).

    Returns:
        one list for each kept box, by falling score: its index, then those of the boxes that it suppressed.
    """
    left = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(left):
        first, left = left[0], left[1:]
        suppressed = _iou(dets[first, None, :4], dets[left, :4], 0)[0] >= iou_threshold
        groups.append([int(first), *left[suppressed].tolist()])
        left = left[~suppressed]
    return groups


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average RoIAlign of ``input`` [N, C, H, W] at ``rois`` [K, 5] into ``output`` [K, C, h, w].

    Every output bin is a fixed weighted sum of pixels, so the whole operator is a sparse matrix
    (bins x pixels) times the pixels' feature vectors; the backward pass is its transpose. The
    matrix is built for as many RoIs at a time as ``_ROI_PAIRS`` allows.

    Raises:
        NotImplementedError: max pooling (``pool_mode`` 0).
    """
    _only_average(pool_mode)
    size = (aligned_height, aligned_width)
    flat = output.view(len(rois), output.size(1), size[0] * size[1])
    for image, chunk, bins, pixels, weights in _bin_weights(
        rois, size, input.shape[2:], spatial_scale, sampling_ratio, aligned, input.dtype
    ):
        features = input[image].flatten(1).t().contiguous()
        pooled = _sparse_product(bins, pixels, weights, features, len(chunk) * flat.size(2))
        flat[chunk] = pooled.view(len(chunk), flat.size(2), -1).transpose(1, 2)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input`` [N, C, H, W].

    Raises:
        NotImplementedError: max pooling (``pool_mode`` 0).
    """
    _only_average(pool_mode)
    size = (aligned_height, aligned_width)
    channels, shape = grad_input.size(1), grad_input.shape[2:]
    for image, chunk, bins, pixels, weights in _bin_weights(
        rois, size, shape, spatial_scale, sampling_ratio, aligned, grad_input.dtype
    ):
        gradient = grad_output[chunk].flatten(2).transpose(1, 2).reshape(-1, channels)
        order = pixels.argsort()
        product = _sparse_product(pixels[order], bins[order], weights[order], gradient, shape.numel())
        grad_input[image] += product.t().view(channels, *shape)


def _only_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError("max RoIAlign needs a compiled mmcv; without one there is average only")


def _sparse_product(rows: Tensor, columns: Tensor, values: Tensor, dense: Tensor, n_rows: int) -> Tensor:
    """Sparse [n_rows, P] with ``rows`` sorted, times ``dense`` [P, C] -> [n_rows, C]."""
    starts = torch.searchsorted(rows, torch.arange(n_rows, device=rows.device))
    return functional.embedding_bag(columns, dense, starts, mode="sum", per_sample_weights=values.to(dense.dtype))


def _bin_weights(rois, size, shape, spatial_scale, sampling_ratio, aligned, dtype):
    """Yield (image, RoI indices [k], bins [P], pixels [P], weights [P]) with ``bins`` sorted.

    ``bins`` counts the output cells of these k RoIs in row-major order, ``pixels`` the cells of one
    feature map. Bilinear interpolation is separable and so is the average over a bin's samples:
    a pixel's weight is the product of a weight along y and one along x.
    """
    # Coordinates keep their own precision: half-precision features must not round boxes further.
    boxes = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    extent = boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        extent = extent.clamp(min=1)
    images = rois[:, 0].long()
    for image in images.unique().tolist():
        members = (images == image).nonzero().flatten()
        longest = (extent[members] / extent.new_tensor([size[1], size[0]])).amax(dim=0)
        taps = [min(int(t) + 3, n) for t, n in zip(longest.ceil().tolist(), shape[::-1], strict=True)]
        pairs = size[0] * size[1] * taps[0] * taps[1]
        for chunk in members.split(max(1, _ROI_PAIRS // pairs)):
            (y, weight_y), (x, weight_x) = (
                _axis_weights(boxes[chunk, axis], extent[chunk, axis], size[1 - axis], shape[1 - axis], sampling_ratio)
                for axis in (1, 0)
            )
            weights = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
            pixels = y[:, :, None, :, None] * shape[1] + x[:, None, :, None, :]
            used = weights.flatten().nonzero().flatten()
            per_bin = weights.size(3) * weights.size(4)
            yield (image, chunk, used // per_bin, pixels.flatten()[used], weights.flatten()[used].to(dtype))


def _axis_weights(start: Tensor, extent: Tensor, bins: int, size: int, sampling_ratio: int):
    """Weights of the average of bilinear samples along one axis.

    Args:
        start, extent: [k] where each RoI begins and how long it is, in cells.
        bins: output cells along the axis.
        size: input cells along the axis.
        sampling_ratio: samples per bin; 0 for one per started cell of bin length.

    Returns:
        cells and their weights, both [k, bins, taps]; unused taps have weight 0.
    """
    bin_size = extent / bins
    samples = bin_size.ceil() if sampling_ratio <= 0 else torch.full_like(start, sampling_ratio)
    samples = samples.clamp(min=0)  # an empty or inverted box has none, and pools to 0
    count = samples.clamp(min=1)
    index = torch.arange(max(1, int(samples.max())), device=start.device, dtype=start.dtype)
    edge = start[:, None] + torch.arange(bins, device=start.device) * bin_size[:, None]
    # The field's kernels round in this order: edge + (i + 0.5) * bin / n.
    at = edge[:, :, None] + ((index + 0.5) * bin_size[:, None] / count[:, None])[:, None, :]
    inside = (index < samples[:, None])[:, None, :] & (at >= -1) & (at <= size)
    at = at.clamp(min=0)
    low = at.floor().clamp(max=size - 1)
    fraction = torch.where(low >= size - 1, torch.zeros_like(at), at - low)
    share = inside / count[:, None, None]

    first = low.amin(dim=2, keepdim=True)
    reach = torch.where(inside, low - first, torch.zeros_like(low))
    taps = min(int(reach.max()) + 2, size + 1)
    low_tap = reach.long()
    weights = at.new_zeros(*at.shape[:2], taps)
    weights.scatter_add_(2, low_tap, (1 - fraction) * share)
    weights.scatter_add_(2, low_tap + 1, fraction * share)
    cells = first.long() + torch.arange(taps, device=start.device)
    return cells.clamp(max=size - 1), weights
