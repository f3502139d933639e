"""The face board: pair lists in their original formats, and one row from a job to an outcome."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.commons.mini.face import draw_people, person_name, write_face
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.face_datasets import FaceDataset, person_key, read_agedb_30, read_cfp_fp, read_lfw
from onebit.reid.foreign import score_checkpoint
from onebit.reid.training import SoftmaxEngine

OPTIONS = {"epochs": 2, "height": 32, "width": 32, "data.batch_size_train": 12}


@pytest.fixture(scope="session")
def few_faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_face(root / "mini-face", trained=6, images=4, tested=4, pairs=3)
    return root


@pytest.fixture
def faces(few_faces, tmp_path) -> Path:
    """A folder with face data of a few people, free to be damaged."""
    shutil.copytree(few_faces, tmp_path / "data")
    return tmp_path / "data" / "mini-face"


@pytest.fixture
def job(faces, tmp_path) -> Job:
    return Job("mini-face", "resnet18_w8_bireal", "mini-face", 0, faces.parent, tmp_path / "work", cfg_options=OPTIONS)


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


def edit(path, line, text):
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_the_three_lists(faces):
    for read, folder, name in (
        (read_lfw, "lfw", "lfw"),
        (read_cfp_fp, "cfp-dataset", "cfp"),
        (read_agedb_30, "agedb_30", "agedb"),
    ):
        pairs = read(faces / folder)
        assert pairs.name == name
        assert len(pairs.first) == len(pairs.second) == len(pairs.same) == 60
        assert np.bincount(pairs.folds).tolist() == [6] * 10
        assert all(pairs.same[pairs.folds == k].sum() == 3 for k in range(10))
        assert all(Path(path).is_file() for path in (*pairs.first, *pairs.second))


def test_lfws_lines_are_read_as_its_readme_says(tmp_path):
    for name, count in (("Ann_Lee", 2), ("Bob", 1), ("Cy_d'Or", 11)):
        for n in range(1, count + 1):
            path = tmp_path / name / f"{name}_{n:04d}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    (tmp_path / "pairs.txt").write_text(
        "2\t1\nAnn_Lee\t1\t2\nBob\t1\tCy_d'Or\t11\nCy_d'Or\t3\t10\nAnn_Lee\t2\tBob\t1\n"
    )
    pairs = read_lfw(tmp_path)
    names = [tuple(Path(p).name for p in pair) for pair in zip(pairs.first, pairs.second, strict=True)]
    assert names == [
        ("Ann_Lee_0001.jpg", "Ann_Lee_0002.jpg"),
        ("Bob_0001.jpg", "Cy_d'Or_0011.jpg"),
        ("Cy_d'Or_0003.jpg", "Cy_d'Or_0010.jpg"),
        ("Ann_Lee_0002.jpg", "Bob_0001.jpg"),
    ]
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.folds.tolist() == [0, 0, 1, 1]
    assert pairs.people == {"Ann_Lee", "Bob", "Cy_d'Or"}


def test_cfps_numbers_are_those_of_its_two_lists(faces):
    folder = faces / "cfp-dataset"
    split = folder / "Protocol/Split/FP/01/same.txt"
    edit(split, 1, "12,6")  # the second frontal and the second profile image of person 2
    pairs = read_cfp_fp(folder)
    assert pairs.first[0].endswith("Data/Images/002/frontal/02.jpg")
    assert pairs.second[0].endswith("Data/Images/002/profile/02.jpg")


@pytest.mark.parametrize(
    ("file", "line", "text", "message"),
    [
        ("lfw/pairs.txt", 1, "10", "numbers of folds and of pairs"),
        ("lfw/pairs.txt", 1, "10\t4", r"10 folds of 2 x 4 pairs .*, found 60 lines"),
        ("lfw/pairs.txt", 2, "Nobody 1", r"`name n n` in line 2"),
        ("lfw/pairs.txt", 2, "Nobody\t1\t2", r"Nobody_0001.jpg, which line 2 of .*pairs.txt names"),
        ("lfw/pairs.txt", 5, "A\t1\tA\t2", "two people in line 5"),
        ("lfw/pairs.txt", 5, "A\t1\t2", r"`name n name n` in line 5"),
        ("cfp-dataset/Protocol/Split/FP/03/diff.txt", 2, "1;2", r"number,number.* in line 2"),
        ("cfp-dataset/Protocol/Split/FP/03/diff.txt", 2, "1,999", r"number,number.* in line 2"),
        ("cfp-dataset/Protocol/Split/FP/03/diff.txt", 2, "1,1", r"two people in line 2"),
        ("cfp-dataset/Protocol/Split/FP/03/same.txt", 1, "1,5", r"one person in line 1"),
        ("cfp-dataset/Protocol/Pair_list_P.txt", 4, "four", r"number path.* in line 4"),
        ("agedb_30/agedb_30_ann.txt", 1, "2 a b", r"`1 image image` or `0 image image` in line 1"),
        ("agedb_30/agedb_30_ann.txt", 1, "1 a b", r"agedb_30/a, which line 1"),
        ("agedb_30/agedb_30_ann.txt", 1, "1 x/1_Ann_30_f.jpg x/2_Bob_60_m.jpg", "one person in line 1"),
        ("agedb_30/agedb_30_ann.txt", 1, "0 x/1_Ann_30_f.jpg x/2_Ann_60_f.jpg", "two people in line 1"),
        ("agedb_30/agedb_30_ann.txt", 1, "", r"10 folds of equal size .*, found 59 lines"),
    ],
)
def test_a_list_that_does_not_parse(job, faces, file, line, text, message):
    edit(faces / file, line, text)
    with pytest.raises(InputError, match=message):
        runner.train(job)


@pytest.mark.parametrize("folder", ["lfw", "cfp-dataset", "agedb_30"])
def test_a_missing_image(job, faces, folder):
    pairs = {"lfw": read_lfw, "cfp-dataset": read_cfp_fp, "agedb_30": read_agedb_30}[folder](faces / folder)
    Path(pairs.second[7]).unlink()
    with pytest.raises(InputError, match=rf"expected the image .*{Path(pairs.second[7]).name}"):
        runner.train(job)


def test_pickled_pairs_are_not_read(job, faces):
    """The face toolkits' .bin files are pickles."""
    (faces / "agedb_30/agedb_30_ann.txt").rename(faces / "agedb_30/agedb_30.bin")
    with pytest.raises(InputError, match=r"incomplete: expected .*agedb_30_ann.txt"):
        runner.train(job)
    assert "nothing is unpickled" in get_dataset("face").how_to_get
    (faces / "agedb_30/agedb_30_ann.txt").write_bytes(b"\x80\x04\x95\xff\xfe")
    with pytest.raises(InputError, match=r"expected a text file with pairs, found .*agedb_30_ann"):
        runner.train(job)


