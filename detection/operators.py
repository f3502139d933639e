"""Whose operators mmcv calls: its own compiled ones, torchvision's compiled ones, or ours in plain torch.

Importing ``mmdet.models`` needs ``mmcv._ext``. Where mmcv has no compiled one, a finder that ``import onebit`` places
last on ``sys.meta_path`` (:mod:`onebit.commons.mmcv_extension`) serves the operators of this module as ``mmcv._ext``.
A compiled ``_ext`` is found first and always wins. An operator of this module calls torchvision's compiled one where
it exists for the tensor's device, and plain torch (:mod:`onebit.detection.plain_operators` and
:mod:`onebit.detection.plain_convs`) otherwise. Operators that stand in none of them raise when they are called.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from onebit.commons.compat import ensure_torchvision
from onebit.commons.mmcv_extension import EXTENSION, ExtensionFinder
from onebit.detection import plain_convs, plain_operators
from onebit.detection.plain_convs import gradients
from onebit.detection.plain_convs import masked_col2im_forward as masked_col2im_forward
from onebit.detection.plain_convs import masked_im2col_forward as masked_im2col_forward
from onebit.detection.plain_operators import nms_match as nms_match
from onebit.detection.plain_operators import softnms as softnms

#: The operators of mmcv that are served here, each with the one of torchvision that does its work, if there is one.
FALLBACK_OPERATORS = {
    "nms": "nms",
    "softnms": None,
    "nms_match": None,
    "roi_align_forward": "roi_align",
    "roi_align_backward": "_roi_align_backward",
    "deform_conv_forward": "deform_conv2d",
    "deform_conv_backward_input": "_deform_conv2d_backward",
    "deform_conv_backward_parameters": "_deform_conv2d_backward",
    "modulated_deform_conv_forward": "deform_conv2d",
    "modulated_deform_conv_backward": "_deform_conv2d_backward",
    "masked_im2col_forward": None,
    "masked_col2im_forward": None,
    "carafe_forward": None,
    "carafe_backward": None,
    "carafe_naive_forward": None,
    "carafe_naive_backward": None,
    "sigmoid_focal_loss_forward": None,
    "sigmoid_focal_loss_backward": None,
}


@functools.cache
def _kernel(name: str, device: str) -> Callable | None:
    """torchvision's compiled operator ``name`` for a type of device, or None where there is none."""
    if not ensure_torchvision() or device not in ("cpu", "cuda"):
        return None
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"torchvision::{name}", device.upper()):
        return None
    return getattr(torch.ops.torchvision, name)


def _compiled(operator: str, tensor: Tensor) -> Callable | None:
    """torchvision's kernel for an operator of ours and a tensor, or None where plain torch has to do it."""
    if tensor.is_cuda and torch.are_deterministic_algorithms_enabled():  # torchvision's gradients would raise
        return None
    return _kernel(FALLBACK_OPERATORS[operator], tensor.device.type)


