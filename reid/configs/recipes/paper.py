"""DCP-NAS's schedule for re-identification (its implementation details); input size ours."""

height, width = 256, 128  # pixels

model = dict(
    neck="none",  # or "bn"; see reid.model.ReIDModel
    backbone_options=dict(),  # overrides of backbones.create_backbone, e.g. dict(stem="cifar")
)
epochs = 120
optimizer = dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
warmup_epochs = 0  # linear, from a tenth of lr; the cosine to zero follows, once per epoch
label_smooth = True

data = dict(
    transforms=["random_flip", "random_crop"],  # names of torchreid
    batch_size_train=64,
    batch_size_test=128,
    train_sampler="RandomSampler",
    workers=4,
)
evaluation = dict(
    distance="euclidean",  # or "cosine"
    protocol="auto",  # as the dataset is; or a name of reid.evaluation.PROTOCOLS
    rerank=False,  # score k-reciprocal re-ranked distances too
    k1=20,
    k2=6,
    lambda_value=0.3,
)
score_untrained = True  # score the network before its first step
