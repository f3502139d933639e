# Ours: cifar10-jpeg on two cores, a few minutes an epoch for narrow networks; the same for all.
_base_ = "./paper.py"

train_cfg = dict(max_epochs=5)
train_dataloader = dict(batch_size=128)
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
augmentation = dict(cifar10=dict(cutout=0))
