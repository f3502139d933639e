"""Pictures of rankings: what is drawn, what is left out, which queries are chosen."""

import numpy as np
import pytest
from PIL import Image

from onebit.commons.errors import InputError
from onebit.reid import pictures
from onebit.reid.evaluation import rankings
from onebit.reid.evaluation.options import Evaluation
from onebit.reid.features import Features
from onebit.reid.pictures import write_rankings

MARKET = Evaluation("euclidean", "market")


def part(root, folder, features, pids, cameras):
    names = []
    for n, (pid, camera) in enumerate(zip(pids, cameras, strict=True)):
        names.append(f"{folder}/{n}_{pid}_{camera}.png")
        (root / folder).mkdir(exist_ok=True)
        # The colour names the image: nothing else in a picture has it.
        Image.new("RGB", (32, 64), (10 * n + 5, 7, 200 if folder == "query" else 100)).save(root / names[-1])
    return Features(np.asarray(features, np.float32), tuple(names), np.asarray(pids), np.asarray(cameras))


@pytest.fixture
def case(tmp_path):
    """Query 0 finds its match second, behind a wrong image; query 1 has none; query 2 first."""
    query = part(tmp_path, "query", [[0.0], [50.0], [100.0]], [1, 9, 2], [0, 0, 0])
    # junk, own camera, wrong, right, right for query 2, wrong
    gallery = part(
        tmp_path, "gallery", [[0.1], [0.2], [1.0], [2.0], [100.0], [90.0]], [-1, 1, 3, 1, 2, 0], [1, 0, 1, 1, 1, 1]
    )
    return query, gallery, tmp_path


def test_rankings(case):
    query, gallery, _ = case
    labels = (query.pids, gallery.pids, query.cameras, gallery.cameras)
    first, last = rankings(query.features, gallery.features, *labels, top=3)
    assert (first.query, last.query) == (0, 2)
    assert first.gallery.tolist() == [2, 3, 5]
    assert first.right.tolist() == [False, True, False]
    assert first.distances == pytest.approx([1.0, 2.0, 90.0])
    assert (first.average_precision, last.average_precision) == (0.5, 1.0)
    cosine = next(rankings(query.features + 1, gallery.features, *labels, top=3, distance="cosine"))
    assert cosine.distances == pytest.approx([0.0] * 3, abs=1e-12)


def colours(path):
    with Image.open(path) as image:
        return {colour for _, colour in image.getcolors(1 << 24)}


def test_right_is_green_wrong_is_red_and_what_is_left_out_does_not_show(case, tmp_path):
    query, gallery, root = case
    worst, best = write_rankings(query, gallery, MARKET, root, tmp_path / "out", count=9, top=2)
    assert [worst.name, best.name] == ["worst_01_0_1_0.png", "worst_02_2_2_0.png"]
    found = colours(worst)
    assert {pictures._RIGHT, pictures._WRONG, (5, 7, 200)} <= found
    shown = {n for n in range(6) if (10 * n + 5, 7, 100) in found}
    assert shown == {2, 3}  # not junk (0), not the own camera (1)
    with Image.open(worst) as image:
        row = [image.getpixel((x, pictures._TITLE + 1)) for x in range(image.width)]
    frames = [c for n, c in enumerate(row) if c != (255, 255, 255) and (n == 0 or row[n - 1] != c)]
    assert frames == [pictures._QUERY, pictures._WRONG, pictures._RIGHT]


def test_worst_and_best_are_chosen(case, tmp_path):
    query, gallery, root = case
    paths = write_rankings(query, gallery, MARKET, root, tmp_path / "out", count=2)
    assert [path.name for path in paths] == ["worst_01_0_1_0.png", "best_01_2_2_0.png"]
    (only,) = write_rankings(query, gallery, MARKET, root, tmp_path / "one", count=1)
    assert only.name == "worst_01_0_1_0.png"
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [only.name]


def test_an_image_that_is_not_there(case, tmp_path):
    query, gallery, root = case
    (root / gallery.names[3]).unlink()
    with pytest.raises(InputError, match=r"gallery/3_1_1\.png"):
        write_rankings(query, gallery, MARKET, root, tmp_path / "out")
