# XNOR-Net (Rastegari et al., ECCV 2016), section 4.2, ResNet-18 on ImageNet. The paper is not at
# hand here: these are its numbers as we know them, not checked against it. 58 epochs at batch 256,
# the learning rate lowered after epochs 30 and 40, Adam for 1-bit inputs. The rate it prints, 0.1,
# is too high for Adam: 0.001 and the factor 0.1 are ours.
# Network: resnet18_xnor.
_base_ = "./dcp_nas_imagenet.py"

train_cfg = dict(max_epochs=58)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=0.0))
param_scheduler = dict(_delete_=True, type="MultiStepLR", by_epoch=True, milestones=[30, 40], gamma=0.1)
model = dict(label_smoothing=0.0)
auxiliary_weight = 0.0
