"""The drawn datasets, read by MMDetection's unmodified loaders."""

import hashlib

import numpy as np
import pytest
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.utils import register_all_modules
from PIL import Image

from onebit.commons.datasets import DATASETS
from onebit.commons.mini import detection as mini
from onebit.commons.mini import draw
from onebit.detection.config import build_config
from tests.detection.conftest import DRAWN


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def load(drawn, make_job, dataset, loader):
    register_all_modules(init_default_scope=True)
    cfg = build_config(make_job(drawn, dataset), DATASETS[dataset].find(drawn))
    return MMDET_DATASETS.build(cfg[f"{loader}_dataloader"].dataset)


@pytest.mark.parametrize("dataset", DRAWN)
def test_drawn_twice_is_the_same_byte_for_byte(drawn, tmp_path, monkeypatch, dataset):
    from tests.detection.conftest import COUNTS

    monkeypatch.setattr(mini, "_COUNTS", COUNTS)
    draw(dataset, tmp_path / dataset)
    assert digests(tmp_path / dataset) == digests(drawn / dataset)
    images = [d for name, d in digests(drawn / dataset).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == 12  # no image in two parts


@pytest.mark.parametrize("dataset", DRAWN)
def test_real_loaders_read_them(drawn, make_job, dataset):
    train, test = (load(drawn, make_job, dataset, part) for part in ("train", "test"))
    assert (len(train), len(test)) == (8, 4)
    sample = train[0]
    assert sample["inputs"].shape == (3, 96, 96)
    assert len(sample["data_samples"].gt_instances) >= 1
    assert len(train.metainfo["classes"]) == 5


def test_all_kinds_are_drawn_and_boxes_are_tight():
    rng = np.random.default_rng(0)
    for kind in range(5):
        for _ in range(10):
            width, height = (int(s) for s in rng.integers(26, 53, size=2))
            box = (10, 20, 10 + width, 20 + height)
            canvas = np.full((mini.SIZE, mini.SIZE, 3), -1.0)
            mini._draw_object(canvas, kind, box, rng)
            rows, columns = np.nonzero((canvas != -1).all(axis=2))
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert found == box, kind


def test_objects_lie_inside_and_hardly_overlap():
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(60):
        image, objects = mini._draw_scene(rng)
        assert image.shape == (96, 96, 3)
        assert 1 <= len(objects) <= 3
        kinds |= {item.kind for item in objects}
        for i, item in enumerate(objects):
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 96
            assert 0 <= y1 < y2 <= 96
            for other in objects[:i]:
                assert mini._intersection(item.box, other.box) < 0.1 * (x2 - x1) * (y2 - y1)
    assert kinds == set(range(5))


def test_voc_corners_are_one_based_and_inclusive(drawn, make_job):
    """VOCDataset subtracts one from every corner: the drawn box loses its last row and column."""
    path = drawn / "mini-voc/VOCdevkit/VOC2007/Annotations/000001.xml"
    text = path.read_text()
    rng = mini._generator("voc2007trainval")
    _, objects = mini._draw_scene(rng)
    x1, y1, x2, y2 = objects[0].box
    for tag, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
        assert f"<{tag}>{value}</{tag}>" in text
    with Image.open(drawn / "mini-voc/VOCdevkit/VOC2007/JPEGImages/000001.jpg") as image:
        assert image.size == (96, 96)
    read = load(drawn, make_job, "mini-voc", "train").get_data_info(0)["instances"][0]["bbox"]
    assert read == [x1, y1, x2 - 1, y2 - 1]
