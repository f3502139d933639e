"""People and classes of one's own: folders, patterns and CSV files; who is scored; what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from onebit.commons.datasets import get_dataset, register_dataset
from onebit.commons.datasets.own import pictures
from onebit.commons.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ONEBIT_CACHE", str(tmp_path / "cache"))
    pictures._prepare.cache_clear()
    return tmp_path / "cache"


def picture(path: Path, mode: str = "RGB", size=(12, 24), **save) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 90).save(path, **save)


def crops(folder: Path, people: int = 8, cameras: int = 2, images: int = 3) -> Path:
    """``person N/cam M/K.png``; without cameras ``person N/K.png``."""
    for person in range(people):
        for camera in range(max(cameras, 1)):
            for image in range(images):
                middle = f"cam {camera}/" if cameras else ""
                picture(folder / f"person {person}" / f"{middle}{image}.png")
    return folder


def listed(name: str) -> list[list]:
    return json.loads((get_dataset(name).find("nowhere") / "pictures.json").read_bytes())


def of_part(name: str, part: str) -> list[list]:
    return [row for row in listed(name) if row[3] == part]


def test_half_of_the_people_are_scored_and_every_query_has_a_match(tmp_path) -> None:
    name = f"reid:{crops(tmp_path / 'crops')}"
    dataset = get_dataset(name, "reid")
    assert (dataset.board, dataset.task, dataset.protocol, dataset.recipe) == ("reid", "reid", "market", "small")
    assert dataset.name.startswith("reid-crops-")
    assert dataset.split == (
        "1 in 2 -> 1 in 2 of the people, by SHA-256 of names; one query for each camera, by SHA-256 of file names"
    )
    assert dataset.counts == {
        "train images": 24, "query images": 8, "gallery images": 16, "train identities": 4, "test identities": 4,
        "cameras": 2,
    }  # fmt: skip
    trained = {label for _, label, _, _ in of_part(name, "train")}
    queries = {(label, camera) for _, label, camera, _ in of_part(name, "query")}
    gallery = {(label, camera) for _, label, camera, _ in of_part(name, "gallery")}
    assert len(trained) == 4
    assert not trained & {label for label, _ in queries | gallery}
    for label, camera in queries:
        assert any(other == label and elsewhere != camera for other, elsewhere in gallery)
    assert get_dataset(dataset.name).counts == dataset.counts
    assert dataset.checksum("").startswith("content:")


def test_who_is_scored_depends_on_names_alone(tmp_path) -> None:
    few, many = f"reid:{crops(tmp_path / 'few')}", f"reid:{crops(tmp_path / 'many', people=16)}"
    scored = [{label for _, label, _, part in listed(name) if part != "train"} for name in (few, many)]
    # By the order of hashes: more people move the border, and never one past another.
    first = {f"person {n}" for n in range(8)}
    assert scored[0] <= scored[1] or scored[1] & first <= scored[0]


@pytest.mark.parametrize("images", [1, 2])
def test_without_cameras_no_picture_is_left_out(tmp_path, images) -> None:
    crops(tmp_path / "crops", cameras=0, images=2)
    crops(tmp_path / "crops", people=4, cameras=0, images=images)
    dataset = get_dataset(f"reid:{tmp_path / 'crops'}")
    assert dataset.protocol == "no-cameras"
    assert dataset.counts == {
        "train images": 8, "query images": 4, "gallery images": 4, "train identities": 4, "test identities": 4
    }  # fmt: skip


def test_a_person_under_one_camera_or_in_one_picture_is_only_found_falsely(tmp_path) -> None:
    folder = crops(tmp_path / "crops", people=12, cameras=2, images=1)
    name = f"reid:{folder}"
    # Two pictures, two cameras: one query alone keeps its match.
    assert len(of_part(name, "query")) == len(of_part(name, "gallery")) == 6
    alone = {label for _, label, _, part in listed(name) if part == "query"}
    for label in sorted(alone)[:2]:
        for path in sorted((folder / label).glob("cam 1/*")):
            path.unlink()
    pictures._prepare.cache_clear()
    assert {label for _, label, _, part in listed(name) if part == "query"} == set(sorted(alone)[2:])


def test_a_pattern_reads_flat_names(tmp_path) -> None:
    for person in range(6):
        for camera in range(3):
            picture(tmp_path / "flat" / f"p{person:03}-c{camera}é x.jpg")
    name = f"reid:{tmp_path / 'flat'}?pattern=p(?P<identity>\\d+)-c(?P<camera>\\d).*"
    dataset = get_dataset(name)
    assert dataset.counts["cameras"] == 3
    assert {label for _, label, _, _ in listed(name)} == {f"{n:03}" for n in range(6)}
    without = get_dataset(f"reid:{tmp_path / 'flat'}?pattern=p(?P<identity>\\d+).*")
    assert without.protocol == "no-cameras"
    assert without.name != dataset.name


def test_folders_that_are_called_train_and_test_say_who_is_scored(tmp_path) -> None:
    crops(tmp_path / "d" / "train", people=3)
    crops(tmp_path / "d" / "test", people=2)
    with pytest.raises(InputError, match="expected each identity in one part, found person 0 to train on and to score"):
        get_dataset(f"reid:{tmp_path / 'd'}")
    for path in list((tmp_path / "d" / "test").iterdir()):
        path.rename(path.with_name(f"other {path.name}"))
    dataset = get_dataset(f"reid:{tmp_path / 'd'}")
    assert dataset.split == "as labelled; one query for each camera, by SHA-256 of file names"
    assert dataset.counts["train identities"] == 3
    assert dataset.counts["test identities"] == 2


def write_csv(folder: Path, text: str) -> str:
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    return str(folder / "labels.csv")


def test_a_csv_file_lists_people_cameras_and_parts(tmp_path) -> None:
    rows = ["path,identity,camera,split"]
    for at, (who, part) in enumerate([("ann", "train"), ("böb", "train"), ("cé, d", "query"), ("cé, d", "gallery")]):
        picture(tmp_path / "im" / f"a {at}.png")
        rows.append(f'im/a {at}.png,"{who}",{at % 2},{part}')
    name = f"reid:{write_csv(tmp_path, chr(10).join(rows))}"
    assert get_dataset(name).split == "as labelled: train -> query, gallery"
    assert [row[1:] for row in listed(name)] == [
        ["ann", "0", "train"], ["böb", "1", "train"], ["cé, d", "0", "query"], ["cé, d", "1", "gallery"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,person\na.png,1", "line 1: expected the columns path, identity, camera and split"),
        ("path,identity,identity\na.png,1,1", "line 1: expected the columns"),
        ("path,identity\na.png", "line 2: expected 2 values"),
        ("path,identity\na.png,1,2", "line 2: expected 2 values"),
        ("path,identity\na.png,", "line 2: expected a name as identity, found ''"),
        ("path,identity\na.png,a/b", "line 2: expected a name as identity, found 'a/b'"),
        ("path,identity\n../a.png,1", "line 2: expected the name of an image below its folder"),
        ("path,identity\na.png,1\na.png,2", "line 3: a.png is listed twice, the first time in .*line 2"),
        ("path,identity,camera\na.png,1,1\nb.png,1,", "line 3: expected a camera, as other pictures have"),
        ("path,identity,split\na.png,1,train\nb.png,1,", "line 3: expected a split, as other pictures have"),
        ("path,identity,split\na.png,1,half", "line 2: expected a split of train, query, gallery, test, found 'half'"),
        ("path,identity\na.png,1\nb.png,2\nc.png,3\nd.png,3", "line 5: picture missing: expected .*d.png"),
        ("path,identity\na.png,1\nb.png,2", "expected at least 3 identities, two to train on, found 2"),
        ("path,identity\na.png,1\nb.png,2\nc.png,3", "no scored person has two pictures: nothing could be found"),
        ("path,identity,split\na.png,1,train\nb.png,2,train", "expected people to score: no query"),
        ('path,identity\n"a.png,1', "malformed CSV"),
        ("path,identity\n", "expected pictures .*found none"),
        ("", "line 1: expected the columns"),
    ],
)
def test_wrong_csv_files_are_one_line(tmp_path, text, message) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=message) as caught:
        get_dataset(f"reid:{write_csv(tmp_path, text)}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", r"expected reid:FOLDER\[\?pattern=REGEX\] or reid:FILE.csv"),
        ("nowhere", "there is no folder nowhere"),
        ("nowhere.csv", "file missing: expected nowhere.csv"),
        ("FOLDER/person 0", "expected it in a folder named after its identity, or a pattern"),
        ("FOLDER?pattern=(", "is no regular expression"),
        ("FOLDER?pattern=.*", r"expected a group \(\?P<identity>...\) and, if there are cameras"),
        ("FOLDER?pattern=(?P<identity>x)(?P<class>.)", r"expected a group \(\?P<identity>"),
        ("FOLDER?pattern=(?P<identity>x)", "does not fit the pattern"),
        ("FOLDER/labels.csv?pattern=(?P<identity>x)", "a CSV file takes no pattern"),
    ],
)
def test_wrong_places_are_one_line(tmp_path, place, message) -> None:
    crops(tmp_path, cameras=0)
    with pytest.raises(InputError, match=message):
        get_dataset(f"reid:{place.replace('FOLDER', str(tmp_path))}", "reid")


def test_folders_below_cameras_and_broken_pictures_are_named(tmp_path) -> None:
    crops(tmp_path / "crops")
    picture(tmp_path / "crops" / "person 1" / "cam 0" / "more" / "x.png")
    with pytest.raises(InputError, match=r"x\.png: expected identity/picture or identity/camera/picture"):
        get_dataset(f"reid:{tmp_path / 'crops'}")
    (tmp_path / "crops" / "person 1" / "cam 0" / "more" / "x.png").rename(tmp_path / "crops" / "person 1" / "y.png")
    with pytest.raises(InputError, match=r"y\.png: expected a camera, as other pictures have; found none"):
        get_dataset(f"reid:{tmp_path / 'crops'}")
    (tmp_path / "crops" / "person 1" / "y.png").unlink()
    (tmp_path / "crops" / "person 2" / "cam 0" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"unreadable picture .*person 2/cam 0/1\.png"):
        get_dataset(f"reid:{tmp_path / 'crops'}")


def test_pictures_that_are_gone_are_named_when_the_data_is_used(tmp_path) -> None:
    dataset = get_dataset(f"reid:{crops(tmp_path / 'crops')}")
    assert dataset.is_there("")
    (tmp_path / "crops" / "person 3" / "cam 0" / "1.png").unlink()
    assert not dataset.is_there("")
    with pytest.raises(InputError, match=r"its picture .*person 3/cam 0/1\.png is no longer there"):
        dataset.find("")
    with pytest.raises(InputError, match="dataset reid-other-01234567 was not made on this machine"):
        get_dataset("reid-other-01234567")


def shapes(folder: Path) -> Path:
    """Two classes of pictures of every kind and several sizes."""
    for name in ("big dög", "cat"):
        for at, (mode, suffix) in enumerate(
            [
                ("RGB", "jpg"),
                ("L", "png"),
                ("CMYK", "jpg"),
                ("P", "png"),
                ("RGBA", "png"),
                ("I;16", "png"),
                ("1", "bmp"),
            ]
        ):
            picture(folder / name / f"pic {at}.{suffix}", mode, (40 + at, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(folder / "cat" / "turned.jpg", exif=exif)
    (folder / "cat" / "notes.txt").write_text("no picture")
    return folder


def test_classes_of_every_kind_of_picture(tmp_path) -> None:
    from onebit.classification.datasets import StreamedImages, class_names, layout_of, split_of, stem_of

    dataset = get_dataset(f"folder:{shapes(tmp_path / 'shapes')}", "classification")
    assert dataset.name.startswith("folder-shapes-")
    assert (dataset.board, dataset.recipe, dataset.image_size) == ("folder", "small", None)
    folder = dataset.find("")
    assert layout_of(dataset, folder) == "imagenet"
    assert stem_of(dataset, "imagenet") == "imagenet"
    assert split_of(dataset, folder) == "4 in 5 -> 1 in 5 of every class, by SHA-256 of file names"
    assert class_names(folder, "imagenet") == ["big dög", "cat"]
    assert dataset.counts == {
        "train images": 12, "val images": 3, "sizes of pictures": 8, "pictures gray": 4, "pictures CMYK": 2,
        "pictures 16-bit": 2, "pictures with a palette": 2, "pictures with transparency": 2,
        "pictures turned by EXIF, taken as they lie in the file": 1,
    }  # fmt: skip
    for split, count in (("train", 12), ("test", 3)):
        images = StreamedImages(str(folder), split, 32, 0.5)
        assert len(images) == count
        assert all(images[at]["inputs"].shape == (3, 32, 32) for at in range(count))
    assert get_dataset(dataset.name) == dataset


def test_small_pictures_of_one_size_are_held_in_memory(tmp_path) -> None:
    from onebit.classification.datasets import layout_of, read_images

    for label, name in enumerate(("a", "b")):
        for at in range(5):
            picture(tmp_path / "small" / name / f"{at}.png", size=(16, 16), mode="L" if label else "RGB")
    dataset = get_dataset(f"folder:{tmp_path / 'small'}")
    folder = dataset.find("")
    assert dataset.image_size == 16
    assert layout_of(dataset, folder) == "folder"
    images, labels = read_images(folder, "test", "folder", 16)
    assert images.shape == (2, 3, 16, 16)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.png,x\nb.png,x\nc.png,y", "class y has one picture, c.png: expected one to train on and one"),
        ("path,class\na.png,x\nb.png,x", "expected at least two classes, found x alone"),
        ("path,class,split\na.png,x,train\nb.png,x,val\nc.png,y,train", "class y has no picture to score"),
        ("path,class,split\na.png,x,train\nb.png,x,val\nc.png,y,test", "class y has no picture to train on"),
        ("path,class,camera\na.png,x,1", "line 1: expected the columns path, class and split"),
    ],
)
def test_wrong_classes_are_one_line(tmp_path, text, message) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=message):
        get_dataset(f"folder:{write_csv(tmp_path, text)}")


def test_names_belong_to_a_task_and_are_kept_free(tmp_path) -> None:
    from dataclasses import replace

    name = f"reid:{crops(tmp_path / 'crops')}"
    with pytest.raises(InputError, match="is for reid, not for detection"):
        get_dataset(name, "detection")
    with pytest.raises(InputError, match="the name of dataset reid-x is taken"):
        register_dataset(replace(get_dataset(name), name="reid-x"))
