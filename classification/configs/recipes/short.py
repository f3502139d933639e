# Ours: one pass over half of cifar10-jpeg, averaged to 16x16, to compare many cells with each other: the
# common training of the search board. Too short for accuracies that mean something by themselves.
_base_ = "./small.py"

train_cfg = dict(max_epochs=1)
train_images = 25000
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
augmentation = dict(small=dict(padding=2), large=dict())
image_size = dict(small=16, large=64)
