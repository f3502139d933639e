"""The mini datasets: layout, determinism, and that raw colours are of no use."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from onebit.commons.datasets import get_dataset
from onebit.commons.mini import draw
from onebit.commons.mini.reid import draw_cameras, draw_people
from onebit.reid.datasets import CheckedCUHK03, CheckedDukeMTMCreID, CheckedMarket1501, torchreid_root
from onebit.reid.evaluation import evaluate

READERS = {
    "mini-market1501": ("market", CheckedMarket1501),
    "mini-dukemtmcreid": ("duke", CheckedDukeMTMCreID),
    "mini-cuhk03": ("cuhk", CheckedCUHK03),
}


@pytest.fixture(params=list(READERS))
def mini(request):
    """Name, data root and what torchreid's reader makes of it."""
    fixture, reader = READERS[request.param]
    data_root = request.getfixturevalue(fixture)
    _, root = torchreid_root(request.param, data_root)
    return request.param, data_root, reader(root=str(root), verbose=False)


def test_byte_for_byte_the_same_again(mini, tmp_path):
    name, data_root, _ = mini
    draw(name, tmp_path / name)
    assert get_dataset(name).checksum(tmp_path) == get_dataset(name).checksum(data_root)


def test_training_and_test_identities_are_disjoint(mini):
    _, _, data = mini

    def people(images):
        # Market, Duke: the number before the first underscore; CUHK03: pair and person.
        pattern = r"\d_\d{3}(?=_\d_\d\d.png)|\d{4}(?=_c)"
        return {re.match(pattern, Path(path).name)[0] for path, *_ in images} - {"0000"}

    train, query, gallery = people(data.train), people(data.query), people(data.gallery)
    assert len(train) >= 60
    assert len(query) >= 20
    assert not train & (query | gallery)
    assert query <= gallery


def test_every_query_has_a_match_in_another_camera(mini):
    _, _, data = mini
    seen = {(pid, camera) for _, pid, camera, _ in data.gallery}
    for _, pid, camera, _ in data.query:
        assert any(p == pid and c != camera for p, c in seen)


def test_raw_colours_fail(mini):
    _, _, data = mini

    def pixels(images):
        return np.stack([np.asarray(Image.open(p).resize((16, 32)), float).ravel() for p, *_ in images])

    scores = evaluate(
        pixels(data.query),
        pixels(data.gallery),
        *([image[column] for image in part] for column in (1, 2) for part in (data.query, data.gallery)),
    )
    assert scores.cmc[1] < 0.2


def test_people_differ_in_two_parts_of_the_outfit():
    outfits = [person.outfit for person in draw_people(np.random.default_rng(3), 60)]
    for i, one in enumerate(outfits):
        for other in outfits[:i]:
            assert sum(a != b for a, b in zip(one, other, strict=True)) >= 2


def test_a_camera_keeps_grey_grey():
    for camera in draw_cameras(np.random.default_rng(0), 8):
        assert camera.mix @ np.ones(3) == pytest.approx(np.ones(3))
        assert camera.mix @ camera.mix.T == pytest.approx(np.eye(3))


def test_file_names(market, duke):
    root = market / "mini-market1501/market1501/Market-1501-v15.09.15"
    names = [p.name for p in (root / "bounding_box_test").iterdir()]
    assert all(re.fullmatch(r"(-1|\d{4})_c[1-6]s1_\d{6}_\d{2}\.jpg", n) for n in names)
    assert any(n.startswith("-1_") for n in names)
    assert any(n.startswith("0000_") for n in names)
    root = duke / "mini-dukemtmcreid/dukemtmc-reid/DukeMTMC-reID"
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        for path in (root / part).iterdir():
            assert re.fullmatch(r"\d{4}_c[1-8]_f\d{7}\.jpg", path.name)


def test_cuhk03_files_look_as_matlab_writes_them(cuhk):
    root = cuhk / "mini-cuhk03/cuhk03"
    release = root / "cuhk03_release/cuhk-03.mat"
    assert release.read_bytes().startswith(b"MATLAB 7.3 MAT-file")
    with h5py.File(release) as file:
        assert file["detected"].shape == file["labeled"].shape == (1, 5)
        pair = file[file["detected"][0, 0]]
        assert pair.shape == (10, 18)
        assert file[pair[0, 0]].shape == (3, 64, 128)
        assert file[pair[9, 1]].shape == (2,)  # an empty cell
        assert file["testsets"].shape == (1, 20)
        assert file[file["testsets"][0, 0]].shape == (2, 10)
    for kind in ("detected", "labeled"):
        split = loadmat(root / f"cuhk03_new_protocol_config_{kind}.mat")
        count = len(split["filelist"])
        parts = [split[f"{part}_idx"].ravel() for part in ("train", "query", "gallery")]
        assert sorted(np.concatenate(parts)) == list(range(1, count + 1))
        assert split["labels"].shape == split["camId"].shape == (count, 1)
        assert split["filelist"][0, 0][0] == "1_001_1_01.png"
