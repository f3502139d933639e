"""Floor 1: the networks and what they are made of.

registry      names of backbones, and mmengine's registry scope ``onebit``
binarization  what makes a layer 1-bit: sign of activations, sign and scale of weights, gradients
conv          ``OneBitConv2d``, the one 1-bit convolution of the suite
integer_conv  its arithmetic in 8-bit integers, where that is faster
description   what a name stands for, for records
plugins       packages of other people, imported when a name is first looked up
backbone      what all networks share: ``out_indices``, ``frozen_stages``, ``norm_eval``
mcn           the binarization of DCP-NAS
resnet        ResNet 18/34/50, real-valued and 1-bit
genotype      the description of a searched cell, its JSON form and its DARTS text, derivation
cell_drawing  pictures of cells
cells         the cells that ship
cell_ops      the operations of a 1-bit cell
cell_net      ``CellNet``, networks of 1-bit cells
cost          memory and operations of any network, layer by layer, in four conventions

Importing this package makes ``type='onebit.ResNet'`` and the like resolvable in any mmengine
config. What costs import time (mmengine's model base class) is imported at first use.
"""

from __future__ import annotations

import importlib

from backbones import cells
from backbones.binarization import Binarizer, get_binarizer, register_binarizer
from backbones.conv import OneBitConv2d
from backbones.cost import Cost, cost
from backbones.cost_rules import register_cost_rule
from backbones.genotype import Genotype
from backbones.mcn import MCN
from backbones.registry import (
    MODELS,
    Family,
    backbone_config,
    create_backbone,
    list_backbones,
    register_family,
)

#: Public names that live in modules imported at first use (PEP 562).
_LAZY = {
    "CellNet": "backbones.cell_net",
    "ResNet": "backbones.resnet",
    "describe": "backbones.description",
    "foreign_packages": "backbones.description",
}

__all__ = [
    "MCN",
    "MODELS",
    "Binarizer",
    "Cost",
    "Family",
    "Genotype",
    "OneBitConv2d",
    "backbone_config",
    "cells",
    "cost",
    "create_backbone",
    "get_binarizer",
    "list_backbones",
    "register_binarizer",
    "register_cost_rule",
    "register_family",
    *_LAZY,
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'backbones' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
