# Ours: mini-cifar10 in a minute or so of one core, to see the whole of a search at work. Nothing
# good is found in so few steps.
_base_ = "./small.py"

space = dict(cells=3, channels=4)
schedule = dict(epochs=20)
# No flip: the classes "slashed" and "across" of the drawn images would become each other.
data = dict(images=256, batch_size=32, augmentation=dict(padding=1, flip=False))
overrides = [
    dict(layout="imagenet", data=dict(image_size=32, augmentation=dict(_delete_=True))),
    dict(method="dcp-nas", schedule=dict(epochs=4), options=dict(arch_lr=3e-2)),
    dict(method="darts", schedule=dict(epochs=6), options=dict(arch_lr=3e-2)),
    dict(method="pc-darts", schedule=dict(epochs=6), options=dict(arch_lr=3e-2, k=2)),
    dict(method="cp-nas", options=dict(T=1)),
    dict(method="bnas", options=dict(T=1, L=2, freeze=1)),
    dict(method="abanditnas", options=dict(T=1)),
]
