# Ours: the mini datasets on two cores in less than three minutes; small batches, so that a 1-bit network,
# which learns little in its first 200 steps, has 900.
_base_ = "./small.py"

train_cfg = dict(max_epochs=10)
train_dataloader = dict(batch_size=32)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
# No flip: the classes "slashed" and "across" would become each other when turned, and shapes lean.
augmentation = dict(small=dict(padding=2, flip=False), large=dict())
image_size = dict(large=64)
min_crop_area = 0.6  # a smaller crop of a drawn shape is another class's
