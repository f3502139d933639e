"""Our metrics against MMDetection's own, on the same predictions."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, VOCMetric

from onebit.detection import CocoAveragePrecision, VOCAveragePrecision
from onebit.detection.metrics import threads_for_processes

CLASSES = ("cat", "dog", "sheep")


def samples(count=12):
    """Ground truth, and predictions that are it with some noise, some false, some doubled."""
    rng = np.random.default_rng(0)
    for index in range(count):
        n = int(rng.integers(1, 6))
        low = rng.uniform(0, 60, (n, 2))
        boxes = np.hstack([low, low + rng.uniform(6, 60, (n, 2))]).round()
        labels = rng.integers(0, 2, n)  # no sheep
        noisy = np.vstack([boxes + rng.normal(0, 4, boxes.shape), boxes[:2], boxes[:1] + 40])
        noisy[:, 2:] = np.maximum(noisy[:, 2:], noisy[:, :2] + 2)
        predicted = np.concatenate([labels, labels[:2], [2]])
        difficult = rng.random(n) < 0.2

        def instances(keep, boxes=boxes, labels=labels):
            return dict(bboxes=torch.tensor(boxes[keep]), labels=torch.tensor(labels[keep]))

        yield dict(
            img_id=index,
            ori_shape=(128, 128),
            gt_instances=instances(~difficult),
            ignored_instances=instances(difficult),
            pred_instances=dict(
                bboxes=torch.tensor(noisy), labels=torch.tensor(predicted), scores=torch.tensor(rng.random(len(noisy)))
            ),
        )


def evaluate(metric):
    metric.dataset_meta = dict(classes=CLASSES)
    data = list(samples())
    metric.process({}, data)
    return metric.evaluate(len(data))


@pytest.mark.parametrize(("key", "mode"), [("map_area", "area"), ("map_11pt", "11points")])
def test_voc(key, mode):
    ours = evaluate(VOCAveragePrecision())
    with threads_for_processes():
        theirs = evaluate(VOCMetric(iou_thrs=0.5, eval_mode=mode))
    assert ours[key] == theirs["pascal_voc/mAP"]
    assert 0.2 < ours[key] < 0.95
    assert set(ours["per_class"]) == {"cat", "dog"}
    if mode == "area":
        assert np.mean(list(ours["per_class"].values())) == pytest.approx(ours[key], abs=1e-7)


@pytest.fixture
def annotations(tmp_path):
    images, rows = [], []
    for sample in samples():
        images.append(dict(id=sample["img_id"], file_name="x.jpg", width=128, height=128))
        boxes, labels = (sample["gt_instances"][k].numpy() for k in ("bboxes", "labels"))
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            rows.append(
                dict(
                    id=len(rows) + 1,
                    image_id=sample["img_id"],
                    category_id=label + 7,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 7, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=rows, categories=categories)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


def test_coco(annotations, capsys):
    ours = evaluate(CocoAveragePrecision(str(annotations), "truth.json"))
    theirs = evaluate(CocoMetric(str(annotations / "truth.json"), classwise=True))
    names = dict(AP="mAP", AP50="mAP_50", AP75="mAP_75", APs="mAP_s", APm="mAP_m")
    for key, name in names.items():
        assert ours[key] == pytest.approx(theirs[f"coco/bbox_{name}"], abs=5.1e-4)  # theirs is rounded
    assert "APl" not in ours  # no object that large
    assert 0.1 < ours["AP"] < 0.9
    assert np.mean(list(ours["per_class"].values())) == pytest.approx(ours["AP"])
    for name, value in ours["per_class"].items():
        assert value == pytest.approx(theirs[f"coco/{name}_precision"], abs=5.1e-4)
    assert set(ours["per_class"]) == {"cat", "dog"}


def test_coco_without_any_detection(annotations):
    metric = CocoAveragePrecision(str(annotations), "truth.json")
    metric.dataset_meta = dict(classes=CLASSES)
    data = list(samples())
    for sample in data:
        sample["pred_instances"] = {k: v[:0] for k, v in sample["pred_instances"].items()}
    metric.process({}, data)
    ours = metric.evaluate(len(data))
    assert ours["AP"] == ours["AP50"] == 0.0


def test_no_process_is_forked(monkeypatch):
    """Forked beside TensorBoard's threads it hung."""

    def fork():
        raise AssertionError("a process was forked")

    monkeypatch.setattr("os.fork", fork)
    assert 0.2 < evaluate(VOCAveragePrecision())["map_area"] < 0.95
