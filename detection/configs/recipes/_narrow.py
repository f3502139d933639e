# What the CPU recipes share: a 64-channel FPN and small heads, normalized (everything is trained
# from scratch), anchors from 16 px on, fewer proposals.
score_untrained = True
model = dict(neck=dict(out_channels=64, norm_cfg=dict(type="BN")))
of_detector = dict(
    faster_rcnn=dict(
        model=dict(
            rpn_head=dict(
                in_channels=64,
                feat_channels=64,
                anchor_generator=dict(
                    type="AnchorGenerator", scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]
                ),
            ),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64, fc_out_channels=256)
            ),
            train_cfg=dict(
                rpn=dict(sampler=dict(num=128)),
                rpn_proposal=dict(nms_pre=500, max_per_img=200),
                rcnn=dict(sampler=dict(num=128)),
            ),
            test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
        )
    ),
    retinanet=dict(
        model=dict(
            bbox_head=dict(
                in_channels=64,
                feat_channels=64,
                stacked_convs=2,
                norm_cfg=dict(type="GN", num_groups=32),
                anchor_generator=dict(octave_base_scale=2),
            )
        )
    ),
    fcos=dict(model=dict(bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2))),
)
train_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(type="LoggerHook", interval=10))
