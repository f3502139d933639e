_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/voc0712_1x.py"]

model = dict(
    backbone=dict(name="dcp_nas_s"),
    neck=dict(in_channels=[54, 216, 432, 864], binarizer="mcn"),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
