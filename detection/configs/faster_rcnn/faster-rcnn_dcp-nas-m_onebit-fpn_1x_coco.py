_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/coco_1x.py"]

model = dict(backbone=dict(name="dcp_nas_m"), neck=dict(in_channels=[72, 288, 576, 1152], binarizer="mcn"))
