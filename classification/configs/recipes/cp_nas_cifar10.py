# CP-NAS, section 3.1, CIFAR-10: 600 epochs at batch 96, SGD from 0.025 by a cosine without restart,
# momentum 0.9, weight decay 3e-4, gradients clipped at 5, cutout (its side 16 is DARTS's). The
# weight of the paper's own loss (Eq. 3) is not printed: `onebit.backbones.ChildParentLoss` adds it.
# Networks: cp_nas_s, cp_nas_m, cp_nas_l (10 cells, 56, 72, 112 channels).
_base_ = "./dcp_nas_cifar10.py"

optim_wrapper = dict(optimizer=dict(_delete_=True, type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4))
