"""Predictions made by hand whose AP follows from the definition; every judge beside its original."""

import contextlib
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from onebit import detection
from onebit.commons.errors import InputError
from onebit.detection import predictions
from onebit.detection.metrics import JUDGES

# ruff: isort: split
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = ("cat", "dog", "sheep")
CAT, DOG = 1, 2
#: x, y, width, height; the sides are those of a medium object of COCO.
A, B, C = [10, 10, 50, 50], [80, 10, 50, 50], [10, 80, 50, 50]
AWAY = [140, 140, 40, 40]


def found(box, score, image=1, category=CAT):
    return dict(image_id=image, category_id=category, bbox=list(box), score=score)


def true(box, image=1, category=CAT, **more):
    return dict(image_id=image, category_id=category, bbox=list(box), **more)


def coco_truth(folder, objects, categories=((1, "cat"), (2, "dog"), (3, "sheep"))):
    rows = [
        dict(iscrowd=0, area=o["bbox"][2] * o["bbox"][3], id=n, **o)
        if "iscrowd" not in o
        else dict(area=o["bbox"][2] * o["bbox"][3], id=n, **o)
        for n, o in enumerate(objects, start=1)
    ]
    content = dict(
        images=[dict(id=i, file_name=f"{i}.jpg", width=200, height=200) for i in (1, 2)],
        annotations=rows,
        categories=[dict(id=i, name=name) for i, name in categories],
    )
    (folder / "truth.json").write_text(json.dumps(content))
    return folder / "truth.json"


def coco(folder, objects, detections, judge="pycocotools", **truth):
    path = coco_truth(folder, objects, **truth)
    metric = detection.CocoAveragePrecision(str(folder), path.name, judge=judge)
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES))
    return metric.score_file(predictions.write(folder / "found.json", detections), dataset)


class VocTruth:
    """Objects in the form of MMDetection's VOC dataset; widths without the far pixel."""

    @property
    def metainfo(self):
        return dict(classes=CLASSES)

    def __init__(self, objects):
        self.objects = objects

    def __len__(self):
        return 2

    def get_data_info(self, index):
        rows = [o for o in self.objects if o["image_id"] == index + 1]
        instances = [
            dict(bbox=[x, y, x + width, y + height], bbox_label=o["category_id"] - 1, ignore_flag=o.get("difficult", 0))
            for o in rows
            for x, y, width, height in [o["bbox"]]
        ]
        return dict(img_id=f"00000{index + 1}", instances=instances)


def voc(folder, objects, detections):
    path = predictions.write(folder / "found.json", detections)
    return detection.VOCAveragePrecision().score_file(path, VocTruth(objects))


TWO = [true(A), true(B, image=2)]
FOUND = [found(A, 0.9), found(B, 0.8, image=2)]
#: name: (objects, detections, COCO's AP at a single IoU, VOC's area, VOC's 11 points)
CASES = {
    "perfect": (TWO, FOUND, 1, 1, 1),
    "empty": (TWO, [], 0, 0, 0),
    "in the wrong place": (TWO, [found(AWAY, 0.9), found(AWAY, 0.8, image=2)], 0, 0, 0),
    "of the wrong class": (TWO, [{**f, "category_id": DOG} for f in FOUND], 0, 0, 0),
    "on the wrong image": (TWO, [found(A, 0.9, image=2), found(B, 0.9)], 0, 0, 0),
    # One of two objects: recall 0.5 is 51 of COCO's 101 points and 6 of VOC's 11.
    "half": (TWO, FOUND[:1], 51 / 101, 0.5, 6 / 11),
    # A second box on an object is wrong: precision 1 up to recall 0.5, then 2/3.
    "duplicate": (
        TWO,
        [found(A, 0.9), found(A, 0.85), found(B, 0.8, image=2)],
        (51 + 50 * 2 / 3) / 101,
        (1 + 2 / 3) / 2,
        (6 + 5 * 2 / 3) / 11,
    ),
    "duplicates after all is found": (TWO, [*FOUND, found(A, 0.1), found(B, 0.1, image=2)], 1, 1, 1),
    # Wrong before right: precision 1/2, then 2/3, which counts for all lower recalls as well.
    "wrong first": (TWO, [found(AWAY, 0.95), *FOUND], 2 / 3, 2 / 3, 2 / 3),
}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("case", CASES)
def test_known_coco_ap(tmp_path, case, judge):
    objects, detections, expected, _, _ = CASES[case]
    metrics = coco(tmp_path, objects, detections, judge)
    per_class = metrics.pop("per_class")
    # Every hit is exact: all IoUs have the same AP. The objects are medium, so that there is no
    # AP of small and large ones, and neither of classes without an object.
    assert metrics == pytest.approx(dict.fromkeys(("AP", "AP50", "AP75", "APm"), expected))
    assert per_class == pytest.approx({"cat": expected})


@pytest.mark.parametrize("case", CASES)
def test_known_voc_ap(tmp_path, case):
    objects, detections, _, area, points = CASES[case]
    metrics = voc(tmp_path, objects, detections)
    assert metrics["map_area"] == pytest.approx(area)
    assert metrics["map_11pt"] == pytest.approx(points)
    assert metrics["per_class"] == pytest.approx({"cat": area})


