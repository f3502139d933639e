# Besides the whole neck, the stacks of 3x3 convs of RetinaNet's head are 1-bit, with the head's own norm after each.
_base_ = "./neck.py"

onebit_parts = "neck+head"
model = dict(
    bbox_head=dict(
        type="onebit.OneBitRetinaHead", binarizer="bireal", pad_value=0, norm_cfg=dict(type="GN", num_groups=32)
    )
)
