"""What a user gets for a damaged dataset: one error that names the file."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from onebit.commons.datasets import DATASETS
from onebit.commons.errors import InputError
from onebit.detection import checks
from onebit.detection.checks import check_dataset
from onebit.detection.config import build_config
from tests.detection.conftest import DRAWN

# ruff: isort: split
from mmdet.registry import DATASETS as MMDET_DATASETS

YEAR = "VOCdevkit/VOC2007"


def check(data, make_job, dataset):
    job = make_job(data, dataset)
    return check_dataset(build_config(job, DATASETS[dataset].find(data)))


def first(data, dataset="mini-voc"):
    """The first training image's XML, or COCO's training annotations."""
    if dataset == "mini-voc":
        return data / dataset / YEAR / "Annotations" / "000001.xml"
    return data / dataset / "annotations" / "instances_train2017.json"


def edit_xml(data, old, new):
    path = first(data)
    text = path.read_text()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    path.write_text(changed)


def edit_json(data, change):
    path = first(data, "mini-coco")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("dataset", DRAWN)
def test_whole_data_pass(drawn, make_job, dataset):
    found = check(drawn, make_job, dataset)
    assert [found[p]["images"] for p in ("train", "test")] == [8, 4]
    assert found["train"]["degenerate"] == 0
    assert found["train"]["decoded"]
    assert found["train"]["objects"] >= 8


def test_kinds_of_data_by_their_class(drawn, make_job):
    """Whatever a config calls them: with a scope, or as a subclass of somebody's own."""
    job = make_job(drawn)
    cfg = build_config(job, DATASETS[job.dataset].find(drawn))
    whole = check_dataset(cfg, ["test"])
    leaf = cfg.test_dataloader.dataset
    leaf.metainfo = dict(classes=leaf.metainfo.classes)

    class TheirVOCDataset(MMDET_DATASETS.get("VOCDataset")):
        pass

    MMDET_DATASETS.register_module(module=TheirVOCDataset, force=True)
    for kind in ("mmdet.VOCDataset", "TheirVOCDataset"):
        leaf.type = kind
        assert check_dataset(cfg, ["test"]) == whole
    for kind in ("CityPersons", "mmdet.CocoPanopticMetric", "RefCocoDataset"):
        leaf.type = kind
        with pytest.raises(InputError, match="expected VOCDataset or CocoDataset"):
            check_dataset(cfg, ["test"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"<name>\w+</name>", "<name>unicorn</name>", "unknown class 'unicorn'; expected one of aeroplane"),
        (r"<name>\w+</name>", "<name>dog</name>", "unknown class 'dog'"),  # VOC's, but not the mini set's
        (r"<xmax>\d+</xmax>", "<xmax>98</xmax>", "outside its image of 96 x 96"),
        (r"<ymin>\d+</ymin>", "<ymin>-3</ymin>", "outside its image"),
        (r"<xmax>\d+</xmax>", "<xmax>0</xmax>", "x1 < x2"),
        (r"<xmax>\d+</xmax>", "<xmax>nan</xmax>", "x1 < x2"),
        (r"<xmax>\d+</xmax>", "<xmax>wide</xmax>", "expected a number in <bndbox/xmax>, found 'wide'"),
        (r"<ymax>\d+</ymax>", "", "expected a number in <bndbox/ymax>, found None"),
        (r"</annotation>", "", "malformed XML"),
        (r"<width>96</width>", "<width>100</width>", "says 000001.jpg has 100 x 96 pixels; found 96 x 96"),
    ],
)
def test_damaged_xml(data, make_job, old, new, message):
    edit_xml(data, old, new)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check(data, make_job, "mini-voc")
    assert str(first(data)) in str(error.value)


def test_box_without_area(data, make_job):
    text = first(data).read_text()
    left = re.search(r"<xmin>(\d+)", text)[1]
    edit_xml(data, r"<xmax>\d+</xmax>", f"<xmax>{left}</xmax>")
    with pytest.raises(InputError, match=r"000001\.xml, object 1: expected a box of at least one"):
        check(data, make_job, "mini-voc")


def test_one_pixel_outside_is_let_through(data, make_job):
    edit_xml(data, r"<xmax>\d+</xmax>", "<xmax>97</xmax>")
    edit_xml(data, r"<ymin>\d+</ymin>", "<ymin>0</ymin>")
    assert check(data, make_job, "mini-voc")["train"]["degenerate"] == 0


def damage_missing_image(path):
    path.unlink()


def damage_empty(path):
    path.write_bytes(b"")


def damage_truncated(path):
    path.write_bytes(path.read_bytes()[:-700])


def damage_text(path):
    path.write_text("<html>not found</html>")


@pytest.mark.parametrize("dataset", DRAWN)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing_image, "image missing: expected"),
        (damage_empty, "is empty"),
        (damage_truncated, "unreadable image"),
        (damage_text, "unreadable image"),
    ],
)
def test_damaged_image(data, make_job, dataset, damage, message):
    folder = data / dataset / (f"{YEAR}/JPEGImages" if dataset == "mini-voc" else "val2017")
    image = sorted(folder.iterdir())[-1]  # of the test part
    damage(image)
    with pytest.raises(InputError, match=message) as error:
        check(data, make_job, dataset)
    assert str(image) in str(error.value)


