# The mini datasets, a minute or two on two cores.
_base_ = "./_narrow.py"

# The maps are so small that a second thread gains nothing, and waiting for it costs tenfold as soon
# as anything else runs on the machine.
threads = 1

of_detector = dict(
    faster_rcnn=dict(
        model=dict(
            train_cfg=dict(
                rpn=dict(sampler=dict(num=64)),
                rpn_proposal=dict(nms_pre=150, max_per_img=100),
                rcnn=dict(sampler=dict(num=64)),
            ),
            test_cfg=dict(rpn=dict(nms_pre=150, max_per_img=100)),
        )
    )
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=7, val_interval=7)
train_dataloader = dict(batch_size=8)
test_dataloader = dict(batch_size=10)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.0001), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
