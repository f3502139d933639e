# As reactnet_release, for the network on MobileNet's plan (mobilenet/*/run.sh of the release): batch 256, Adam from 1.25e-3.
# Networks: reactnet_a.
_base_ = "./reactnet_release.py"

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=1.25e-3))
