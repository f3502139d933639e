# BNAS, section 4.1, ImageNet: 250 epochs at batch 512, SGD from 0.05 by a cosine, momentum 0.9,
# weight decay 3e-5, label smoothing and an auxiliary tower (0.1 and 0.4 are DARTS's).
# Network: bnas_imagenet (14 cells, 64 channels).
_base_ = "./cp_nas_imagenet.py"

train_dataloader = dict(batch_size=512)
