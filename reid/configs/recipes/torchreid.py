"""torchreid's customary schedule: its config of ResNet-50, softmax loss, 256x128, AMSGrad.

It is meant for a pretrained backbone (`init_from`), which that config holds still for the first five
epochs: add `fixbase_epochs=5`. Its random erasing is `data.transforms="[random_flip,random_erase]"`.
"""

_base_ = "paper.py"

epochs = 60
optimizer = dict(_delete_=True, type="Adam", amsgrad=True, lr=3e-4, betas=(0.9, 0.999), weight_decay=5e-4)
schedule = "step"
step_epochs, step_factor = 20, 0.1
data = dict(transforms=["random_flip"], batch_size_train=32, batch_size_test=100)
