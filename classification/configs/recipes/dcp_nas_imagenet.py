# DCP-NAS, section 4.1.3, ImageNet: 512 epochs at batch 512, Adam from 0.001 by a cosine, weight
# decay 3e-5, label smoothing and an auxiliary tower, whose 0.1 and 0.4 are DARTS's. Clipping is
# stated for CIFAR-10 only.
# Networks: dcp_nas_s, dcp_nas_m, dcp_nas_l (10 cells, 54, 72, 108 channels).
_base_ = "./dcp_nas_cifar10.py"

train_cfg = dict(max_epochs=512)
train_dataloader = dict(batch_size=512, num_workers=8)
test_dataloader = dict(num_workers=8)
optim_wrapper = dict(
    _delete_=True, type="OptimWrapper", optimizer=dict(type="Adam", lr=0.001, betas=(0.9, 0.999), weight_decay=3e-5)
)
model = dict(label_smoothing=0.1)
# Of networks of cells; others have no place for an auxiliary head.
auxiliary_weight = 0.4
