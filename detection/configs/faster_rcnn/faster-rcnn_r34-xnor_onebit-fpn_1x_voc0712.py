_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/voc0712_1x.py"]

model = dict(
    backbone=dict(name="resnet34_xnor"), neck=dict(binarizer="xnor"), roi_head=dict(bbox_head=dict(num_classes=20))
)
