# The training of the DCP-NAS authors' release, which is another than their paper's: two stages of
# 256 epochs, activations 1-bit first, then weights too; the loss is the Kullback-Leibler divergence
# from a real-valued ResNet-34 alone; weight decay 1e-5, then none. The release is not at hand here,
# and this is what we know of it: batch, optimizer and learning rate are those of the paper's
# section 4.1.3 for ImageNet; that each stage has its own cosine is ours.
# The teacher wants its weights: --cfg-options distillation.checkpoint=FILE (docs/training.md).
_base_ = "./dcp_nas_imagenet.py"

model = dict(label_smoothing=0.0)
auxiliary_weight = 0.0
stages = [
    dict(epochs=256, binarize="activations", weight_decay=1e-5),
    dict(epochs=256, binarize="both", weight_decay=0.0),
]
distillation = dict(teacher="resnet34", loss="kl", temperature=1.0, weight=1.0)
