"""The same with real-valued pyramid and RPN."""

_base_ = "lite0.py"
model = dict(
    neck=dict(
        _delete_=True, type="FPN", norm_cfg=dict(type="BN"), in_channels=[40, 112, 320], out_channels=96, num_outs=4
    ),
    rpn_head=dict(
        _delete_=True,
        type="RPNHead",
        in_channels=96,
        feat_channels=96,
        anchor_generator=dict(type="AnchorGenerator", scales=[2, 4], ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64]),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=[0.0] * 4, target_stds=[1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
)
