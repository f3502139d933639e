# The search of the papers. DCP-NAS, section 4.1.2, and CP-NAS, section 3.1, say the same but for
# Adam: 6 cells, 16 channels, 105 epochs at batch 512, 0.025 by a cosine to zero, momentum 0.9,
# weight decay 5e-4; half of the training set for the weights and 5 % for evaluation.
space = dict(cells=6, channels=16, pooling=True, skip=True)
schedule = dict(epochs=105, lr=0.025, momentum=0.9, weight_decay=5e-4)
data = dict(
    image_size=32,
    images=None,  # all of the training set
    # BNAS, section 4.2, and DARTS: the other half is for the architecture. The 5 % are taken of it.
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
options = dict()  # of the method; what is not here has the method's own default
# What differs where `board` or `method` is the search's; later ones over earlier ones.
overrides = [
    # DCP-NAS, section 4.1.2, CP-NAS, section 3.1, and BNAS, section 4.2.
    dict(
        board="imagenet",
        schedule=dict(lr=0.05),
        data=dict(image_size=224, augmentation=dict(_delete_=True), num_workers=8),
    ),
    # BNAS, section 4.2: half for the weights, 5K of the 50K images for validation.
    dict(method="bnas", data=dict(batch_size=400, valid=0.4, evaluation=0.1)),
    # DARTS (Liu et al., ICLR 2019) and PC-DARTS (Xu et al., ICLR 2020), CIFAR-10: two halves.
    dict(method="darts", schedule=dict(epochs=50, weight_decay=3e-4), data=dict(batch_size=64)),
    dict(method="pc-darts", schedule=dict(epochs=50, lr=0.1, weight_decay=3e-4), data=dict(batch_size=256)),
]  # fmt: skip
