"""Deformable and masked convolution, CARAFE and the sigmoid focal loss in plain torch, for any device.

:mod:`onebit.detection.operators` hands them to mmcv where neither mmcv nor torchvision has a compiled one. All but
the masked convolution are differentiable functions: their backward operators ask autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional


def gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> Sequence[Tensor]:
    """The gradients of ``function(*inputs)`` with respect to every input."""
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        return torch.autograd.grad(function(*leaves), leaves, grad_output)


def tap_positions(
    offset: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    deform_groups: int,
) -> tuple[Tensor, Tensor]:
    """Where a deformable convolution's taps lie, in cells along y and along x: each [N, deform_groups, taps, h, w]."""
    size = offset.shape[2:]
    moved = offset.view(len(offset), deform_groups, kernel[0] * kernel[1], 2, *size)
    positions = []
    for axis in (0, 1):
        shape = [1, 1, 1, 1, 1]
        shape[3 + axis] = -1
        at = torch.arange(size[axis], device=offset.device) * stride[axis] - padding[axis]
        tap = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        tap = tap.repeat_interleave(kernel[1]) if axis == 0 else tap.repeat(kernel[0])
        positions.append(at.view(shape) + tap.view(1, 1, -1, 1, 1) + moved[:, :, :, axis])
    return positions[0], positions[1]


def deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Deformable convolution (Dai et al., 2017), with ``mask`` the modulated one (Zhu et al., 2019).

    Args:
        input: [N, C, H, W].
        weight: [O, C / groups, kh, kw].
        offset: [N, deform_groups * kh * kw * 2, h, w]; how far every tap is moved, along y and then along x.
        mask: [N, deform_groups * kh * kw, h, w]; the factor of every tap.

    Returns:
        [N, O, h, w].
    """
    n, channels, height, width = input.shape
    kernel, size = weight.shape[2:], offset.shape[2:]
    y, x = tap_positions(offset, kernel, stride, padding, dilation, deform_groups)
    top, left = y.detach().floor(), x.detach().floor()
    # Exactly one pixel before the map a tap is 0 whatever it moves by: it has no slope.
    inside = (y > -1) & (x > -1)
    maps = input.reshape(n * deform_groups, channels // deform_groups, height * width)
    columns = maps.new_zeros(())
    for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
        for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            used = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            cells = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            share = torch.where(used, share_y * share_x, 0)
            if mask is not None:
                share = share * mask.view_as(share)
            index = cells.view(len(maps), 1, -1).expand(-1, maps.size(1), -1)
            columns = columns + maps.gather(2, index) * share.view(len(maps), 1, -1)
    columns = columns.view(n, groups, -1, size.numel())
    out = weight.view(groups, weight.size(0) // groups, -1) @ columns
    return out.view(n, weight.size(0), *size)


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write the windows of ``im`` [1, C, H, W] at K positions into ``col`` [C * kernel_h * kernel_w, K]."""
    # A mask is as large as the map: without padding, its last positions have windows that reach beyond it.
    padded = functional.pad(im[0], (pad_w, pad_w + kernel_w, pad_h, pad_h + kernel_h))
    row = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    column = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, row, column].view_as(col))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, *, height: int, width: int, channels: int
) -> None:
    """Write ``col`` [channels, K] to K positions of ``im`` [1, channels, height, width]; those outside are left out."""
    inside = (mask_h_idx < height) & (mask_w_idx < width)
    im[0, :, mask_h_idx[inside], mask_w_idx[inside]] = col[:, inside]


def carafe(features: Tensor, masks: Tensor, kernel_size: int, group_size: int, scale_factor: int) -> Tensor:
    """CARAFE (Wang et al., 2019): every new pixel is its own weighted sum of a window of the old ones.

    Args:
        features: [N, C, H, W].
        masks: [N, group_size * kernel_size ** 2, H * scale_factor, W * scale_factor]; the weights.

    Returns:
        [N, C, H * scale_factor, W * scale_factor].
    """
    n, channels, height, width = features.shape
    windows = functional.unfold(features, kernel_size, padding=kernel_size // 2)
    windows = windows.view(n, group_size, channels // group_size, -1, height, width)
    masks = masks.view(n, group_size, -1, height, scale_factor, width, scale_factor)
    out = torch.einsum("ngckhw,ngkhawb->ngchawb", windows, masks)
    return out.reshape(n, channels, height * scale_factor, width * scale_factor)


def sigmoid_focal_loss(input: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    """Focal loss (Lin et al., 2017) of every class against all others.

    Args:
        input: [N, C] before the sigmoid.
        target: [N] class indices; C stands for the background.
        weight: [C] factors by class of the target, or empty. The background has no factor.

    Returns:
        [N, C].
    """
    is_class = target[:, None] == torch.arange(input.size(1), device=input.device)
    probability = input.sigmoid()
    positive = alpha * (1 - probability).pow(gamma) * functional.logsigmoid(input)
    negative = (1 - alpha) * probability.pow(gamma) * functional.logsigmoid(-input)
    loss = -torch.where(is_class, positive, negative)
    return loss * functional.pad(weight, (0, 1), value=1.0)[target][:, None] if weight.numel() else loss
