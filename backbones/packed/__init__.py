"""Inference with weights that are stored as bits and convolutions that count them.

bits         bits of weights in 64-bit words
_vector      the inner loops, as vectors of a fixed width (LLVM); _lookup those of table lookups
kernels      the compiled steps of a plan (numba)
engine       the kernels, or torch where numba is missing
builder      collects the steps of a network
plan         a network as a list of steps over memory that is laid out once
lowering     from modules to steps, and running these
layers       ``PackedConv``, a 1-bit convolution with what surrounds it
geometry     sizes and borders of convolutions
cells        packed forms of cells
deploy       from a trained network to its packed form
file         packed networks as files
interchange  ONNX and OpenVINO
"""

from onebit.backbones.packed.deploy import deploy, packed_form
from onebit.backbones.packed.file import about_of, description, load, save

__all__ = ["about_of", "deploy", "description", "load", "packed_form", "save"]
