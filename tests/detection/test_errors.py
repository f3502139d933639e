"""The words for what a detector gets wrong, on scenes made by hand, and their sums."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from onebit import detection  # noqa: F401  first: MMDetection cannot be imported without its operators
from onebit.commons.errors import InputError
from onebit.detection import errors, pictures
from onebit.detection.errors import Scene, match, summarize

CLASSES = ("cat", "dog", "sheep")
CAT, DOG = 0, 1
A, B = (10, 10, 50, 50), (60, 10, 100, 50)
SHIFTED = (22, 10, 62, 50)  # IoU 28/52 with A
FAR = (40, 10, 80, 50)  # IoU 10/70 with A, 20/60 with B


def scene(objects, found, path=Path("none.jpg"), far_pixels=False):
    """Objects: (box, class[, counts]); detections: (box, class, score), by falling score."""
    rows = [(*o, True)[:3] for o in objects]
    made = Scene(
        name="scene",
        path=path,
        boxes=np.array([r[0] for r in rows], float).reshape(-1, 4),
        labels=np.array([r[1] for r in rows], int),
        counts=np.array([r[2] for r in rows], bool),
        found=np.array([f[0] for f in found], float).reshape(-1, 4),
        found_labels=np.array([f[1] for f in found], int),
        scores=np.array([f[2] for f in found], float),
    )
    match(made, far_pixels)
    return made


@pytest.mark.parametrize(
    ("objects", "found", "kinds", "fates"),
    [
        ([(A, CAT), (B, DOG)], [(A, CAT, 0.9), (B, DOG, 0.8)], ["correct", "correct"], [0, 1]),
        ([(A, CAT)], [], [], [-1]),
        ([], [(A, CAT, 0.9)], ["background"], []),
        ([(A, CAT)], [(A, CAT, 0.9), (SHIFTED, CAT, 0.8)], ["correct", "duplicate"], [0]),
        # The higher score chooses first, even where the other one fits better.
        ([(A, CAT)], [(SHIFTED, CAT, 0.9), (A, CAT, 0.8)], ["correct", "duplicate"], [0]),
        ([(A, CAT)], [(A, DOG, 0.9)], ["confused"], [0]),
        ([(A, CAT)], [(A, DOG, 0.9), (A, CAT, 0.2)], ["background", "correct"], [1]),
        ([(A, CAT)], [(FAR, CAT, 0.9)], ["mislocated"], [-1]),
        ([(A, CAT)], [(FAR, DOG, 0.9)], ["background"], [-1]),
        ([(A, CAT), (A, CAT)], [(A, CAT, 0.9), (A, CAT, 0.8)], ["correct", "correct"], [0, 1]),
        # What does not count is neither found nor missed, and a detection on it is no mistake.
        ([(A, CAT, False)], [(A, CAT, 0.9), (SHIFTED, CAT, 0.8)], ["ignored", "ignored"], [-1]),
        ([(A, CAT, False)], [(A, DOG, 0.9)], ["background"], [-1]),
        ([(A, CAT), (A, CAT, False)], [(A, CAT, 0.9)], ["correct"], [0, -1]),
    ],
)
def test_words(objects, found, kinds, fates):
    made = scene(objects, found)
    assert made.kinds == kinds
    assert made.fates.tolist() == fates


def test_a_detection_inside_a_crowd_is_ignored_but_not_inside_a_difficult_object():
    crowd = ((0, 0, 100, 100), CAT, False)
    assert scene([crowd], [(A, CAT, 0.9)]).kinds == ["ignored"]
    assert scene([crowd], [(A, CAT, 0.9)], far_pixels=True).kinds == ["background"]


def test_far_pixels_count_for_voc():
    """10 x 10 pixels that share 10 x 7: IoU 0.54 with their far pixels, 0.50 - 0.02 without."""
    objects, found = [((10, 10, 19, 19), CAT)], [((13, 10, 22, 19), CAT, 0.9)]
    assert scene(objects, found, far_pixels=True).kinds == ["correct"]
    found = [((13.1, 10, 22.1, 19), CAT, 0.9)]
    assert scene(objects, found).kinds == ["mislocated"]


def test_the_f1_of_an_image():
    assert scene([(A, CAT), (B, DOG)], [(A, CAT, 0.9), (B, CAT, 0.8)]).quality == 0.5
    assert scene([(A, CAT, False)], [(A, CAT, 0.9)]).quality == 1
    assert scene([], []).quality == 1
    assert scene([(A, CAT)], []).quality == 0


def test_summary():
    found = [
        scene([(A, CAT), (B, DOG)], [(A, CAT, 0.9), (SHIFTED, CAT, 0.8), (B, CAT, 0.7)]),
        scene([(A, CAT), (B, DOG, False)], [(FAR, CAT, 0.9), (B, DOG, 0.8)]),
    ]
    summary = summarize(found, CLASSES, 0.3)
    assert summary.confusion.tolist() == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0]]
    assert summary.counts["cat"] == {
        "objects": 2,
        "correct": 1,
        "confused": 0,
        "missed": 1,
        "detections": 4,
        "wrong class": 1,
        "duplicate": 1,
        "mislocated": 1,
        "background": 0,
        "ignored": 0,
    }
    assert summary.counts["dog"]["confused"] == summary.counts["dog"]["ignored"] == 1
    text = summary.to_text()
    assert "2 images, detections from score 0.3 on, IoU 0.5" in text
    assert "sheep" not in text
    assert text.splitlines()[-1].split()[2:] == ["3", "1", "1", "1", "4", "1", "1", "1", "0", "1"]
    content = json.loads(summary.to_json())
    assert content["per_class"] == summary.counts
    assert content["confusion"][0] == [1, 0, 0, 1]


BOX = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=100, deadline=None)
@given(
    objects=st.lists(st.tuples(BOX, st.integers(0, 2), st.booleans()), max_size=6),
    found=st.lists(st.tuples(BOX, st.integers(0, 2)), max_size=8),
    far_pixels=st.booleans(),
)
def test_every_object_and_every_detection_is_counted_once(objects, found, far_pixels):
    def corners(box):
        x, y, width, height = box
        return x, y, x + width, y + height

    objects = [(corners(b), label, counts) for b, label, counts in objects]
    found = [(corners(b), label, 0.9 - 0.1 * n) for n, (b, label) in enumerate(found)]
    made = scene(objects, found, far_pixels=far_pixels)
    assert set(made.kinds) <= set(errors.KINDS)
    for at, partner in enumerate(made.partners):
        assert (partner >= 0) == (made.kinds[at] in ("correct", "confused"))
        if partner >= 0:
            assert made.fates[partner] == at
            assert made.counts[partner]
            assert (made.labels[partner] == made.found_labels[at]) == (made.kinds[at] == "correct")
    for label, row in enumerate(summarize([made], CLASSES, 0).counts.values()):
        assert row["objects"] == sum(o[1] == label and o[2] for o in objects)
        assert row["objects"] == row["correct"] + row["confused"] + row["missed"]
        assert row["detections"] + row["ignored"] == sum(f[1] == label for f in found)
        assert row["detections"] == sum(
            row[k] for k in ("correct", "wrong class", "duplicate", "mislocated", "background")
        )


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (120, 60), (200, 200, 200)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def colours(picture):
    return {colour for _, colour in picture.getcolors(2**20)}


def test_a_picture_shows_right_and_wrong(image):
    right = pictures.draw_scene(scene([(A, CAT)], [(A, CAT, 0.9)], image), CLASSES)
    wrong = pictures.draw_scene(scene([(A, CAT)], [(FAR, DOG, 0.9)], image), CLASSES)
    ignored = pictures.draw_scene(scene([(A, CAT, False)], [(A, CAT, 0.9)], image), CLASSES)
    three = (pictures._GREEN, pictures._RED, pictures._GREY)
    for picture, colour in zip((right, wrong, ignored), three, strict=True):
        shown = picture.crop((0, 0, picture.width, picture.height - 32))  # without the legend
        counts = {c: n for n, c in shown.getcolors(2**20)}
        assert counts[colour] > 1000
        # Smoothed letters have a few grey pixels.
        assert all(counts.get(other, 0) < 100 for other in three if other != colour)
    # Enlarged fourfold, objects left and detections right of the gap.
    assert right.width == 2 * 480 + 30


def test_worst_and_best_images_are_drawn(image, tmp_path):
    scenes = [
        scene([(A, CAT)], [(A, CAT, 0.9)], image),
        scene([(A, CAT)], [], image),
        scene([(A, CAT)], [(A, CAT, 0.9), (B, CAT, 0.8)], image),
    ]
    for at, made in enumerate(scenes):
        made.name = f"{at} of/../3"
    paths = pictures.write_scenes(scenes, CLASSES, tmp_path / "out", 2)
    assert [p.name for p in paths] == ["worst_001_1_of_.._3.png", "best_001_0_of_.._3.png"]
    assert len(pictures.write_scenes(scenes, CLASSES, tmp_path / "all", 50)) == 3
    assert all(Image.open(p).width > 500 for p in paths)
    scenes[1].path = tmp_path / "none.png"
    with pytest.raises(InputError, match=r"none\.png"):
        pictures.write_scenes(scenes, CLASSES, tmp_path / "out", 1)


@pytest.mark.parametrize("count", [3, 40])
def test_confusion_matrix(tmp_path, count):
    classes = [f"class {n}" for n in range(count)]
    found = [scene([(A, n)], [(A, n if n % 3 else 0, 0.9)]) for n in range(count - 1)]
    path = pictures.write_confusion(summarize(found, classes, 0.3), tmp_path / "confusion.png")
    with Image.open(path) as picture:
        assert min(picture.size) > 300
        assert len(colours(picture.convert("RGB"))) > 5
    assert pictures.write_confusion(summarize([], classes, 0.3), path) == path
