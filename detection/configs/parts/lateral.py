# The neck of the DCP-NAS paper's detectors (Sec. 4.1): the FPN's 1x1 lateral convs are 3x3 1-bit convs. The binarizer
# is put in together with the backbone, here and below.
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
