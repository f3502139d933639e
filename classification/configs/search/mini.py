# Ours: mini-cifar10 within a minute or two of one core, to see the whole of a search at work.
_base_ = "./small.py"

space = dict(channels=4)
schedule = dict(epochs=4)
# No flip: the classes "slashed" and "across" of the drawn images would become each other.
data = dict(image_size=16, images=320, batch_size=32, augmentation=dict(padding=1, flip=False))
