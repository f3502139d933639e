"""The datasets of object detection."""

from __future__ import annotations

from onebit.commons.datasets.dataset import Dataset, Printed

#: The detector of the papers' tables, and of rows that name no other.
FASTER_RCNN = "faster_rcnn"
_MINI = "onebit.commons.mini.detection"

VOC = Dataset(
    name="voc",
    title="PASCAL VOC",
    task="detection",
    folders=(".",),
    required=tuple(
        f"VOCdevkit/VOC{year}/{part}"
        for year in (2007, 2012)
        for part in ("Annotations", "JPEGImages", "ImageSets/Main")
    ),
    how_to_get="Get VOC 2007 and 2012 from the PASCAL VOC site of the University of Oxford and unpack both, "
    "and VOC 2007 test, into VOCdevkit/.",
    reader="voc",
    split="trainval07+12 -> test07",
    protocol="VOC2007 test, IoU 0.5, area under curve (map_area) and 11-point (map_11pt), difficult objects ignored",
    metrics={"map_area": "mAP area", "map_11pt": "mAP 11-pt"},
    columns=(
        *("backbone", "detector", "quantization", "wa", "map_area", "map_11pt"),
        *("memory_strict", "memory_paper", "ops_strict", "ops_paper", "search_method"),
        *("untrained", "recipe", "epochs", "seeds", "source"),
    ),
    printed=(
        Printed(
            *("dcp-nas", "13", None, {"map": "map_area"}, 12, (3, 600, 1000)),
            quantization=True,
            detector=FASTER_RCNN,
            note="the paper does not say which of the two VOC APs its mAP is",
        ),
        Printed(
            *("ida-det", "1", None, {"map": "map_area"}, None, None),
            quantization=True,
            detector=FASTER_RCNN,
            note="its README does not say which of the two VOC APs its box AP is",
            search_method="Manual",
        ),
    ),
)
COCO = Dataset(
    name="coco",
    title="COCO",
    task="detection",
    folders=("coco",),
    required=("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017"),
    how_to_get="Get train2017, val2017 and their annotations from the COCO site (cocodataset.org). From the 2014 "
    "release with its trainval35k and minival files, `onebit data coco2014 DIR` makes them.",
    reader="coco",
    split="train2017 -> val2017",
    protocol="COCO box AP, IoU 0.50:0.95, 100 detections per image",
    printed=(
        Printed(
            *("dcp-nas", "14", None),
            {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_s": "APs", "ap_m": "APm", "ap_l": "APl"},
            *(12, (3, 800, 1333)),
            quantization=True,
            detector=FASTER_RCNN,
        ),
    ),
)
COCO128 = COCO.variant(
    "coco128",
    "development",
    ("coco128",),
    "The first 128 images of COCO train2017 in COCO layout; trained and scored on the same images.",
    required=("annotations/instances_train2017.json", "train2017"),
    reader="coco128",
    split="coco128 -> the same 128 images",
    protocol="COCO box AP on the training images, IoU 0.50:0.95, 100 detections per image",
    known_checksum="content:2debb478e777035fa9dc955a2ac0447e299cc104d40785e3b62b634572c2fc0a",
    scored_on_training=True,
)

ALL = (
    VOC,
    COCO,
    VOC.mini(f"{_MINI}:write_voc", reader="mini-voc", split=f"{VOC.split} of mini-voc (drawn)"),
    COCO.mini(f"{_MINI}:write_coco", reader="mini-coco", split=f"{COCO.split} of mini-coco (drawn)"),
    COCO128,
)
