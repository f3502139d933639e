# Besides the whole neck, the 3x3 conv of the RPN is 1-bit.
_base_ = "./neck.py"

onebit_parts = "neck+rpn"
model = dict(rpn_head=dict(type="onebit.OneBitRPNHead", binarizer="bireal", pad_value=0))
