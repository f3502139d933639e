_base_ = ["../_base_/faster-rcnn_onebit-fpn.py", "../_base_/coco_1x.py"]

model = dict(backbone=dict(name="resnet18_xnor"), neck=dict(binarizer="xnor"))
