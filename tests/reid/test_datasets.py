"""The real readers, and what bad input gets."""

import json
import os
import shutil
import socket
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from onebit.commons.datasets import DATASETS, get_dataset, register_dataset
from onebit.commons.errors import InputError, WorkError
from onebit.commons.task import Job
from onebit.reid import datasets, runner
from onebit.reid.datasets import CheckedCUHK03, CheckedDukeMTMCreID, CheckedMarket1501, CheckedMSMT17, torchreid_root
from onebit.reid.torchreid_adapter import CUHK03, MSMT17, DukeMTMCreID, Market1501
from tests.reid.rows import OPTIONS

MARKET = Path("market1501/Market-1501-v15.09.15")


def read(reader, root, **options):
    return reader(root=str(root), verbose=False, **options)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("urllib.request.urlretrieve", refuse)


@pytest.mark.parametrize("name", ["market1501", "dukemtmcreid", "cuhk03", "mini-market1501"])
def test_a_missing_dataset_is_never_downloaded(name, tmp_path, no_network):
    with pytest.raises(InputError, match=f"dataset {name} not found: expected {tmp_path}"):
        torchreid_root(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reader", [CheckedMarket1501, CheckedDukeMTMCreID, CheckedCUHK03])
def test_the_readers_themselves_never_download(reader, tmp_path, no_network):
    with pytest.raises(InputError, match="nothing is downloaded"):
        read(reader, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_guard_torchreid_would_download(tmp_path, no_network):
    with pytest.raises(AssertionError, match="socket"):
        read(Market1501, tmp_path)


def test_a_dataset_of_another_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="mini-voc is for detection"):
        torchreid_root("mini-voc", tmp_path)


@pytest.mark.parametrize("part", ["query", "bounding_box_test", "bounding_box_train"])
def test_a_missing_part_is_named(tiny, part):
    shutil.rmtree(tiny / MARKET / part)
    with pytest.raises(InputError, match=part):
        torchreid_root("market1501", tiny)
    with pytest.raises(InputError, match=part):
        read(CheckedMarket1501, tiny)


def test_an_empty_gallery_is_refused(tiny):
    for path in (tiny / MARKET / "bounding_box_test").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"in .*bounding_box_test, found none"):
        read(CheckedMarket1501, tiny)


@pytest.mark.parametrize("name", ["person.jpg", "0001_c7s1_000151_01.jpg", "1_c1s1_000151_01.jpg"])
def test_a_file_name_that_does_not_parse(tiny, name):
    (tiny / MARKET / "query" / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"0001_c1s1_000151_01.jpg, found .*query/{name}"):
        read(CheckedMarket1501, tiny)


def test_a_folder_that_looks_like_a_camera(tiny, tmp_path):
    os.rename(tiny, tmp_path / "7_c1")
    with pytest.raises(InputError, match="rename or link the folder"):
        read(CheckedMarket1501, tmp_path / "7_c1")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_unreadable_image_raises_at_once(tiny, content):
    """torchreid's own reader tries for ever."""
    victim = min((tiny / MARKET / "query").iterdir())
    victim.write_bytes(victim.read_bytes()[:900] if content is None else content)
    queries = read(CheckedMarket1501, tiny, mode="query")
    with pytest.raises(InputError, match=rf"can be read, found .*{victim.name}"):
        queries[0]


def relabelled(images):
    """The same partition of images into identities, whatever the labels."""
    people = {}
    for path, pid, camera, _ in images:
        people.setdefault(pid, set()).add((path, camera))
    return {frozenset(group) for group in people.values()}


@pytest.mark.parametrize(
    ("fixture", "name", "ours", "theirs"),
    [
        ("market", "mini-market1501", CheckedMarket1501, Market1501),
        ("duke", "mini-dukemtmcreid", CheckedDukeMTMCreID, DukeMTMCreID),
    ],
)
def test_the_same_images_as_torchreids_reader(fixture, name, ours, theirs, request):
    root = request.getfixturevalue(fixture) / name
    ours, theirs = read(ours, root), read(theirs, root)
    assert ours.query == sorted(theirs.query)
    assert ours.gallery == sorted(theirs.gallery)
    assert relabelled(ours.train) == relabelled(theirs.train)
    assert ours.train == sorted(ours.train)
    assert sorted({pid for _, pid, _, _ in ours.train}) == list(range(ours.num_train_pids))


