# COCO, train2017 to val2017, box AP.
_base_ = [
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

# Learning rate 0.02 at 16 images a step, scaled linearly with their number; divided by 10 at epochs
# 9 and 11 of 12 (DCP-NAS, Sec. 4.1). Warm-up, momentum and weight decay are MMDetection's.
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[9, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=True, base_batch_size=16)
custom_hooks = [dict(type="onebit.MethodLossHook")]
