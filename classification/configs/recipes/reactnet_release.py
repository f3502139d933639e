# The training of ReActNet's release for ResNets (liuzechun/ReActNet, resnet/*/run.sh and train.py), which is another than
# the paper's: 128 epochs in each stage at batch 512, Adam from 2.5e-3. The rate is set at the start of an epoch, to
# (1 - (e + 1) / 128) of the first one in epoch e counted from 0, so that the last epoch's is 0. Weights of convolutions
# alone decay. The release also shifts colours (Lighting 0.1), which is left out here.
# Networks: resnet18_reactnet.
# The teacher wants its weights: --cfg-options distillation.checkpoint=FILE (docs/training.md).
_base_ = "./reactnet.py"

train_dataloader = dict(batch_size=512)
optim_wrapper = dict(
    optimizer=dict(lr=2.5e-3),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={key: dict(decay_mult=0.0) for key in ("classifier", "quantize_input", "shift_in", "shift_out")},
    ),
)
param_scheduler = dict(_delete_=True, type="LinearLR", start_factor=127 / 128, end_factor=0.0, by_epoch=True)
stages = [
    dict(epochs=128, binarize="activations", weight_decay=1e-5),
    dict(epochs=128, binarize="both", weight_decay=0.0),
]