@pytest.mark.parametrize("folder", ["lfw", "agedb_30"])
def test_somebody_who_is_trained_and_tested(job, faces, folder):
    pairs = (read_lfw if folder == "lfw" else read_agedb_30)(faces / folder)
    person = sorted(pairs.people)[0]
    trained = next(p for p in (faces / "casia-webface").iterdir())
    trained.rename(trained.with_name(person.upper()))
    with pytest.raises(InputError, match=rf"nobody of the test pairs in .*, found 1: {person.upper()}"):
        runner.train(job)


def test_numbers_name_nobody(job, faces):
    """CASIA-WebFace's folders are numbers, which say nothing of who is in LFW."""
    for number, folder in enumerate(sorted((faces / "casia-webface").iterdir())):
        folder.rename(folder.with_name(f"{number:07d}"))
    assert FaceDataset(str(faces), verbose=False).counts == {"train_identities_compared_by_name": 0}
    assert [person_key(n) for n in ("0000045", "n000002", "Ann_Lee", "annLEE")] == [None, None, "annlee", "annlee"]


def test_an_identity_without_images(job, faces):
    folder = next(p for p in (faces / "casia-webface").iterdir())
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(InputError, match=rf"expected images .* in .*{folder.name}, found none"):
        runner.train(job)


def test_a_row(job):
    outcome = runner.train(job)
    assert set(outcome.metrics) == {"accuracy_lfw", "accuracy_cfp", "accuracy_agedb"}
    assert set(outcome.untrained) == set(outcome.metrics)
    assert outcome.main_metric == "accuracy_lfw"
    assert outcome.num_classes == outcome.details["train_identities"] == 6
    assert outcome.details["train_images"] == 24
    assert outcome.details["train_identities_compared_by_name"] == 6
    assert outcome.details["pairs_cfp"] == 60
    assert outcome.cost["strict"]["input_shape"] == [3, 32, 32]
    assert outcome.data_checksum.startswith("content:")
    assert "10-fold accuracy" in outcome.protocol
    scored = runner.test(outcome.checkpoint, replace(job, work_dir=job.work_dir / "test", cfg_options={}))
    assert scored.metrics == outcome.metrics
    again = runner.score_predictions(outcome.predictions, job_of(job))
    assert again.metrics == outcome.metrics
    assert again.protocol == outcome.protocol
    options = {"evaluation.distance": "euclidean"}
    assert runner.score_predictions(outcome.predictions, job_of(job, options)).metrics != outcome.metrics
    for change in ({"evaluation.rerank": True}, {"evaluation.protocol": "market"}):
        for score in (runner.score_predictions, runner.test):
            path = outcome.predictions if score is runner.score_predictions else outcome.checkpoint
            with pytest.raises(InputError, match="scored on pairs: of `evaluation` it takes the distance"):
                score(path, job_of(job, change))
        with pytest.raises(InputError, match="scored on pairs"):
            runner.train(job_of(job, {**OPTIONS, **change}))
    with pytest.raises(InputError, match="for rows of this suite only"):
        score_checkpoint(outcome.checkpoint, job_of(job), "resnet18_w8")
    with pytest.raises(InputError, match="features of queries and gallery"):
        runner.show(outcome, job, job.work_dir / "pictures", 3)
    edit(job.data_root / "mini-face/agedb_30/agedb_30_ann.txt", 1, "1 agedb_30_ann.txt agedb_30_ann.txt")
    with pytest.raises(InputError, match=r"they lack the image agedb_30/agedb_30_ann.txt"):
        runner.score_predictions(outcome.predictions, job_of(job))


