# The drawn stand-in for COCO, read by the same unmodified loader: five of COCO's eighty names.
_base_ = "./coco.py"

image_scale = (96, 96)
num_classes = 5
_classes = dict(classes=("airplane", "bottle", "car", "chair", "tv"))
train_dataloader = dict(dataset=dict(metainfo=_classes))
test_dataloader = dict(dataset=dict(metainfo=_classes))
