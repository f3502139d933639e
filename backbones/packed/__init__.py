"""Networks for inference: weights stored as bits, convolutions that count them. :mod:`onebit.packed` runs them.

bits         bits of weights in 64-bit words
builder      collects the steps of a network
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
