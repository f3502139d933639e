"""What a backbone's name stands for, read off the network itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from onebit.backbones.conv import REAL_BITS
from onebit.backbones.registry import create_backbone, find_family
from onebit.commons import plugins
from onebit.commons.errors import InputError


def describe(backbone: str | nn.Module, **overrides) -> dict[str, str | int | None]:
    """What a record says about a backbone.

    Nothing is computed: by its name a network is built without memory for its weights.

    Args:
        backbone: a backbone's name, or a network that is built already.
        overrides: further arguments of :func:`create_backbone`, with a name only.

    Returns:
        ``binarizer``: its name, or ``none`` for a real-valued network; ``cell`` and
        ``genotype_hash``: which cell a cell network is made of, else None (a network may have
        another cell than its name's paper, see :mod:`onebit.backbones.cells.macros`); ``weight_bits`` and
        ``activation_bits``: the lowest precisions that its layers declare.

    Raises:
        InputError: unknown name, or overrides that do not fit.
    """
    if isinstance(backbone, str):
        with torch.device("meta"):
            network = create_backbone(backbone, **overrides)
    elif overrides:
        raise InputError(f"describe: {sorted(overrides)[0]!r} can only go with a backbone's name")
    else:
        network = backbone
    quantized: list[Any] = [m for m in network.modules() if hasattr(m, "weight_bits")]
    binarizers = sorted({m.binarizer.name for m in quantized})
    genotype = getattr(network, "genotype", None)
    return {
        "binarizer": "+".join(binarizers) or "none",
        "cell": getattr(network, "cell_name", None),
        "genotype_hash": None if genotype is None else genotype.hash,
        "weight_bits": min((m.weight_bits for m in quantized), default=REAL_BITS),
        "activation_bits": min((m.input_bits for m in quantized), default=REAL_BITS),
    }


def foreign_packages(name: str) -> dict[str, str]:
    """Which packages beside this suite define a backbone: its family and its binarizers.

    Returns:
        package to version (``unknown`` where the package states none); empty for a backbone of the
        suite.

    Raises:
        InputError: unknown name.
    """
    with torch.device("meta"):
        network = create_backbone(name)
    family, _ = find_family(name)
    used = [family, *(m.binarizer for m in network.modules() if hasattr(m, "binarizer"))]
    return dict(package for part in used if (package := plugins.package_of(part)) is not None)