def test_market_keeps_distractors_and_drops_junk(market):
    gallery = read(CheckedMarket1501, market / "mini-market1501").gallery
    assert {pid for _, pid, _, _ in gallery} >= {0}
    assert min(pid for _, pid, _, _ in gallery) == 0


def test_junk_and_distractors_are_counted(market):
    """The real Market-1501 has both, and only in its gallery."""
    root = market / "mini-market1501"
    names = [p.name for p in (root / MARKET / "bounding_box_test").iterdir()]
    data = read(CheckedMarket1501, root)
    junk = sum(name.startswith("-1_") for name in names)
    assert data.counts == dict(junk_left_out=junk, distractors=24)
    assert junk > 0
    assert len(data.gallery) == len(names) - junk


@pytest.mark.parametrize("part", ["query", "bounding_box_test"])
def test_an_identity_in_training_and_test(tiny, part):
    trained = min((tiny / MARKET / "bounding_box_train").iterdir())
    shutil.copy(trained, tiny / MARKET / part / trained.name)
    with pytest.raises(InputError, match=rf"to be disjoint, found 1 in both .*: {int(trained.name[:4])}$"):
        read(CheckedMarket1501, tiny)


def test_an_identity_in_training_and_test_of_duke(duke, tmp_path):
    shutil.copytree(duke / "mini-dukemtmcreid", tmp_path / "duke")
    inner = tmp_path / "duke/dukemtmc-reid/DukeMTMC-reID"
    trained = min((inner / "bounding_box_train").iterdir())
    shutil.copy(trained, inner / "bounding_box_test" / trained.name)
    with pytest.raises(InputError, match=r"to be disjoint, found 1 in both"):
        read(CheckedDukeMTMCreID, tmp_path / "duke")


@pytest.mark.parametrize("part", ["query", "bounding_box_train"])
def test_a_distractor_outside_the_gallery(tiny, part):
    image = min((tiny / MARKET / part).iterdir())
    shutil.copy(image, tiny / MARKET / part / "0000_c1s1_000001_01.jpg")
    with pytest.raises(InputError, match=rf"distractors \(0000\) in the gallery only, found one in .*{part}"):
        read(CheckedMarket1501, tiny)


def test_an_identity_that_market_does_not_have(tiny):
    image = min((tiny / MARKET / "bounding_box_test").iterdir())
    image.rename(image.with_name("1999_c1s1_000001_01.jpg"))
    with pytest.raises(InputError, match=r"identity or camera that the dataset does not have"):
        read(CheckedMarket1501, tiny)


def test_a_gallery_image_that_is_a_link_to_nowhere(tiny):
    victim = min((tiny / MARKET / "bounding_box_test").iterdir())
    victim.unlink()
    victim.symlink_to(tiny / "gone.jpg")
    with pytest.raises(InputError, match=rf"a link that leads nowhere: .*{victim.name}"):
        read(CheckedMarket1501, tiny)


MSMT = Path("msmt17/MSMT17_V1")


