# ReActNet (Liu et al., ECCV 2020), ImageNet. The paper is not at hand here: these are its numbers as
# we know them, not checked against it. Two stages of 600,000 iterations at batch 256, which are 120
# epochs: activations 1-bit first, then weights too, from the first stage's weights. Both: Adam from
# 5e-4 to 0 linearly; weight decay 1e-5, then none. The loss is the distributional loss alone, the
# Kullback-Leibler divergence from a real-valued ResNet-34.
# Networks: resnet18_reactnet, reactnet_a.
# The teacher wants its weights: --cfg-options distillation.checkpoint=FILE (docs/training.md).
_base_ = "./dcp_nas_release.py"

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = dict(
    _delete_=True, type="LinearLR", start_factor=1.0, end_factor=0.0, by_epoch=True, convert_to_iter_based=True
)
stages = [
    dict(epochs=120, binarize="activations", weight_decay=1e-5),
    dict(epochs=120, binarize="both", weight_decay=0.0),
]
