_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/coco_1x.py"]

model = dict(backbone=dict(name="dcp_nas_s"), neck=dict(in_channels=[54, 216, 432, 864], binarizer="mcn"))