def test_missing_xml(data, make_job):
    first(data).unlink()
    with pytest.raises(InputError, match="file missing: expected") as error:
        check(data, make_job, "mini-voc")
    assert str(first(data)) in str(error.value)


@pytest.mark.parametrize("content", ["", "000001\n\n000002\n", "000001 1\n"])
def test_damaged_list(data, make_job, content):
    listing = data / "mini-voc" / YEAR / "ImageSets/Main/trainval.txt"
    listing.write_text(content)
    with pytest.raises(InputError, match=re.escape(str(listing))):
        check(data, make_job, "mini-voc")


def test_no_object_at_all(data, make_job):
    for path in (data / "mini-voc" / YEAR / "Annotations").glob("*.xml"):
        path.write_text(re.sub(r"<object>.*</object>", "", path.read_text(), flags=re.DOTALL))
    with pytest.raises(InputError, match="the test part of mini-voc has no object"):
        check(data, make_job, "mini-voc")


def set_annotation(**fields):
    return lambda content: content["annotations"][3].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_annotation(category_id=99), "unknown class, there is no category 99"),
        (set_annotation(image_id=-5), "there is no image -5"),
        (set_annotation(bbox=[90, 0, 20, 20]), "outside its image of 96 x 96"),
        (set_annotation(bbox=[5, 5, 20, 0]), "expected a box of at least one pixel"),
        (set_annotation(area=0), "expected a box of at least one pixel"),
        (set_annotation(bbox=[5, 5, -20, 10]), "x1 < x2"),
        (set_annotation(bbox=[5, 5, 20]), "expected a bbox of x, y, width, height"),
        (set_annotation(bbox=[5, 5, "a", 3]), "expected a bbox of x, y, width, height"),
        (set_annotation(id=1), "this id occurs twice"),
        (lambda c: c["annotations"][3].pop("iscrowd"), "expected a field 'iscrowd'"),
        (lambda c: c["categories"][0].update(name="unicorn"), "unknown class 'unicorn'"),
        (lambda c: c["images"][0].update(width=90), "has 90 x 96 pixels; found 96 x 96"),
        (lambda c: c["images"][0].pop("file_name"), "expected a field 'file_name'"),
        (lambda c: c.pop("categories"), "expected COCO's lists"),
        (lambda c: c.update(images=[], annotations=[]), "lists no image"),
    ],
)
def test_damaged_json(data, make_job, change, message):
    edit_json(data, change)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        check(data, make_job, "mini-coco")
    assert str(first(data, "mini-coco")) in str(error.value)


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\xff"])
def test_malformed_json(data, make_job, content):
    path = first(data, "mini-coco")
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=re.escape(str(path))):
        check(data, make_job, "mini-coco")


def test_large_sets_are_not_decoded_and_may_have_a_few_thin_boxes(data, make_job, monkeypatch):
    """What COCO's 118 thousand images get: names and sizes of files only."""
    monkeypatch.setattr(checks, "DECODE_LIMIT", 3)
    monkeypatch.setattr(checks, "DEGENERATE_SHARE", 2)
    edit_json(data, set_annotation(bbox=[5, 5, 20, 0.3]))
    image = data / "mini-coco" / "train2017" / "000000000001.jpg"
    image.write_bytes(image.read_bytes()[:-700])
    found = check(data, make_job, "mini-coco")
    assert found["train"]["degenerate"] == 1
    assert not found["train"]["decoded"]
    image.unlink()
    with pytest.raises(InputError, match="image missing"):
        check(data, make_job, "mini-coco")


def test_rotated_by_exif(data, make_job):
    """Cameras store a turned image and say so; the annotation may describe either."""
    name = data / "mini-coco" / "train2017" / "000000000001.jpg"
    image = Image.fromarray(np.zeros((96, 128, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(name, exif=exif)
    for width, height in [(128, 96), (96, 128)]:
        edit_json(data, lambda c, w=width, h=height: c["images"][0].update(width=w, height=h))
        check(data, make_job, "mini-coco")
    edit_json(data, lambda c: c["images"][0].update(width=128, height=128))
    with pytest.raises(InputError, match="has 128 x 128 pixels"):
        check(data, make_job, "mini-coco")


def test_missing_and_incomplete_dataset(data, make_job, tmp_path):
    from onebit.detection.runner import train

    with pytest.raises(InputError, match="dataset mini-voc not found: expected"):
        train(make_job(tmp_path / "nowhere"))
    (data / "mini-coco" / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(InputError, match=r"incomplete: expected .*instances_val2017"):
        train(make_job(data, "mini-coco"))
    assert not (tmp_path / "work").exists()


def test_a_damaged_dataset_stops_training_before_it_begins(data, make_job, tmp_path):
    from onebit.detection.runner import train

    edit_xml(data, r"<name>\w+</name>", "<name>unicorn</name>")
    with pytest.raises(InputError, match="unicorn"):
        train(make_job(data))
    assert not (tmp_path / "work").exists()
