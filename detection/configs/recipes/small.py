# coco128 from scratch on one core, about ten minutes a row: 128 images to be learned by heart, so no
# augmentation but the flip. The same for real-valued and 1-bit detectors; the stabilizers that the
# 1-bit ones need when they start from nothing are a warm-up, clipped gradients and batch norms in
# training mode.
_base_ = "./_narrow.py"

image_scale = (192, 192)
threads = 1
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=64, val_interval=64)
train_dataloader = dict(batch_size=4)
test_dataloader = dict(batch_size=4)
optim_wrapper = dict(
    type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.0001), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True),
]
