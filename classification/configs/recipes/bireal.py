# Bi-Real Net (Liu et al., ECCV 2018), section 4.1, 18 layers on ImageNet. The paper is not at hand
# here: these are its numbers as we know them, not checked against it. 20 epochs at batch 512, SGD
# from 0.01, a tenth of it after epochs 10 and 15, momentum 0.9, no weight decay. It starts from a
# real-valued network of the same shape; such weights go in by --cfg-options
# model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
# model.backbone.init_cfg.prefix=backbone.
# Networks: resnet18_bireal; for resnet34_bireal it has 40 epochs at batch 1024, steps 20 and 30.
_base_ = "./dcp_nas_imagenet.py"

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0))
param_scheduler = dict(_delete_=True, type="MultiStepLR", by_epoch=True, milestones=[10, 15], gamma=0.1)
model = dict(label_smoothing=0.0)
auxiliary_weight = 0.0
