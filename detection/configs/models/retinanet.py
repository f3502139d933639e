# RetinaNet (Lin et al., ICCV 2017) as MMDetection has it, with the FPN from stride 8 to stride 128.
_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"

default_scope = "mmdet"
custom_imports = dict(imports=["onebit"])

model = dict(
    backbone=dict(_delete_=True, type="onebit.ResNet", depth=18, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
