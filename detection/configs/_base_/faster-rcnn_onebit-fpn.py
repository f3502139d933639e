# The same with 3x3 1-bit lateral convs (DCP-NAS, Sec. 4.1).
_base_ = "./faster-rcnn_fpn.py"

onebit_parts = "lateral"
model = dict(
    neck=dict(
        type="onebit.OneBitFPN",
        binarizer="bireal",
        pad_value=0,
        onebit_outputs=False,
        act_cfg=None,
        norm_cfg=dict(type="BN"),
    )
)