@pytest.fixture
def msmt(market, tmp_path) -> Path:
    """A data root with an MSMT17 of a few drawn images: two people to train on, two to test."""
    images = sorted((market / "mini-market1501" / MARKET / "query").iterdir())
    lists = {"train": [], "val": [], "query": [], "gallery": []}
    for number, name in enumerate(("train", "train", "val", "query", "gallery", "query", "gallery")):
        pid, camera = number % 2, number + 1
        file = f"{pid:04d}/{pid:04d}_{number:03d}_{camera:02d}_0303morning_0015_0.jpg"
        folder = "train" if name in ("train", "val") else "test"
        (tmp_path / MSMT / folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images[number], tmp_path / MSMT / folder / file)
        lists[name].append(f"{file} {pid}")
    for name, lines in lists.items():
        (tmp_path / MSMT / f"list_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def test_msmt17(msmt):
    assert torchreid_root("msmt17", msmt) == ("onebit_msmt17", msmt)
    ours, theirs = read(CheckedMSMT17, msmt), read(MSMT17, msmt)
    for part in ("train", "query", "gallery"):
        assert getattr(ours, part) == getattr(theirs, part)
    assert len(ours.train) == 2  # list_val.txt is not trained on
    assert ours.query[0][2] == 3  # cameras from 0


def test_msmt17_without_an_image(msmt):
    victim = next((msmt / MSMT / "test").rglob("*.jpg"))
    victim.unlink()
    with pytest.raises(InputError, match=rf"expected the image .*{victim.name}, which .*list_"):
        read(CheckedMSMT17, msmt)


@pytest.mark.parametrize("line", ["0000/0000_000.jpg 0", "nothing", "0000/0000_000_01_a.jpg x"])
def test_msmt17_with_a_line_that_does_not_parse(msmt, line):
    path = msmt / MSMT / "list_gallery.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"expected a line like .*list_gallery.txt, line 3"):
        read(CheckedMSMT17, msmt)


def test_msmt17_without_a_list(msmt):
    (msmt / MSMT / "list_val.txt").unlink()
    with pytest.raises(InputError, match=r"list_val.txt"):
        torchreid_root("msmt17", msmt)
    with pytest.raises(InputError, match=r"incomplete: expected .*list_val.txt"):
        read(CheckedMSMT17, msmt)


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_cuhk03_gives_what_torchreids_reader_gives(cuhk_copy, tmp_path):
    root = cuhk_copy / "mini-cuhk03"
    other = tmp_path / "other"
    shutil.copytree(root, other)
    ours, theirs = read(CheckedCUHK03, root), read(CUHK03, other)
    for part in ("train", "query", "gallery"):
        mine, reference = getattr(ours, part), getattr(theirs, part)
        strip = [(os.path.basename(path), *rest) for path, *rest in reference]
        assert [(os.path.basename(path), *rest) for path, *rest in mine] == strip
        assert all("extracted/images_detected" in path for path, *_ in mine)
        assert Path(mine[0][0]).read_bytes() == Path(reference[0][0]).read_bytes()
    assert not {p for p, *_ in ours.query} & {p for p, *_ in ours.gallery}


def test_cuhk03_is_extracted_once_and_survives_a_move(cuhk_copy, tmp_path, monkeypatch):
    root = cuhk_copy / "mini-cuhk03"
    first = read(CheckedCUHK03, root)
    monkeypatch.setattr(CUHK03, "preprocess_split", lambda self: pytest.fail("extracted again"))
    again = read(CheckedCUHK03, root)
    assert again.train == first.train
    os.rename(root, tmp_path / "moved")
    moved = read(CheckedCUHK03, tmp_path / "moved")
    assert len(moved.train) == len(first.train)
    assert all(path.startswith(str(tmp_path / "moved")) for path, *_ in moved.query)


def test_cuhk03_is_extracted_again_when_the_mat_files_change(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    before = len(read(CheckedCUHK03, root).query)
    split = root / "cuhk03/cuhk03_new_protocol_config_detected.mat"
    content = {k: v for k, v in loadmat(split).items() if not k.startswith("__")}
    savemat(split, {**content, "query_idx": content["query_idx"][:-1]})
    assert len(read(CheckedCUHK03, root).query) == before - 1


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_extraction_leaves_nothing(cuhk_copy, monkeypatch, failure):
    import imageio

    root = cuhk_copy / "mini-cuhk03"
    written = []
    write = imageio.imwrite

    def interrupted(path, image):
        if len(written) == 50:
            Path(path).write_bytes(b"half an image")
            raise failure
        written.append(path)
        write(path, image)

    before = listing(root)
    monkeypatch.setattr(imageio, "imwrite", interrupted)
    if failure is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            read(CheckedCUHK03, root)
    else:
        with pytest.raises(WorkError, match="the disk is full"):
            read(CheckedCUHK03, root)
    assert [f for f in listing(root) if not f.endswith(".extract.lock")] == before
    monkeypatch.undo()
    assert len(read(CheckedCUHK03, root).train) > 0


def test_leftovers_of_a_killed_extraction_are_not_used(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    leftover = root / "cuhk03/.extracting/images_detected/1_001_1_01.png"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half an image")
    for path, *_ in read(CheckedCUHK03, root).train:
        datasets.read_image(path)
    assert not leftover.exists()


@pytest.mark.parametrize("number", [13, 30])
def test_a_read_only_folder_is_named(cuhk_copy, monkeypatch, number):
    def refuse(path):
        raise OSError(number, "no", str(path))

    monkeypatch.setattr(datasets, "_locked", refuse)
    with pytest.raises(InputError, match=r"extracted once to .*make it writable or copy"):
        read(CheckedCUHK03, cuhk_copy / "mini-cuhk03")


def drop_labeled(root):
    with h5py.File(root / "cuhk03_release/cuhk-03.mat", "r+") as file:
        del file["labeled"]


def not_hdf5(root):
    (root / "cuhk03_release/cuhk-03.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(1000))


def no_references(root):
    with h5py.File(root / "cuhk03_release/cuhk-03.mat", "r+") as file:
        del file["detected"]
        file["detected"] = [[1.0, 2.0]]


def no_query(root):
    path = root / "cuhk03_new_protocol_config_detected.mat"
    content = loadmat(path)
    savemat(path, {k: v for k, v in content.items() if k[0] != "_" and k != "query_idx"})


def split_of_old_version(root):
    (root / "cuhk03_new_protocol_config_detected.mat").write_bytes(b"nothing")


def out_of_range(root):
    path = root / "cuhk03_new_protocol_config_detected.mat"
    content = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
    content["train_idx"][0] = 60_000
    savemat(path, content)


@pytest.mark.parametrize(
    "damage", [drop_labeled, not_hdf5, no_references, no_query, split_of_old_version, out_of_range]
)
def test_a_wrong_cuhk03_layout(cuhk_copy, damage):
    root = cuhk_copy / "mini-cuhk03"
    damage(root / "cuhk03")
    with pytest.raises(InputError, match=r"expected .*cuhk-03.mat .*; found another layout"):
        read(CheckedCUHK03, root)
    assert not (root / "cuhk03/extracted").exists()
    assert not (root / "cuhk03/.extracting").exists()


def test_a_split_that_names_an_image_which_is_not_there(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    path = root / "cuhk03/cuhk03_new_protocol_config_detected.mat"
    content = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
    content["filelist"][int(content["train_idx"][0, 0]) - 1, 0] = "5_099_1_01.png"
    savemat(path, content)
    with pytest.raises(InputError, match=r"does not have, or .*: 5_099_1_01.png"):
        read(CheckedCUHK03, root)


def test_an_identity_in_cuhk03s_training_and_test(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    path = root / "cuhk03/cuhk03_new_protocol_config_detected.mat"
    content = {k: v for k, v in loadmat(path).items() if k[0] != "_"}
    content["train_idx"] = np.concatenate([content["train_idx"], content["query_idx"][:1]])
    savemat(path, content)
    with pytest.raises(InputError, match=r"to be disjoint, found 1 in both of .*: \d_\d\d\d$"):
        read(CheckedCUHK03, root)


def test_an_extracted_image_that_was_removed(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    victim = Path(read(CheckedCUHK03, root).gallery[0][0])
    victim.unlink()
    with pytest.raises(InputError, match=rf"was removed from .*: {victim.name}. Remove .*extracted"):
        read(CheckedCUHK03, root)


def test_cuhk03s_other_choices(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    labeled = read(CheckedCUHK03, root, cuhk03_labeled=True)
    assert all("extracted/images_labeled" in path for path, *_ in labeled.train + labeled.query)
    classic = read(CheckedCUHK03, root, cuhk03_classic_split=True, split_id=19)
    assert classic.query == classic.gallery
    with pytest.raises(InputError, match="has 20 classic splits"):
        read(CheckedCUHK03, root, cuhk03_classic_split=True, split_id=20)


def test_the_split_files_are_json(cuhk_copy):
    root = cuhk_copy / "mini-cuhk03"
    read(CheckedCUHK03, root)
    splits = json.loads((root / "cuhk03/extracted/splits_classic_detected.json").read_text())
    assert len(splits) == 20
    assert {split["num_query_pids"] for split in splits} == {10}  # of 15


def test_a_dataset_of_another_package_brings_its_reader(market, job_of_theirs):
    job, seen = job_of_theirs
    outcome = runner.train(job)
    assert seen == [str(market / "mini-market1501")]
    assert outcome.split == "their people -> others"
    assert outcome.details["asked"] == 1


@pytest.fixture
def job_of_theirs(market, tmp_path, monkeypatch):
    """A job on `theirs`, and the folders that its reader is called with."""
    monkeypatch.setattr(DATASETS, "registered", dict(DATASETS.registered))
    seen = []

    class Reader(CheckedMarket1501):
        def __init__(self, root="", **options):
            seen[:] = [root]
            super().__init__(root, **options)

        @property
        def counts(self):
            return dict(asked=len(seen))

    value = get_dataset("mini-market1501").variant(
        "theirs", "development", ("mini-market1501",), "Ask them.", reader=Reader, split="their people -> others"
    )
    register_dataset(value)
    return Job("theirs", "resnet18_w8", "mini", 0, market, tmp_path / "run", cfg_options=OPTIONS), seen
