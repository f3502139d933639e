# The first 128 images of COCO train2017, trained AND scored on: shows that a detector learns, and
# is no benchmark. Images without boxes stay in both.
_base_ = "./coco.py"

train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=False)))
test_dataloader = dict(
    dataset=dict(ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017/"))
)
test_evaluator = dict(ann_file="annotations/instances_train2017.json")