@pytest.mark.parametrize("judge", JUDGES)
def test_the_ten_ious_of_coco(tmp_path, judge):
    """36 of 50 columns covered: IoU 0.72, right at 0.50, 0.55, 0.60, 0.65 and 0.70."""
    metrics = coco(tmp_path, [true(A)], [found([10, 10, 36, 50], 0.9)], judge)
    assert metrics["AP"] == pytest.approx(0.5)
    assert (metrics["AP50"], metrics["AP75"]) == pytest.approx((1, 0))


def test_the_iou_of_voc_counts_far_pixels(tmp_path):
    """Boxes of 10 x 10 pixels that share 10 x 6.9: IoU 0.53 with their far pixels, 0.49 without."""
    objects = [true([10, 10, 9, 9])]
    hit = [found([13.1, 10, 9, 9], 0.9)]
    assert voc(tmp_path, objects, hit)["map_area"] == 1
    assert coco(tmp_path, [true([10, 10, 9, 9])], [found([13.1, 10, 9, 9], 0.9)])["AP50"] == 0


@pytest.mark.parametrize("judge", JUDGES)
def test_sizes(tmp_path, judge):
    small, large = [150, 150, 20, 20], [10, 10, 120, 120]
    metrics = coco(tmp_path, [true(small), true(large)], [found(small, 0.9)], judge)
    assert (metrics["APs"], metrics["APl"]) == pytest.approx((1, 0))
    assert "APm" not in metrics


@pytest.mark.parametrize("judge", JUDGES)
def test_crowds_neither_help_nor_harm(tmp_path, judge):
    crowd = true([70, 70, 120, 120], iscrowd=1)
    # Inside the crowd, above all scores: however many, they do not count.
    inside = [found([70 + 10 * n, 80, 40, 40], 0.95) for n in range(6)]
    assert coco(tmp_path, [*TWO, crowd], [*inside, *FOUND], judge)["AP"] == pytest.approx(1)
    assert coco(tmp_path, [*TWO, crowd], FOUND, judge)["AP"] == pytest.approx(1)
    # The same boxes without the crowd are wrong: precision 1/7, then 2/8.
    assert coco(tmp_path, TWO, [*inside, *FOUND], judge)["AP"] == pytest.approx(2 / 8)
    # A class that has nothing but crowds has no AP.
    crowd["category_id"] = DOG
    assert set(coco(tmp_path, [*TWO, crowd], FOUND, judge)["per_class"]) == {"cat"}


def test_difficult_objects_neither_help_nor_harm(tmp_path):
    difficult = true(C, difficult=1)
    for detections in (FOUND, [*FOUND, found(C, 0.95)], [*FOUND, found(C, 0.95), found(C, 0.93)]):
        assert voc(tmp_path, [*TWO, difficult], detections)["map_area"] == 1
    assert voc(tmp_path, TWO, [*FOUND, found(C, 0.95)])["map_area"] == pytest.approx(2 / 3)
    difficult["category_id"] = DOG
    assert set(voc(tmp_path, [*TWO, difficult], FOUND)["per_class"]) == {"cat"}


@pytest.mark.parametrize("judge", JUDGES)
def test_classes_by_name_whatever_the_order_of_ids(tmp_path, judge):
    objects = [true(A, category=9), true(B, category=4)]
    categories = ((9, "cat"), (4, "dog"), (6, "sheep"))
    metrics = coco(tmp_path, objects, [found(B, 0.9, category=4)], judge, categories=categories)
    assert metrics["per_class"] == pytest.approx({"cat": 0, "dog": 1})


def random_set(seed):
    rng = np.random.default_rng(seed)

    def box():
        x, y = rng.uniform(0, 60, 2)
        return [float(v) for v in (x, y, *rng.uniform(5, 130, 2))]

    objects = [
        true(box(), int(rng.integers(1, 3)), int(rng.integers(1, 4)), iscrowd=int(rng.random() < 0.2))
        for _ in range(25)
    ]
    detections = [
        found(
            np.maximum(np.array(o["bbox"]) + rng.normal(0, 4, 4), 1).tolist(),
            round(float(rng.random()), 1),
            o["image_id"],
            o["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 4)),
        )
        for o in objects * 3
        if rng.random() < 0.8
    ]
    detections += [found(box(), float(rng.random()), int(rng.integers(1, 3))) for _ in range(30)]
    return objects, detections


@pytest.mark.parametrize("seed", range(4))
def test_every_judge_says_what_pycocotools_says(tmp_path, seed):
    objects, detections = random_set(seed)
    ours = {judge: coco(tmp_path, objects, detections, judge) for judge in JUDGES}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        original = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
        original.evaluate()
        original.accumulate()
        original.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    assert 0.05 < original.stats[0] < 0.9
    assert [ours["pycocotools"][k] for k in names] == original.stats[:6].tolist()
    faster = ours["faster-coco-eval"]
    assert faster.pop("per_class") == pytest.approx(ours["pycocotools"].pop("per_class"), abs=1e-12)
    assert faster == pytest.approx(ours["pycocotools"], abs=1e-12)


def test_a_judge_that_is_not_there(tmp_path, monkeypatch):
    path = coco_truth(tmp_path, TWO)
    with pytest.raises(InputError, match="judge of COCO AP 'mine': expected one of"):
        detection.CocoAveragePrecision(str(tmp_path), path.name, judge="mine")
    monkeypatch.setitem(JUDGES, "faster-coco-eval", "not_installed_here")
    with pytest.raises(InputError, match="pip install faster-coco-eval"):
        detection.CocoAveragePrecision(str(tmp_path), path.name, judge="faster-coco-eval")
