# Besides the whole neck, the stacks of 3x3 convs of FCOS's head are 1-bit.
_base_ = "./neck.py"

onebit_parts = "neck+head"
model = dict(bbox_head=dict(type="onebit.OneBitFCOSHead", binarizer="bireal", pad_value=0))
