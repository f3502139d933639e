# The 3x3 output convs of the FPN, and those of extra levels, are 1-bit as well.
_base_ = "./lateral.py"

onebit_parts = "neck"
model = dict(neck=dict(onebit_outputs=True))
