"""trainval35k and minival of COCO 2014 become train2017 and val2017."""

import json

import pytest

from onebit.commons import coco2014
from onebit.commons.errors import InputError
from onebit.leaderboards import cli

CATEGORIES = [dict(id=1, name="person")]


def name(part, number):
    return f"COCO_{part}_{number:012d}.jpg"


def write(path, *images):
    """An annotation file with (part, number) as images, and a box on each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        info={},
        images=[dict(id=n, file_name=name(p, n), width=4, height=4) for p, n in images],
        annotations=[
            dict(id=100 + n, image_id=n, category_id=1, bbox=[0, 0, 2, 2], area=4, iscrowd=0) for _, n in images
        ],
        categories=CATEGORIES,
    )
    path.write_text(json.dumps(content))
    return content


@pytest.fixture
def folder(tmp_path):
    annotations = tmp_path / "annotations"
    write(annotations / "instances_trainval35k.json", ("train2014", 9), ("val2014", 42))
    write(annotations / "instances_minival2014.json", ("val2014", 139))
    for part, number in (("train2014", 9), ("val2014", 42), ("val2014", 139)):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / name(part, number)).write_text(f"image {number}")
    return tmp_path


def read(folder, split):
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())


def test_names_and_images(folder, capsys):
    assert cli.main(["data", "coco2014", str(folder)]) == 0
    assert "train2017" in capsys.readouterr().out
    train, val = read(folder, "train2017"), read(folder, "val2017")
    assert [i["file_name"] for i in train["images"]] == ["000000000009.jpg", "000000000042.jpg"]
    assert [i["file_name"] for i in val["images"]] == ["000000000139.jpg"]
    assert [a["image_id"] for a in train["annotations"]] == [9, 42]
    assert train["categories"] == CATEGORIES
    for split, number in (("train2017", 9), ("train2017", 42), ("val2017", 139)):
        assert (folder / split / f"{number:012d}.jpg").read_text() == f"image {number}"
    assert cli.main(["data", "coco2014", str(folder)]) == 2
    assert "nothing to map" in capsys.readouterr().err


def test_images_of_2017_are_used_as_they_are(folder):
    for split, number in (("train2017", 9), ("train2017", 42), ("val2017", 139)):
        (folder / split).mkdir(exist_ok=True)
        (folder / split / f"{number:012d}.jpg").write_text("of 2017")
    for part in ("train2014", "val2014"):
        for file in (folder / part).iterdir():
            file.unlink()
    assert coco2014.convert(folder) == {"train2017": 2, "val2017": 1}
    assert not (folder / "train2017" / "000000000009.jpg").is_symlink()
    assert (folder / "val2017" / "000000000139.jpg").read_text() == "of 2017"


def test_links_of_ones_own_stay_and_broken_ones_are_made_anew(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "9.jpg").write_text("of 2017")
    (folder / "val2017").symlink_to(elsewhere)  # the folder itself may be a link
    (folder / "train2017").mkdir()
    (folder / "train2017" / "000000000009.jpg").symlink_to(elsewhere / "9.jpg")
    (folder / "train2017" / "000000000042.jpg").symlink_to(elsewhere / "gone.jpg")
    (folder / "train2014" / name("train2014", 9)).unlink()
    coco2014.convert(folder)
    assert (folder / "train2017" / "000000000009.jpg").read_text() == "of 2017"
    assert (folder / "train2017" / "000000000042.jpg").read_text() == "image 42"
    assert (folder / "val2017" / "000000000139.jpg").read_text() == "image 139"


def test_split_in_two_files(folder):
    annotations = folder / "annotations"
    (annotations / "instances_trainval35k.json").unlink()
    write(annotations / "instances_train2014.json", ("train2014", 9))
    write(annotations / "instances_valminusminival2014.json", ("val2014", 42))
    assert coco2014.convert(folder) == {"train2017": 2, "val2017": 1}
    assert [a["image_id"] for a in read(folder, "train2017")["annotations"]] == [9, 42]


def damage(folder, how):
    annotations = folder / "annotations"
    trainval = annotations / "instances_trainval35k.json"
    if how == "missing":
        trainval.unlink()
    elif how == "malformed":
        trainval.write_text('{"images": [')
    elif how == "tables":
        trainval.write_text("[]")
    elif how == "name":
        trainval.write_text(trainval.read_text().replace("COCO_train2014_", "coco_"))
    elif how == "number":
        trainval.write_text(trainval.read_text().replace('"id": 9,', '"id": 8,'))
    elif how == "both":
        write(annotations / "instances_minival2014.json", ("val2014", 42))
    elif how == "twice":
        write(trainval, ("val2014", 42), ("val2014", 42))
    else:
        (folder / "val2014" / name("val2014", 139)).unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "annotations of COCO 2014 missing: expected .*trainval35k"),
        ("malformed", r"cannot read .*trainval35k\.json"),
        ("tables", "expected COCO's lists"),
        ("name", "found 'coco_000000000009.jpg'"),
        ("number", "with its number as id"),
        ("both", "image 42 is in the training and in the test split"),
        ("twice", r"image 000000000042\.jpg occurs twice"),
        ("image", r"image missing: expected .*val2017.000000000139\.jpg or .*COCO_val2014"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(folder, how, message):
    damage(folder, how)
    with pytest.raises(InputError, match=message):
        coco2014.convert(folder)
    assert not list((folder / "annotations").glob("*2017.json"))
    assert not (folder / "train2017").exists()
