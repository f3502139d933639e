"""The 1-bit parts of a detector on the meta device, see ``tests/backbones/test_meta.py``."""

import pytest
import torch

from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.losses import method_losses
from onebit.detection import OneBitFPN, OneBitRPNHead

META = torch.device("meta")


@pytest.mark.parametrize("binarizer", BINARIZERS)
def test_neck_and_rpn_head(binarizer):
    anchors = dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16])
    with META:
        neck = OneBitFPN([8, 16], 32, 3, binarizer=binarizer, onebit_outputs=True, act_cfg="binarizer")
        head = OneBitRPNHead(32, feat_channels=32, binarizer=binarizer, num_convs=2, anchor_generator=anchors)
    maps = neck([torch.zeros(2, 8, 16, 16, device=META), torch.zeros(2, 16, 8, 8, device=META)])
    outputs = [each for kind in head(maps) for each in kind]
    losses = {**method_losses(neck), **{f"head_{k}": v for k, v in method_losses(head).items()}}
    sum((out.sum() for out in outputs), sum(losses.values())).backward()
    # The matching of anchors and boxes, which is MMDetection's, reads where they are.
    assert all(p.grad.is_meta for p in (*neck.parameters(), *head.parameters()))