def _widened(*tensors: Tensor) -> list[Tensor]:
    """All in the widest of their types and float32: coordinates of boxes and taps must not be rounded to half."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return [tensor.to(dtype) for tensor in tensors]


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """See :func:`onebit.detection.plain_operators.nms`."""
    bboxes, scores = _widened(bboxes, scores)
    if (kernel := _compiled("nms", bboxes)) is None:
        return plain_operators.nms(bboxes, scores, iou_threshold, offset)
    # torchvision's boxes end where their last pixel ends.
    return kernel(torch.cat([bboxes[:, :2], bboxes[:, 2:] + offset], 1) if offset else bboxes, scores, iou_threshold)


def _uninverted(rois: Tensor, sampling_ratio: int) -> Tensor:
    """Boxes for torchvision, which asks for a negative amount of memory where it counts the samples of inverted ones."""
    if sampling_ratio > 0:
        return rois
    return torch.cat([rois[:, :3], torch.maximum(rois[:, 1:3], rois[:, 3:])], 1)


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
    """See :func:`onebit.detection.plain_operators.roi_align_forward`."""
    kernel = _compiled("roi_align_forward", input)
    if kernel is None or pool_mode != 1:
        plain_operators.roi_align_forward(
            input,
            rois,
            output,
            argmax_y,
            argmax_x,
            aligned_height=aligned_height,
            aligned_width=aligned_width,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            pool_mode=pool_mode,
            aligned=aligned,
        )
        return
    maps, boxes = _widened(input, _uninverted(rois, sampling_ratio))
    output.copy_(kernel(maps, boxes, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned))


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
    """See :func:`onebit.detection.plain_operators.roi_align_backward`."""
    kernel = _compiled("roi_align_backward", grad_output)
    if kernel is None or pool_mode != 1:
        plain_operators.roi_align_backward(
            grad_output,
            rois,
            argmax_y,
            argmax_x,
            grad_input,
            aligned_height=aligned_height,
            aligned_width=aligned_width,
            spatial_scale=spatial_scale,
            sampling_ratio=sampling_ratio,
            pool_mode=pool_mode,
            aligned=aligned,
        )
        return
    gradient, boxes = _widened(grad_output, _uninverted(rois, sampling_ratio))
    size = (aligned_height, aligned_width)
    grad_input += kernel(gradient, boxes, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned)


def _leading(values: Tensor, height: int, width: int) -> Tensor:
    """What mmcv reads of offsets and masks whose size is not the output's: as many values as there should be.

    DyHead hands over those of the next larger map.
    """
    if values.shape[2:] == (height, width):
        return values
    return values.flatten(1)[:, : values.size(1) * height * width].view(*values.shape[:2], height, width)


def _deform(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
    """Deformable convolution, modulated if there is a mask.

    Args:
        sizes: stride, padding and dilation, each along y and x; groups; deformable groups.
    """
    height, width = (
        (input.size(2 + i) + 2 * sizes[2 + i] - sizes[4 + i] * (weight.size(2 + i) - 1) - 1) // sizes[i] + 1
        for i in (0, 1)
    )
    offset = _leading(offset, height, width)
    mask = None if mask is None else _leading(mask, height, width)
    if (kernel := _compiled("deform_conv_forward", input)) is None:
        return plain_convs.deform_conv2d(input, weight, offset, mask, sizes[:2], sizes[2:4], sizes[4:6], *sizes[6:])
    if offset.requires_grad:
        # A tap exactly one pixel before the map, as zero offsets put it into the padding: mmcv gives it no gradient,
        # torchvision the slope of its inner side.
        y, x = plain_convs.tap_positions(offset, weight.shape[2:], sizes[:2], sizes[2:4], sizes[4:6], sizes[7])
        still = ((y == -1) | (x == -1)).unsqueeze(3).expand(-1, -1, -1, 2, -1, -1).reshape(offset.shape)
        offset = torch.where(still, offset.detach(), offset)
    factors = input.new_zeros((len(input), 1)) if mask is None else mask
    return kernel(input, weight, offset, factors, input.new_zeros(len(weight)), *sizes, mask is not None)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the deformable convolution of ``input`` into ``output``; ``offset`` has the dtype of both."""
    sizes = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_deform(*_widened(input, weight, offset), None, sizes))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of :func:`deform_conv_forward` with respect to ``input`` and ``offset``."""
    sizes = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    input, offset, gradient, weight = _widened(input, offset, gradOutput, weight)
    found = gradients(lambda x, moved: _deform(x, weight, moved, None, sizes), (input, offset), gradient)
    for target, value in zip((gradInput, gradOffset), found, strict=True):
        target.copy_(value)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    *,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` with respect to its weight to ``gradWeight``."""
    sizes = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    input, offset, gradient, weight = _widened(input, offset, gradOutput, torch.zeros_like(gradWeight))
    (found,) = gradients(lambda w: _deform(input, w, offset, None, sizes), (weight,), gradient)
    gradWeight += scale * found


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the modulated deformable convolution of ``input`` into ``output``."""
    sizes = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_deform(*_widened(input, weight, offset, mask), sizes))
    if with_bias:
        output += bias[:, None, None]


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of :func:`modulated_deform_conv_forward`."""
    sizes = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    *inputs, gradient = _widened(input, weight, offset, mask, grad_output)
    found = gradients(lambda *given: _deform(*given, sizes), inputs, gradient)
    for target, value in zip((grad_input, grad_weight, grad_offset, grad_mask), found, strict=True):
        target.copy_(value)
    if with_bias:
        grad_bias.copy_(gradient.sum((0, 2, 3)))


