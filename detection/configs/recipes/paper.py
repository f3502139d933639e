# The schedule of the DCP-NAS paper (Sec. 4.1): 12 epochs, learning rate 0.02 divided by 10 at
# epochs 9 and 11, at 8 x 2 images. Warm-up, momentum and weight decay are MMDetection's 1x schedule.
score_untrained = False  # thousands of images; an untrained detector scores 0
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=12)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[9, 11], gamma=0.1),
]
# Of one-stage detectors MMDetection's 1x configs: half the learning rate, divided at epochs 8 and 11. What FCOS has
# besides is in fcos_r50-caffe_fpn_gn-head_1x_coco; its warm-up is linear here, as for the others.
_schedule = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
of_detector = dict(
    retinanet=dict(optim_wrapper=dict(optimizer=dict(lr=0.01)), param_scheduler=_schedule),
    fcos=dict(
        optim_wrapper=dict(
            optimizer=dict(lr=0.01),
            paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
            clip_grad=dict(max_norm=35.0),
        ),
        param_scheduler=_schedule,
    ),
)
auto_scale_lr = dict(enable=True, base_batch_size=16)
default_hooks = dict(logger=dict(type="LoggerHook", interval=50))
