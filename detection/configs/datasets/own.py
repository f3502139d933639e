# Labels of one's own in the form of onebit.commons.datasets.own, whose classes are filled in. Pictures without
# boxes stay in both parts.
_base_ = "./coco.py"

num_classes = 0
train_dataloader = dict(
    dataset=dict(ann_file="train.json", data_prefix=dict(img="train/"), filter_cfg=dict(filter_empty_gt=False))
)
test_dataloader = dict(dataset=dict(ann_file="val.json", data_prefix=dict(img="val/")))
test_evaluator = dict(ann_file="val.json")