def carafe_naive_forward(features: Tensor, masks: Tensor, output: Tensor, **sizes: int) -> None:
    """Write CARAFE of ``features`` into ``output``; ``sizes`` as :func:`onebit.detection.plain_convs.carafe`."""
    output.copy_(plain_convs.carafe(features, masks, **sizes))


def carafe_naive_backward(
    grad_output: Tensor, features: Tensor, masks: Tensor, grad_input: Tensor, grad_masks: Tensor, **sizes: int
) -> None:
    """Write the gradients of :func:`carafe_naive_forward`."""
    found = gradients(functools.partial(plain_convs.carafe, **sizes), (features, masks), grad_output)
    for target, value in zip((grad_input, grad_masks), found, strict=True):
        target.copy_(value)


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **sizes: int
) -> None:
    """As :func:`carafe_naive_forward`; the backward operator is handed ``rfeatures`` in place of ``features``."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    grad_output: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rgrad_output: Tensor,
    rgrad_input_hs: Tensor,
    rgrad_input: Tensor,
    rgrad_masks: Tensor,
    grad_input: Tensor,
    grad_masks: Tensor,
    **sizes: int,
) -> None:
    """Write the gradients of :func:`carafe_forward`."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, **sizes)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the loss of every element into ``output``."""
    output.copy_(plain_convs.sigmoid_focal_loss(input, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Write the gradient of the sum of :func:`sigmoid_focal_loss_forward`."""

    def loss(x: Tensor) -> Tensor:
        return plain_convs.sigmoid_focal_loss(x, target, weight, gamma, alpha)

    grad_input.copy_(gradients(loss, (input,), torch.ones_like(input))[0])


def unavailable(name: str) -> Callable:
    """Attribute access succeeds because mmcv asks for every operator at import time."""
    if name.startswith("__"):
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise NotImplementedError(
            f"the operator {name} needs a compiled mmcv: neither torchvision nor this suite has it "
            f"(install mmcv in place of mmcv-lite)"
        )

    return operator


def operator_sources(device: str = "cpu") -> dict[str, tuple[str, str]]:
    """Whose operators do the work on a type of device: by name, the status of :func:`operator_status` and the reason."""
    spec = importlib.util.find_spec(EXTENSION)
    if not isinstance(spec.loader, ExtensionFinder):
        return dict.fromkeys(FALLBACK_OPERATORS, ("native", f"mmcv is compiled: {spec.origin}"))
    sources = {}
    for name, kernel in FALLBACK_OPERATORS.items():
        if kernel is None:
            sources[name] = ("fallback", "mmcv is not compiled, and torchvision has no such operator")
        elif _kernel(kernel, device) is not None:
            sources[name] = (
                "torchvision",
                f"mmcv is not compiled; torchvision's {kernel.lstrip('_')} is, for {device}",
            )
        elif ensure_torchvision():
            sources[name] = ("fallback", f"neither mmcv nor torchvision is compiled for {device}")
        else:
            sources[name] = ("fallback", "mmcv is not compiled, and torchvision's operators do not load")
    return sources


def operator_status(device: str = "cpu") -> dict[str, str]:
    """``native`` (a compiled mmcv), ``torchvision`` (its compiled operators) or ``fallback`` (plain torch), by name."""
    return {name: status for name, (status, _) in operator_sources(device).items()}
