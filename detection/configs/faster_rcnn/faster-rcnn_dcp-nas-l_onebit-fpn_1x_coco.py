_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/coco_1x.py"]

model = dict(backbone=dict(name="dcp_nas_l"), neck=dict(in_channels=[108, 432, 864, 1728], binarizer="mcn"))
