"""Labels of one's own: what is read, what is said of wrong ones, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onebit.commons.datasets import get_dataset, own
from onebit.commons.errors import InputError

WIDTH, HEIGHT = 60, 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ONEBIT_CACHE", str(tmp_path / "cache"))
    own._prepare.cache_clear()
    return tmp_path / "cache"


def picture(path: Path, size=(WIDTH, HEIGHT), **save) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path, **save)


def coco(folder: Path, change=None, images: int = 5) -> str:
    """Five pictures with a box each; ids and classes in another order than their names."""
    content = dict(
        images=[dict(id=7 * i, file_name=f"im {i}.png", width=WIDTH, height=HEIGHT) for i in range(images)],
        categories=[dict(id=42, name="ant"), dict(id=3, name="cat"), dict(id=9, name="bee"), dict(id=1, name="none")],
        annotations=[
            dict(id=i, image_id=7 * i, category_id=(42, 3, 9)[i % 3], bbox=[5, 6, 20, 10]) for i in range(images)
        ],
    )
    for image in content["images"]:
        picture(folder / image["file_name"])
    if change:
        change(content)
    (folder / "labels.json").write_text(json.dumps(content))
    return f"coco:{folder / 'labels.json'}"


def prepared(name: str, part: str) -> dict:
    dataset = get_dataset(name, "detection")
    return json.loads((dataset.find("nowhere") / f"{part}.json").read_bytes())


def both(name: str) -> list[dict]:
    return [row for part in ("train", "val") for row in prepared(name, part)["annotations"]]


def test_ids_and_order_of_a_coco_file_are_kept(tmp_path) -> None:
    name = coco(tmp_path)
    dataset = get_dataset(name)
    assert dataset.classes == ("cat", "bee", "ant")
    assert dataset.counts == {"classes left out, without any box": 1}
    train, val = prepared(name, "train"), prepared(name, "val")
    assert train["categories"] == val["categories"] == [
        dict(id=3, name="cat"), dict(id=9, name="bee"), dict(id=42, name="ant")
    ]  # fmt: skip
    assert sorted(image["id"] for part in (train, val) for image in part["images"]) == [0, 7, 14, 21, 28]
    assert len(val["images"]) == 1
    assert all(row["area"] == 200 and row["iscrowd"] == 0 and row["id"] > 0 for row in both(name))


def test_the_split_depends_on_names_alone(tmp_path) -> None:
    few, many = coco(tmp_path / "few", images=10), coco(tmp_path / "many", images=20)
    scored = {image["file_name"] for image in prepared(few, "val")["images"]}
    train = {image["file_name"] for image in prepared(many, "train")["images"]}
    assert len(scored) == 2
    first_ten = {f"im {i}.png" for i in range(10)}
    # More pictures may move some out of the scored ones by the rule's share, none by their content or order.
    assert {image["file_name"] for image in prepared(many, "val")["images"]} & first_ten <= scored | (first_ten - train)
    turned = coco(tmp_path / "turned", lambda c: c["images"].reverse(), images=10)
    assert {image["file_name"] for image in prepared(turned, "val")["images"]} == scored


def test_train_and_val_of_two_files(tmp_path) -> None:
    coco(tmp_path / "a"), coco(tmp_path / "b", images=3)
    name = f"coco:{tmp_path / 'a' / 'labels.json'},{tmp_path / 'b' / 'labels.json'}"
    assert len(prepared(name, "train")["images"]) == 5
    assert len(prepared(name, "val")["images"]) == 3
    assert get_dataset(name).split == "train of a -> val of a"


def test_the_name_is_known_afterwards_and_follows_the_labels(tmp_path) -> None:
    first = get_dataset(coco(tmp_path))
    assert get_dataset(first.name) == first
    assert first.board == "own"
    assert first.checksum("nowhere").startswith("content:")
    own._prepare.cache_clear()
    other = get_dataset(coco(tmp_path, lambda c: c["annotations"][0].update(bbox=[5, 6, 21, 10])))
    assert other.name != first.name
    picture(tmp_path / "im 0.png", size=(WIDTH, HEIGHT), optimize=True)


def test_pictures_that_are_gone_are_said(tmp_path) -> None:
    name = get_dataset(coco(tmp_path / "data")).name
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its pictures are no longer in .*data: name its labels again"):
        get_dataset(name).find("nowhere")


def _boxes(**changes):
    def change(content):
        content["annotations"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_boxes(category_id=5), "labels.json, annotation 0: there is no category 5"),
        (_boxes(image_id=1), "labels.json, annotation 0: there is no image 1"),
        (_boxes(bbox=[5, 6, -20, 10]), "annotation 0: expected a width and a height, found -20 and 10"),
        (_boxes(bbox=[5, 6, 20]), "annotation 0: expected a bbox of x, y, width, height"),
        (_boxes(bbox=[5, 6, float("nan"), 3]), "annotation 0: expected a bbox of x, y, width, height"),
        (_boxes(iscrowd=2), "annotation 0: expected an iscrowd of 0 or 1, found 2"),
        (_boxes(id=1), "labels.json, annotation 1: this id occurs twice"),
        (lambda c: c["images"][1].update(file_name="no.png"), "labels.json, image 7: picture missing: expected .*no.png"),
        (lambda c: c["images"][1].update(file_name="../x.png"), "image 7: expected the name of an image below its folder"),
        (lambda c: c["images"][1].update(file_name="im 0.png"), "picture im 0.png is listed twice"),
        (lambda c: c["images"][1].update(width=61), "image 7 says im 1.png has 61 x 40 pixels; found 60 x 40"),
        (lambda c: c["images"][1].pop("file_name"), "image number 2 of the list: expected a field 'file_name'"),
        (lambda c: c["categories"][1].update(name="ant"), "class 'ant' is there twice"),
        (lambda c: c.pop("categories"), "expected COCO's lists images, annotations, categories"),
        (lambda c: c["annotations"].clear(), "none of the 4 pictures to train has a box that counts"),
    ],
)  # fmt: skip
def test_wrong_labels_of_coco_are_one_line(tmp_path, change, message) -> None:
    with pytest.raises(InputError, match=message):
        get_dataset(coco(tmp_path, change))


def test_a_missing_file_is_not_malformed(tmp_path) -> None:
    with pytest.raises(InputError, match=r"file missing: expected .*none\.json"):
        get_dataset(f"coco:{tmp_path / 'none.json'}")


def test_boxes_are_clipped_or_left_out_and_counted(tmp_path) -> None:
    def change(content):
        wrong = ([-8, 6, 20, 10], [70, 6, 20, 10], [5, 6, 0.4, 10], [5, 6, 20, 10], [-0.5, 6, 20, 10])
        for row, bbox in zip(content["annotations"], wrong, strict=True):
            row.update(bbox=bbox, area=200)
        content["annotations"][3]["iscrowd"] = 1
        content["annotations"] += [dict(id=10 + i, image_id=7 * i, category_id=3, bbox=[1, 1, 9, 9]) for i in range(5)]
        content["annotations"].append(dict(id=20, image_id=0, category_id=3, bbox=[1, 1, 9, 9], ignore=1))

    name = coco(tmp_path, change)
    assert get_dataset(name).counts == {
        "boxes clipped": 1,
        "boxes left out, marked ignore": 1,
        "boxes left out, outside their picture": 1,
        "boxes left out, thinner than a pixel": 1,
        "boxes not to count (crowd, difficult)": 1,
        "classes left out, without any box": 2,
    }
    found = [row["bbox"] + [row["area"]] for row in both(name) if row["bbox"] != [1, 1, 9, 9]]
    assert sorted(found) == [[0.0, 6, 12.0, 10, 120.0], [0.0, 6, 19.5, 10, 195.0], [5, 6, 20, 10, 200]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("labelled", ["shown", "stored"])
def test_boxes_of_turned_pictures(tmp_path, orientation, labelled) -> None:
    """A bright rectangle lies where the prepared box says, in the picture as Pillow turns it."""
    from PIL import ImageOps

    name = coco(tmp_path)
    array = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y, w, h = 8, 4, 20, 12
    array[y : y + h, x : x + w] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / "im 0.png", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "im 0.png")))[..., 0]
    rows, columns = np.nonzero(shown)
    expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    content = json.loads((tmp_path / "labels.json").read_text())
    as_stored = labelled == "stored" and orientation >= 5
    content["images"][0].update(
        zip(("width", "height"), (WIDTH, HEIGHT) if as_stored else shown.shape[::-1], strict=True)
    )
    content["annotations"][0]["bbox"] = [x, y, w, h] if as_stored else [int(v) for v in expected]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert next(row["bbox"] for row in both(name) if row["bbox"] != [5, 6, 20, 10]) == expected
    counts = get_dataset(name).counts
    assert counts.get("pictures turned by EXIF", 0) == (orientation > 1)
    assert counts.get("pictures whose boxes were of the unturned picture", 0) == as_stored


def voc(folder: Path, change=lambda text: text) -> str:
    for i in range(5):
        picture(folder / "JPEGImages" / f"{i}.{'jpg' if i % 2 else 'png'}")
        kind = ("dog", "cat", "dog")[i % 3]
        text = (
            f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
            f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>6</xmin><ymin>7</ymin>"
            "<xmax>25</xmax><ymax>16</ymax></bndbox></object></annotation>"
        )
        path = folder / "Annotations" / f"{i}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(change(text) if i == 0 else text)
    return f"voc:{folder}"


def test_a_voc_folder(tmp_path) -> None:
    name = voc(tmp_path, lambda text: text.replace("<difficult>0", "<difficult>1"))
    assert get_dataset(name).classes == ("cat", "dog")
    # VOC counts from 1, with the far edges in the box.
    assert {tuple(row["bbox"]) for row in both(name)} == {(5, 6, 20, 10)}
    assert sum(row["iscrowd"] for row in both(name)) == 1
    sets = tmp_path / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("0\n1\n2\n")
    (sets / "val.txt").write_text("3\n")
    own._prepare.cache_clear()
    assert [i["file_name"] for i in prepared(name, "val")["images"]] == ["JPEGImages/3.jpg"]
    assert len(prepared(name, "train")["images"]) == 3


def test_a_voc_folder_with_labels_beside_pictures(tmp_path) -> None:
    voc(tmp_path / "made")
    for i in range(5):
        part = tmp_path / "flat" / ("train" if i < 3 else "valid")
        part.mkdir(parents=True, exist_ok=True)
        for path in tmp_path.glob(f"made/*/{i}.*"):
            path.rename(part / path.name)
    assert [len(prepared(f"voc:{tmp_path / 'flat'}", part)["images"]) for part in ("train", "val")] == [3, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>25", "<xmax>2", "0.xml, object 1: expected a box with x1 <= x2"),
        ("<xmax>25", "<xmax>wide", "0.xml, object 1: expected a number in <bndbox/xmax>"),
        ("<difficult>0", "<difficult>2", "0.xml, object 1: expected 0 or 1 in <difficult>"),
        ("<name>dog</name>", "", "0.xml, object 1: expected a <name> and a <bndbox>"),
        ("</object>", "", "malformed XML: .*0.xml"),
        ("<width>60", "<width>61", "0.xml says JPEGImages/0.png has 61 x 40 pixels; found 60 x 40"),
    ],
)
def test_wrong_labels_of_voc_are_one_line(tmp_path, old, new, message) -> None:
    with pytest.raises(InputError, match=message):
        get_dataset(voc(tmp_path, lambda text: text.replace(old, new)))


def test_a_missing_picture_of_voc(tmp_path) -> None:
    name = voc(tmp_path)
    (tmp_path / "JPEGImages" / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"3\.xml: picture missing: expected .*JPEGImages/3\.jpg, \.png"):
        get_dataset(name)


def yolo(folder: Path, line: str = "1 0.5 0.5 0.5 0.25", **yaml) -> str:
    for i in range(4):
        part = "train" if i < 3 else "valid"
        picture(folder / part / "images" / f"{i}.jpg")
        (folder / part / "labels").mkdir(exist_ok=True)
        (folder / part / "labels" / f"{i}.txt").write_text(line if i == 0 else "0 0.5 0.5 0.5 0.25\n\n")
    content = {"train": "../train/images", "val": "../valid/images", "names": ["ant", "bee"], "nc": 2, **yaml}
    (folder / "data.yaml").write_text(json.dumps(content))  # JSON is YAML
    return f"yolo:{folder / 'data.yaml'}"


def test_yolo_labels(tmp_path) -> None:
    name = yolo(tmp_path, "1 0.5 0.5 0.5 0.25\n1 0.1 0.1 0.4 0.1 0.4 0.6 0.1 0.3")
    assert get_dataset(name).classes == ("ant", "bee")
    boxes = [row["bbox"] for row in prepared(name, "train")["annotations"]]
    assert boxes[0] == [15, 15, 30, 10]
    np.testing.assert_allclose(boxes[1], [6, 4, 18, 20])
    assert len(prepared(name, "val")["images"]) == 1


def test_yolo_without_val_is_split_and_lists_of_pictures_are_read(tmp_path) -> None:
    yolo(tmp_path)
    (tmp_path / "all.txt").write_text("".join(f"./{p.relative_to(tmp_path)}\n" for p in tmp_path.rglob("*.jpg")))
    name = yolo(tmp_path, train="all.txt", val=None)
    assert [len(prepared(name, part)["images"]) for part in ("train", "val")] == [3, 1]
    assert get_dataset(name).split.endswith("by SHA-256 of file names")


@pytest.mark.parametrize(
    ("line", "yaml", "message"),
    [
        ("2 .5 .5 .5 .5", {}, "0.txt, line 1: class 2 is out of range, there are classes 0 to 1"),
        ("-1 .5 .5 .5 .5", {}, "0.txt, line 1: class -1 is out of range"),
        ("0 .5 .5 -.5 .5", {}, "0.txt, line 1: expected fractions of the picture"),
        ("0 30 20 10 10", {}, "0.txt, line 1: expected fractions of the picture"),
        ("0 nan .5 .5 .5", {}, "0.txt, line 1: expected fractions of the picture"),
        ("0 .5 .5 .5", {}, "0.txt, line 1: expected x, y, width, height or the corners of a polygon, found 3"),
        ("ant .5 .5 .5 .5", {}, "0.txt, line 1: expected a class and numbers"),
        ("0 .5 .5 .5 .5", {"nc": 3}, "nc is 3, but there are 2 names"),
        ("0 .5 .5 .5 .5", {"names": ["ant", "ant"]}, "class 'ant' is there twice"),
        ("0 .5 .5 .5 .5", {"names": {"1": "ant", "2": "bee"}}, "expected names as a list, or by number from 0 on"),
        ("0 .5 .5 .5 .5", {"train": "/etc"}, "names /etc: expected a path below"),
        ("0 .5 .5 .5 .5", {"train": "../../nowhere"}, "names ../../nowhere: expected a path below"),
        ("0 .5 .5 .5 .5", {"train": "train/labels"}, "there is no picture in 'train/labels'"),
    ],
)
def test_wrong_labels_of_yolo_are_one_line(tmp_path, line, yaml, message) -> None:
    with pytest.raises(InputError, match=message):
        get_dataset(globals()["yolo"](tmp_path, line, **yaml))


def test_a_broken_picture_is_named_with_its_entry(tmp_path) -> None:
    name = coco(tmp_path)
    (tmp_path / "im 2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"labels\.json, image 14: unreadable picture .*im 2\.png"):
        get_dataset(name)


def test_own_data_is_of_detection_and_its_names_are_kept_free() -> None:
    from dataclasses import replace

    from onebit.commons.datasets import OWN_BOXES, register_dataset

    with pytest.raises(InputError, match="is for detection, not for reid"):
        get_dataset("coco:labels.json", "reid")
    with pytest.raises(InputError, match="the name of dataset own-x is taken"):
        register_dataset(replace(OWN_BOXES, name="own-x"))
