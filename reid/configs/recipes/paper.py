"""DCP-NAS's schedule for re-identification (its implementation details); input size ours."""

height, width = 256, 128  # pixels

model = dict(
    loss="softmax",  # or "triplet": softmax and batch-hard triplet loss together
    neck="none",  # or "bn"
    feature_dim=None,  # None: as many as the backbone's last map has channels
    last_stride=2,  # or 1, for ResNets; see onebit.reid.model.ReIDModel for all of these
    backbone_options=dict(),  # overrides of onebit.backbones.create_backbone, e.g. dict(stem="cifar")
)
init_from = ""  # a checkpoint of `onebit train classification`, same backbone: start from its weights
epochs = 120
optimizer = dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
warmup_epochs = 0  # linear, from a tenth of lr; then the schedule, once per epoch
schedule = "cosine"  # to zero; or "step": times step_factor every step_epochs
step_epochs, step_factor = 20, 0.1
fixbase_epochs = 0  # so many epochs train the classifier alone
label_smooth = True
triplet = dict(margin=0.3, weight_t=1.0, weight_x=1.0)  # weights of triplet and softmax loss

data = dict(
    transforms=["random_flip", "random_crop"],  # names of torchreid
    batch_size_train=64,
    batch_size_test=128,
    train_sampler=None,  # None: RandomSampler, or for the triplet loss RandomIdentitySampler
    num_instances=4,  # images per identity in a batch of RandomIdentitySampler
    cuhk03_labeled=False,  # CUHK03's hand-drawn boxes instead of the detected ones
    cuhk03_classic_split=False,  # one of CUHK03's first 20 splits instead of the 767/700 one
    split_id=0,  # which of the 20
    workers=4,
)
evaluation = dict(
    distance="euclidean",  # or "cosine"
    protocol="auto",  # as the dataset is; or a name of onebit.reid.evaluation.PROTOCOLS
    rerank=False,  # score k-reciprocal re-ranked distances too
    k1=20,
    k2=6,
    lambda_value=0.3,
)
flip_features = False  # a feature is the sum of those of the image and of its mirror image; costs are of one
score_untrained = True  # score the network before its first step
