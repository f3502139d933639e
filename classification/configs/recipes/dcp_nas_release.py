# The training of the DCP-NAS authors' release (github.com/YanjingLi0202/DCP-NAS: step1.sh, step2.sh, main.py,
# engine.py, datasets.py), which is another than their paper's.
# As there: two stages of 256 epochs, activations 1-bit first, then weights too, each with its own cosine from 0.001
# at batch 512 (8 processes of 64; the rate is scaled by batch / 512), without warm-up; weight decay 1e-5, then none;
# the loss is the Kullback-Leibler divergence from a real-valued ResNet-34 alone, without labels, label smoothing or
# auxiliary tower; crops of 8 to 100 % of the image.
# Not as there: its optimizer is AdamW (timm's default), ours the paper's Adam; its cosine goes from epoch to epoch and
# ends at 1e-5, ours from step to step and at 0; it adds PCA colour noise of 0.1 to crops and flips.
# What its networks compute otherwise than ours stands in docs/methods.md.
# The teacher wants its weights: --cfg-options distillation.checkpoint=FILE (docs/training.md).
_base_ = "./dcp_nas_imagenet.py"

model = dict(label_smoothing=0.0)
auxiliary_weight = 0.0
stages = [
    dict(epochs=256, binarize="activations", weight_decay=1e-5),
    dict(epochs=256, binarize="both", weight_decay=0.0),
]
distillation = dict(teacher="resnet34", loss="kl", temperature=1.0, weight=1.0)
