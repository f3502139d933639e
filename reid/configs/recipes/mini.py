"""Ours: the mini datasets on two cores in less than a minute."""

_base_ = "paper.py"

height, width = 96, 48

model = dict(neck="bn")
epochs = 16
optimizer = dict(_delete_=True, type="AdamW", lr=2e-3, weight_decay=0.01)
warmup_epochs = 1
data = dict(
    # No flip: on which side somebody carries a bag belongs to the drawn identity.
    transforms=["random_crop", "color_jitter"],
    batch_size_train=32,
    workers=0,
)
distance = "cosine"
