# CP-NAS, section 3.1, ImageNet: 250 epochs at batch 256, SGD from 0.05 by a cosine, momentum 0.9,
# weight decay 3e-5, label smoothing and an auxiliary tower (0.1 and 0.4 are DARTS's).
# Network: cp_nas_c102 (10 cells, 102 channels).
_base_ = "./dcp_nas_imagenet.py"

train_cfg = dict(max_epochs=250)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.05, momentum=0.9, weight_decay=3e-5))
