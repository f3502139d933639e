# The drawn stand-in for COCO, read by the same unmodified loader: five of COCO's eighty names, in the order of the
# file, by which MMDetection numbers labels.
_base_ = "./coco.py"

image_scale = (96, 96)
num_classes = 5
_classes = dict(classes=("car", "airplane", "bottle", "chair", "tv"))
train_dataloader = dict(dataset=dict(metainfo=_classes))
test_dataloader = dict(dataset=dict(metainfo=_classes))
