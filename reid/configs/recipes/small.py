"""Ours: the real datasets on two cores in about an hour with a narrow ResNet."""

_base_ = "paper.py"

model = dict(neck="bn")
epochs = 20
optimizer = dict(_delete_=True, type="AdamW", lr=2e-3, weight_decay=0.01)
warmup_epochs = 1
data = dict(workers=1)
evaluation = dict(distance="cosine")
