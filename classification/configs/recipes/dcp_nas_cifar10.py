# DCP-NAS, section 4.1.3, CIFAR-10: 600 epochs at batch 96, Adam from 0.0025 by a cosine without
# restart, weight decay 1e-5, gradients clipped at 5, cutout. Side 16 of the cutout, crop and flip
# are DARTS's, which the paper follows; Adam's "momentum of 0.9" is its first beta.
# Networks: dcp_nas_s, dcp_nas_m, dcp_nas_l (10 cells, 54, 72, 108 channels).
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=600)
train_dataloader = dict(batch_size=96, num_workers=0)
test_dataloader = dict(batch_size=250, num_workers=0)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="Adam", lr=0.0025, betas=(0.9, 0.999), weight_decay=1e-5),
    clip_grad=dict(max_norm=5.0),
)
# Without T_max it ends with the training, however many epochs that is.
param_scheduler = dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True)
model = dict(label_smoothing=0.0)
augmentation = dict(small=dict(padding=4, flip=True, cutout=16), large=dict())
image_size = dict(small=None, large=224)
min_crop_area = 0.08
score_untrained = True
