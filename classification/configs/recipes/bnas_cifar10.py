# BNAS, section 4.1, CIFAR-10: 600 epochs at batch 96, SGD from 0.025 by a cosine without restart,
# momentum 0.9, weight decay 3e-4, gradients clipped at 5, cutout (its side 16 is DARTS's).
# Networks: bnas (20 cells, 36 channels); bnas_c44 and bnas_c48 are the paper's "larger" ones.
_base_ = "./cp_nas_cifar10.py"
