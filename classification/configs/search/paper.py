# The searches of the papers. DCP-NAS, section 4.1.2, and CP-NAS, section 3.1: 6 cells, 16 channels,
# 105 epochs at batch 512, 0.025 by a cosine to zero, momentum 0.9, weight decay 5e-4; half of the
# training set for the weights and 5 % for evaluation.
space = dict(cells=6, channels=16, pooling=True, skip=True)
# CP-NAS, BNAS and ABanditNAS know themselves how many epochs they take.
schedule = dict(epochs=105, optimizer="sgd", lr=0.025, momentum=0.9, weight_decay=5e-4)
data = dict(
    image_size=32,
    images=None,  # all of the training set
    # DARTS, and BNAS, section 4.1.2: the other half is for the architecture; the 5 % are of it.
    train=0.5,
    valid=0.45,
    evaluation=0.05,
    batch_size=512,
    evaluation_batch_size=250,
    num_workers=0,
    augmentation=dict(padding=4, flip=True),  # DARTS, whose settings the papers follow
    min_crop_area=0.08,
)
amp = None  # or "bfloat16", "float16"
# How the cell is made of the last scores: `top2` or `all14` edges (None: as the method's paper does), and whether `none`
# may survive.
derivation = dict(edges=None, keep_none=False)
options = dict()  # of the method; what is not here has the method's own default
# What differs where `layout` of the data or `method` is the search's; later ones over earlier ones.
# The layout `imagenet` is any folder of images too large to be held in memory.
overrides = [
    # DCP-NAS, section 4.1.2, CP-NAS, section 3.1, and BNAS, section 4.1.2.
    dict(
        layout="imagenet",
        schedule=dict(lr=0.05),
        data=dict(image_size=224, augmentation=dict(_delete_=True), num_workers=8),
    ),
    # DCP-NAS, section 4.1.2, CP-NAS, section 3.1.
    # DCP-NAS alone says "Adam with momentum", with the same numbers.
    dict(method="dcp-nas", schedule=dict(optimizer="adam"), options=dict(lambda_=1e-4)),
    dict(method="dcp-nas", layout="imagenet", options=dict(lambda_=1e-3)),
    dict(method="cp-nas", options=dict(beta_p=2.0)),
    dict(method="cp-nas", layout="imagenet", options=dict(beta_p=0.33)),
    # BNAS, section 4.1.2: half for the weights, 5K of the 50K images for validation, batch 400 (its
    # five epochs of warm-up have 128).
    dict(method="bnas", data=dict(batch_size=400, valid=0.4, evaluation=0.1)),
    # DARTS (Liu et al., ICLR 2019, section 3.1) and PC-DARTS (Xu et al., ICLR 2020, section 4.2).
    dict(
        method="darts", schedule=dict(epochs=50, weight_decay=3e-4), data=dict(batch_size=64, valid=0.5, evaluation=0.0)
    ),
    dict(
        method="pc-darts",
        schedule=dict(epochs=50, lr=0.1, weight_decay=3e-4),
        data=dict(batch_size=256, valid=0.5, evaluation=0.0),
    ),
]
