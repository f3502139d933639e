# The 3x3 output convs of the FPN are 1-bit as well.
_base_ = "./faster-rcnn_onebit-fpn.py"

onebit_parts = "neck"
model = dict(neck=dict(onebit_outputs=True))
