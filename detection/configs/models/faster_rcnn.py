# Faster R-CNN with MMDetection's standard FPN. The backbone and the neck's in_channels are put in by
# `onebit.detection.config.build_config`, and parts/ says what a choice of 1-bit parts changes.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

default_scope = "mmdet"
custom_imports = dict(imports=["onebit"])

model = dict(
    backbone=dict(_delete_=True, type="onebit.ResNet", depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