def job_of(job, options=()):
    return replace(job, cfg_options=dict(options), work_dir=job.work_dir / "again")


def test_interrupted_and_resumed(job, tmp_path, monkeypatch):
    expected = runner.train(job)
    cut = replace(job, work_dir=tmp_path / "cut", resume=True)
    train = SoftmaxEngine.train

    def interrupted(self, **options):
        if self.epoch == 1:
            raise KeyboardInterrupt
        train(self, **options)

    monkeypatch.setattr(SoftmaxEngine, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.train(cut)
    monkeypatch.undo()
    assert plain(runner.train(cut)) == plain(expected)


def test_flipped_features_are_said_to_be(job):
    options = {**OPTIONS, "epochs": 1, "flip_features": True}
    outcome = runner.train(replace(job, cfg_options=options))
    assert outcome.protocol.endswith("features of image and mirror image added")


def test_the_mini_faces_are_the_same_again(few_faces, tmp_path):
    write_face(tmp_path / "mini-face", trained=6, images=4, tested=4, pairs=3)
    dataset = get_dataset("mini-face")
    assert dataset.checksum(tmp_path) == dataset.checksum(few_faces)


def test_drawn_people_have_names_and_differ():
    assert len({person_name(number) for number in range(2000)}) == 2000
    people = draw_people(np.random.default_rng(0), 60)
    for i, one in enumerate(people):
        for other in people[:i]:
            assert sum(vars(one)[part] != vars(other)[part] for part in vars(one)) >= 2


@pytest.mark.slow
def test_the_mini_board_is_learned(tmp_path):
    write_face(tmp_path / "mini-face")
    job = Job("mini-face", "resnet18_w16", "mini-face", 0, tmp_path, tmp_path / "work")
    outcome = runner.train(job)
    for name in ("lfw", "cfp", "agedb"):
        assert outcome.untrained[f"accuracy_{name}"] < 0.6
        assert outcome.metrics[f"accuracy_{name}"] > 0.8
        assert f"tar_{name}_far_1e-3" in outcome.metrics
