"""A dataset of somebody else's package, as docs/adding-a-dataset.md shows it, from training to the page."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests import fresh

DOCS = Path(__file__).resolve().parents[2] / "docs" / "adding-a-dataset.md"
#: Small enough for seconds; the rest of every command is the documentation's.
SMALL = ["--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.batch_size=10"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def place(tmp_path):
    """A folder with the module of the documentation, and a few images in the format of SVHN."""
    (module,) = blocks("python")
    (tmp_path / "svhn_board.py").write_text(module)
    folder = tmp_path / "data" / "svhn"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (32, 32, 3, count), np.uint8)
        labels = (np.arange(count) % 10 + 1).astype(np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": labels})
    return tmp_path


def onebit(place, *commands, **environment):
    """Run commands one after another in one process; what was printed, and the last exit code."""
    code = f"""
import sys
from onebit.leaderboards.cli import main
for command in {list(commands)!r}:
    code = main(command)
    if code:
        sys.exit(code)
"""
    paths = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", str(DOCS.parents[1]))])
    given = {**os.environ, "PYTHONPATH": paths, "ONEBIT_DATA": str(place / "data"), **environment}
    return fresh.run(["-c", code], given, place)


def documented():
    (shell,) = blocks("sh")
    commands = [line.split()[1:] for line in shell.splitlines()]
    return [[*command, *(SMALL if command[0] in ("train", "bench") else [])] for command in commands]


@pytest.mark.slow
def test_from_training_to_the_page(place):
    commands = documented()
    assert [command[0] for command in commands] == ["train", "bench", "table", "verify", "site"]
    done = onebit(place, *commands)
    assert done.returncode == 0, done.stderr
    records = sorted((place / "leaderboards" / "records" / "svhn").glob("*.json"))
    assert len(records) == 2
    record = json.loads(records[0].read_text())
    assert record["split"] == "train -> test"
    assert record["details"]["num_classes"] == 10
    assert record["environment"]["versions"]["svhn_board"] == "unknown"
    assert "resnet18_w8_reactnet" in done.stdout
    page = (place / "build" / "site" / "index.html").read_text(encoding="utf-8")
    assert ">SVHN <small>" in page
    # Without the package the rows are of a board that nobody knows, in one line.
    done = onebit(place, ["table", "svhn"])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "unknown dataset 'svhn'" in done.stderr
    # With an entry point nothing has to be named.
    info = place / "svhn_board-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: svhn-board\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[onebit.datasets]\nsvhn = svhn_board\n")
    done = onebit(place, ["table", "svhn"], ["verify", "leaderboards/records/svhn"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no .mat file", "the train files of svhn cannot be read: MatReadError: Mat file appears to be truncated"),
        (None, "svhn is incomplete: expected "),
        (dict(X=np.zeros((32, 32, 3, 4), np.uint8)), "the train files of svhn cannot be read: KeyError: 'y'"),
        (
            dict(X=np.zeros((16, 16, 3, 4), np.uint8), y=np.ones((4, 1), np.uint8)),
            "expected train images of svhn as uint8 [N, 3, 32, 32] and as many labels, its reader gave torch.uint8 "
            "[4, 3, 16, 16] and [4]",
        ),
        (dict(X=np.zeros((32, 32, 3, 0), np.uint8), y=np.ones((0, 1))), "expected train labels from 0 to 9, found no"),
    ],
    ids=["garbage", "missing", "without labels", "another size", "empty"],
)
def test_files_that_are_not_what_they_should_be(place, content, message):
    path = place / "data" / "svhn" / "train_32x32.mat"
    if isinstance(content, dict):
        savemat(path, content)
    elif content is None:
        path = place / "data" / "svhn" / "test_32x32.mat"
        path.unlink()
    else:
        path.write_bytes(content)
    done = onebit(place, documented()[1])
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
    assert not list(place.rglob("*.json"))


WRONG = """
from onebit import Dataset, register_dataset
value = dict(name="mine", task="classification", folders=("mine",), required=("train",), how_to_get="Draw it.")
register_dataset(Dataset(**{**value, **CHANGE}))
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(name="cifar10"), "the name of dataset cifar10 is taken"),
        (dict(name="folder-mine"), "the name of dataset folder-mine is taken"),
        (dict(name="a/b"), "dataset 'a/b': expected a name of at most 48 letters"),
        (dict(task="counting"), "task 'counting': expected one of classification, detection, reid"),
        (dict(kind="imagined"), "kind 'imagined': expected one of real, development, drawn"),
        (dict(board="imagenets"), "there is no board imagenets of classification"),
        (dict(board="voc"), "there is no board voc of classification"),
        (dict(reader="mine:read"), "its reader needs the fields classes and image_size beside it"),
    ],
)
def test_a_value_that_cannot_be(tmp_path, change, message):
    (tmp_path / "theirs.py").write_text(f"CHANGE = {change!r}\n{WRONG}")
    done = onebit(tmp_path, ["table", "mine"], ONEBIT_IMPORT="theirs")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot use package theirs (--import): " in done.stderr
    assert message in done.stderr
