# Ours: one fixed schedule for all methods, long enough to compare them: 30 epochs of cifar10-jpeg or
# fashion-mnist, about two hours of two CPU cores for a ResNet-20, minutes of a GPU. One stage, no teacher.
_base_ = "./small.py"

train_cfg = dict(max_epochs=30)
train_dataloader = dict(batch_size=128)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=400),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
