# Ours: a search on cifar10-jpeg that one core ends within half an hour. Fewer channels, images and
# epochs than the papers', images averaged to 16x16; the cells, splits and rules are theirs.
_base_ = "./paper.py"

space = dict(channels=8)
schedule = dict(epochs=15)
data = dict(image_size=16, images=4000, batch_size=64, augmentation=dict(padding=2))
overrides = [
    dict(board="imagenet", data=dict(image_size=64, augmentation=dict(_delete_=True))),
    dict(method="bnas", data=dict(valid=0.4, evaluation=0.1)),
]
