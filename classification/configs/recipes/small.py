# Ours: cifar10-jpeg, 3 epochs, the same for all: one core trains a ResNet-18 of 8 channels in about
# five minutes, a cell network of 8 channels and 6 cells in about 25.
_base_ = "./dcp_nas_cifar10.py"

train_cfg = dict(max_epochs=3)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.003, weight_decay=0.01),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
augmentation = dict(small=dict(cutout=0))
