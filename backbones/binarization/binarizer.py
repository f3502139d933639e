"""What a binarization method is, as one small value: a :class:`Binarizer`; and its name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from onebit.commons import guards, plugins
from onebit.commons.errors import InputError


def no_activation(channels: int) -> nn.Module:
    """For methods whose quantizer of activations is their only nonlinearity."""
    return nn.Identity()


def hardtanh(channels: int) -> nn.Module:
    """x clipped to [-1, 1]."""
    return nn.Hardtanh()


@dataclass(frozen=True)
class Binarizer:
    """One way of making a network 1-bit, or k-bit.

    Attributes:
        name: the suffix of backbone names, e.g. ``reactnet``.
        source: the paper.
        input: from a number of input channels to the quantizer of activations; None leaves
            activations real-valued.
        weight: from a number of output filters to the quantizer of weights.
        activation: from a number of channels to the real-valued function that ends a block.
        norm_first: batch norm comes before the quantizer of activations (XNOR-Net) instead of
            after the convolution.
        shortcut_per_conv: a real-valued shortcut bypasses every convolution (Bi-Real Net) instead
            of every block.
        feature_loss: from a number of features and a number of classes to the module that is
            called with (features, labels) where a classifier is trained, see
            :mod:`onebit.backbones.losses`; None for methods without one.

    A quantizer is a module with an attribute ``precision``: the bits of what it puts out. For 1
    bit these are, of activations, the values -1 and +1; of weights, -a_k and +a_k with one
    magnitude a_k per output filter; each to a relative 1e-6, so that ``sign(w).detach() + w -
    w.detach()`` is fine. With an attribute ``affine = True`` they are any two values, one pair per
    layer of activations and one per filter of weights. For k bits the activations are multiples of
    1 / (2^k - 1) from 0 to 1.

    :func:`onebit.backbones.sign_with` makes a quantizer of activations from the slope of its gradient;
    :class:`onebit.backbones.binarization.SignQuantizer` is the class for one with parameters, which
    says by ``threshold()`` [channels] above which input it puts out the larger value. A quantizer of
    weights may have three methods: ``fit(weight)`` sizes its parameters and sets them, whenever the
    weights [K, C, h, w] have been initialized; ``losses(weight)`` returns the method's losses by name,
    a dict of scalars; ``output_scale(height, width)`` returns what the output of the convolution, of
    that size, is multiplied with: a tensor that can be broadcast to [K, height, width].

    A method may add noise to the values in training mode. Its quantizer says so by ``exact``, True where it
    puts out its values alone, and has submodules that only trainings need say ``training_only = True``: no
    memory is counted for them.

    What depends on the progress of the training has a method ``set_progress(fraction)``, in any module
    (see :func:`onebit.backbones.set_progress`). It may change gradients, losses and noise, but no values.
    """

    name: str
    source: str
    input: Callable[[int], nn.Module] | None
    weight: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module] = no_activation
    norm_first: bool = False
    shortcut_per_conv: bool = True
    feature_loss: Callable[[int, int], nn.Module] | None = None


BINARIZERS: dict[str, Binarizer] = {}


def register_binarizer(binarizer: Binarizer) -> Binarizer:
    """Make ``binarizer`` known by its name, and with it a backbone of that suffix per family.

    Raises:
        InputError: the name is taken, or could not be told from a width in a backbone's name.
    """
    name = binarizer.name
    if not re.fullmatch(r"[a-z][a-z0-9]*", name) or re.fullmatch(r"[wcle]\d+", name):
        raise InputError(f"binarizer name {name!r}: expected lower-case letters and digits, not like a width")
    if BINARIZERS.setdefault(name, binarizer) != binarizer:
        raise InputError(f"binarizer {name!r} is registered already, from {BINARIZERS[name].source}")
    plugins.note_registrant(binarizer)
    return binarizer


def get_binarizer(binarizer: str | Binarizer) -> Binarizer:
    """Look a binarizer up by name; a :class:`Binarizer` is returned as it is.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    if isinstance(binarizer, Binarizer):
        return binarizer
    if binarizer not in BINARIZERS:
        from onebit.backbones.registry import MODELS

        MODELS.import_from_location()  # other people's packages are imported at the first look-up
    return BINARIZERS[guards.known("binarizer", binarizer, BINARIZERS)]
