# The drawn stand-in for VOC, read by the same unmodified loader: five of VOC's twenty names.
_base_ = "./voc.py"

image_scale = (96, 96)
num_classes = 5
_classes = dict(classes=("aeroplane", "bottle", "car", "chair", "tvmonitor"))
_filter = dict(filter_empty_gt=True, min_size=32)
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                type="VOCDataset",
                data_root="VOCdevkit",
                ann_file=f"VOC{year}/ImageSets/Main/trainval.txt",
                data_prefix=dict(sub_data_root=f"VOC{year}/"),
                metainfo=_classes,
                filter_cfg=_filter,
                pipeline={{_base_.train_pipeline}},
            )
            for year in (2007, 2012)
        ]
    )
)
test_dataloader = dict(dataset=dict(metainfo=_classes))
