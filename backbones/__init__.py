"""Floor 2: the networks and what they are made of.

registry      names of backbones, and mmengine's registry scope ``onebit``
binarization  what makes a layer 1-bit or k-bit, one file per method
conv          ``OneBitConv2d``, the one 1-bit convolution of the suite
integer_conv  its arithmetic in 8-bit integers, where that is faster
packed_conv   the form of it that keeps activations for backward in bits
losses        losses that belong to a method, collected from a model's modules
class_centres those on the features of a classifier
hooks         mmengine hooks that add these losses to any model's
prelu         PReLU, fast on CPUs
description   what a name stands for, for records
backbone      what all networks share: ``out_indices``, ``frozen_stages``, ``norm_eval``
resnet        ResNet 18/34/50, real-valued and 1-bit
staged        what those of a stem and stages share, and their names
wide_resnet   WRN-22
cifar_nets    ResNet-20 and VGG-Small
reactnet      ReActNet-A
genotype      the description of a searched cell: JSON, DARTS text, derivation from scores
cell_drawing  pictures of cells
cells         the cells that ship
cell_ops      the operations of a 1-bit cell
darts_ops     those of a real-valued DARTS cell
macros        how many cells, how wide: DCP-NAS, CP-NAS, BNAS, DARTS, PC-DARTS
cell_net      ``CellNet``, networks of cells
cost          memory and operations of any network, layer by layer, in four conventions
cost_drawing  pictures of costs
shapes        what makes counting by a name quick
classifier    a backbone with a linear classifier
packed        networks for inference on packed bits, and files of them

Importing this package makes ``type='onebit.ResNet'`` and the like resolvable in any mmengine
config. What costs import time (mmengine's model base class) is imported at first use.
"""

from __future__ import annotations

import importlib

from onebit.backbones import cells
from onebit.backbones.binarization import MCN, Binarizer, get_binarizer, register_binarizer, sign_with
from onebit.backbones.cells.genotype import Genotype
from onebit.backbones.class_centres import ClassCentreLoss
from onebit.backbones.conv import OneBitConv2d, binarize_weights, pack_activations, set_progress
from onebit.backbones.cost import Cost, cost, costs
from onebit.backbones.cost.rules import register_cost_rule
from onebit.backbones.expert_conv import ExpertConv2d
from onebit.backbones.losses import ChildParentLoss, method_losses
from onebit.backbones.registry import (
    HOOKS,
    MODELS,
    Family,
    backbone_config,
    create_backbone,
    list_backbones,
    register_family,
)

#: Public names that live in modules imported at first use (PEP 562).
_LAZY = {
    "CellNet": "onebit.backbones.cells.net",
    "CifarResNet": "onebit.backbones.cifar_nets",
    "ReActNetA": "onebit.backbones.reactnet",
    "ResNet": "onebit.backbones.resnet",
    "VGGSmall": "onebit.backbones.cifar_nets",
    "WideResNet": "onebit.backbones.wide_resnet",
    "deploy": "onebit.backbones.packed",
    "describe": "onebit.backbones.description",
    "foreign_packages": "onebit.backbones.description",
}

__all__ = [
    "HOOKS",
    "MCN",
    "MODELS",
    "Binarizer",
    "ChildParentLoss",
    "ClassCentreLoss",
    "Cost",
    "ExpertConv2d",
    "Family",
    "Genotype",
    "OneBitConv2d",
    "backbone_config",
    "binarize_weights",
    "cells",
    "cost",
    "costs",
    "create_backbone",
    "get_binarizer",
    "list_backbones",
    "method_losses",
    "pack_activations",
    "register_binarizer",
    "register_cost_rule",
    "register_family",
    "set_progress",
    "sign_with",
    *_LAZY,
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'onebit.backbones' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
