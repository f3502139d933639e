# Faster R-CNN with the standard FPN for any backbone of this suite, by its name.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

custom_imports = dict(imports=["onebit"])
onebit_parts = "none"

model = dict(
    backbone=dict(_delete_=True, type="onebit.create_backbone", name="resnet18", out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
