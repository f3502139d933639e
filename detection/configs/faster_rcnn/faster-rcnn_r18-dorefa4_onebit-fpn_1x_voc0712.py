_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/voc0712_1x.py"]

model = dict(
    backbone=dict(name="resnet18_dorefa4"),
    neck=dict(binarizer="dorefa4"),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
