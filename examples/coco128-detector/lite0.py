"""Faster R-CNN on a frozen, real-valued EfficientNet-Lite0; its feature pyramid and its RPN are 1-bit."""

_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"
custom_imports = dict(imports=["onebit", "lite0_backbone"])
default_scope = "mmdet"
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(_delete_=True, type="FrozenEfficientNetLite0"),
    neck=dict(
        _delete_=True,
        type="onebit.OneBitFPN",
        binarizer="reactnet",
        act_cfg="binarizer",
        onebit_outputs=True,
        in_channels=[40, 112, 320],
        out_channels=96,
        num_outs=4,
    ),
    rpn_head=dict(
        type="onebit.OneBitRPNHead",
        binarizer="reactnet",
        in_channels=96,
        feat_channels=96,
        anchor_generator=dict(type="AnchorGenerator", scales=[2, 4], ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=96, featmap_strides=[8, 16, 32]),
        bbox_head=dict(in_channels=96, fc_out_channels=256, num_classes=71),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)
load = dict(type="LoadImageFromFile")
boxes = dict(type="LoadAnnotations", with_bbox=True)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CocoDataset",
        ann_file="train100.json",
        pipeline=[
            load,
            boxes,
            dict(type="RandomResize", scale=[(224, 224), (288, 288)], keep_ratio=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackDetInputs"),
        ],
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CocoDataset",
        ann_file="val28.json",
        pipeline=[load, dict(type="Resize", scale=(256, 256), keep_ratio=True), boxes, dict(type="PackDetInputs")],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=60, val_interval=60)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.01), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(type="LoggerHook", interval=5))
