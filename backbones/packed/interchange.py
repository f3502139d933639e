"""Export to ONNX and OpenVINO: compatible with other programs, with 32-bit arithmetic.

The 1-bit convolutions become comparisons and float convolutions of +1 and -1 weights. That is what
these formats carry: ONNX has no 1-bit convolution, and OpenVINO's gave wrong sums where it was tried,
which a probe repeats on the machine at hand.
"""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.packed.layers import signs_and_scale, threshold_of, values_of
from onebit.backbones.prelu import PReLU
from onebit.commons.compat import BY_TRACING
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import write_atomic


class FloatForm(nn.Module):
    """A 1-bit convolution in plain operators: compare, select, pad, convolve, scale.

    Raises:
        InputError: weights or activations of more than one bit.
    """

    weight: Tensor
    scale: Tensor
    threshold: Tensor
    output: Any

    below: Tensor
    above: Tensor

    def __init__(self, conv: OneBitConv2d) -> None:
        super().__init__()
        positive, scale, offset = signs_and_scale(conv)
        weight = torch.where(positive, 1.0, -1.0)
        if offset is not None:
            weight, scale = weight * scale.view(-1, 1, 1, 1) + offset.view(-1, 1, 1, 1), torch.ones_like(scale)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.detach().view(-1, 1, 1))
        self.output = conv.quantize_weight if conv.scales_output else None
        self.signs = conv.quantize_input is not None
        if self.signs:
            threshold = threshold_of(conv)
            threshold = torch.zeros(1) if threshold is None else threshold.clone()
            below, above = map(float, values_of(conv))
            self.register_buffer("below", torch.tensor(below))  # of numbers, torch 2.1 exports float64
            self.register_buffer("above", torch.tensor(above))
            self.register_buffer("threshold", threshold.view(-1, 1, 1))
        self.border = tuple(conv._reversed_padding_repeated_twice)
        self.pad_value = conv.pad_value
        self.arguments = (conv.stride, 0, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.signs:
            x = torch.where(x > self.threshold, self.above, self.below)
        if any(self.border):
            x = F.pad(x, self.border, value=float(self.pad_value))
        y = F.conv2d(x, self.weight, None, *self.arguments) * self.scale
        return y if self.output is None else y * self.output.output_scale(*y.shape[2:])


def float_form(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in eval mode, of operators that other programs know.

    Raises:
        InputError: a convolution of more than one bit.
    """
    network = copy.deepcopy(network).eval()

    def convert(module: nn.Module) -> nn.Module:
        if isinstance(module, OneBitConv2d):
            return FloatForm(module)
        if type(module) is PReLU:
            plain = nn.PReLU(module.num_parameters)
            plain.load_state_dict(module.state_dict())
            return plain
        for name, child in module.named_children():
            module.add_module(name, convert(child))
        return module

    return convert(network).requires_grad_(False)


def save_onnx(network: nn.Module, size: tuple[int, int], path: str | Path) -> Path:
    """Write ``network`` as an ONNX file for images [1, 3, *size], float32.

    Raises:
        InputError: the package onnx is missing, the network has no float form, or takes no image of
            that size.
        WorkError: a part of the network cannot be expressed, or the file cannot be written.
    """
    _require("onnx", "onnx")
    plain, image = float_form(network), torch.zeros(1, 3, *size)
    try:
        with torch.inference_mode():
            plain(image)
    except RuntimeError as error:
        raise InputError(f"an image of {size[0]}x{size[1]} does not pass: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(plain, (image,), str(file), input_names=["images"], **BY_TRACING)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = " ".join(str(error).split())[:300]
            raise WorkError(f"ONNX cannot express this network: {reason}") from error
        return write_atomic(path, file.read_bytes())


def save_openvino(network: nn.Module, size: tuple[int, int], path: str | Path) -> Path:
    """Write ``network`` as OpenVINO's pair of files: ``path`` (.xml) and the same name with .bin.

    Its convolutions are float ones; :func:`binary_convolution_fault` says why.

    Raises:
        InputError: openvino is missing, a name that does not end in .xml, or a network that has no
            float form.
        WorkError: the files cannot be written.
    """
    _require("openvino", "openvino")
    import openvino

    path = Path(path)
    if path.suffix != ".xml":
        raise InputError(f"{path}: OpenVINO's format needs a name that ends in .xml")
    with tempfile.TemporaryDirectory() as folder:
        onnx = save_onnx(network, size, Path(folder) / "network.onnx")
        model = openvino.Core().read_model(onnx)
        target = Path(folder) / path.name
        openvino.save_model(model, target, compress_to_fp16=False)
        write_atomic(path.with_suffix(".bin"), target.with_suffix(".bin").read_bytes())
        return write_atomic(path, target.read_bytes())


@functools.cache
def binary_convolution_fault() -> str | None:
    """Why OpenVINO's 1-bit convolution is not used on this machine; None if it computes right.

    A small network of a sign, as OpenVINO writes it (two-level FakeQuantize), and a convolution of
    +1 and -1 weights is compiled; it has to run as a 1-bit kernel and give the exact sums.
    """
    import numpy as np
    import openvino
    from openvino import opset1

    generator = np.random.default_rng(0)
    x = generator.standard_normal((1, 64, 8, 8)).astype(np.float32)
    weights = generator.choice([-1.0, 1.0], (64, 64, 3, 3)).astype(np.float32)
    image = opset1.parameter(x.shape, np.float32)
    threshold = np.zeros((1, 64, 1, 1), np.float32)
    low, high = (np.full((1, 1, 1, 1), v, np.float32) for v in (-1, 1))
    signs = opset1.fake_quantize(
        opset1.multiply(image, np.full((1, 64, 1, 1), 1.5, np.float32)), threshold, threshold, low, high, 2
    )
    sums = opset1.convolution(signs, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    try:
        compiled = openvino.Core().compile_model(openvino.Model([sums], [image]), "CPU")
        kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops()]
        found = compiled({0: x})[0]
    except RuntimeError as error:
        return f"it does not compile: {str(error).splitlines()[0]}"
    if "BinaryConvolution" not in kinds:
        return "the runtime executes it as a float convolution"
    expected = F.conv2d(torch.where(torch.from_numpy(x) > 0, 1.0, -1.0), torch.from_numpy(weights))
    if not np.array_equal(found, expected.numpy()):
        return "its sums are wrong here"
    return None


def _require(module: str, package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        raise InputError(f"this format needs the package {package}: pip install {package}")


__all__ = ["FloatForm", "binary_convolution_fault", "float_form", "save_onnx", "save_openvino"]
