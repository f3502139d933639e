# Ours: a search on cifar10-jpeg for one processor core. Half the channels, a sixteenth of the
# images, averaged to 16x16; the cells, the operations and the rules of the methods are the papers'.
_base_ = "./paper.py"

space = dict(channels=8)
# A fifth of 3200 images for evaluation: 5 % would be 160, too few to tell operations apart.
data = dict(image_size=16, images=3200, batch_size=64, valid=0.3, evaluation=0.2, augmentation=dict(padding=2))
# How long an epoch takes differs by method: DCP-NAS passes all operations of two networks, forward
# and back, several times a step. Architecture parameters take larger steps than the papers', as there
# are 15 to 50 times fewer of them.
overrides = [
    dict(layout="imagenet", data=dict(image_size=64, augmentation=dict(_delete_=True))),
    dict(method="dcp-nas", schedule=dict(epochs=5), options=dict(arch_lr=5e-3)),
    dict(method="darts", schedule=dict(epochs=14), options=dict(arch_lr=1.5e-2)),
    dict(method="pc-darts", schedule=dict(epochs=20), options=dict(arch_lr=1e-2)),
]
