"""What issue and review showed as working attacks, as commands in processes of their own; and what must not come back."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import PretrainedInit
from PIL import Image

from onebit.commons.checkpoints import ROW
from onebit.commons.engine import QuietRunner  # noqa: F401  its module is what has configs' weights read so
from onebit.commons.errors import InputError
from onebit.commons.mini import draw
from onebit.detection import checks, predictions, pretrained
from onebit.leaderboards import boards
from tests.security.corpus import archive, call, getattr_program
from tests.security.test_options import sealed

ROOT = Path(__file__).parents[2]
RECORD = Path(boards.__file__).parent / "records/coco/coco128--resnet18_w16_reactnet--small--seed0.json"
#: Enough for torch, whose libraries alone map some gigabytes; far below what an endless file would take.
LIMIT = "ulimit -v 12000000; "


def onebit(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = " ".join(f"'{a}'" for a in (sys.executable, "-m", "onebit", *arguments))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", LIMIT + command], capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    draw("mini-cifar10", root / "mini-cifar10")
    return root


@pytest.mark.parametrize("program", ["getattr", "a call", "a row"])
def test_a_checkpoint_that_would_run_code(tmp_path, data, program):
    path = tmp_path / "evil.pth"
    if program == "a row":
        node = {"_delete_": True, "type": "subprocess.getoutput", "cmd": f"touch {tmp_path}/owned"}
        row = dict(task="classification", dataset="mini-cifar10", backbone="resnet18_w8", recipe="mini", seed=0)
        options = {"model.data_preprocessor": node, "model.backbone": node}
        torch.save({ROW: {**row, "num_classes": 10, "stem": "cifar", "cfg_options": options}, "state_dict": {}}, path)
    else:
        touch = f"touch {tmp_path}/owned"
        code = (
            getattr_program(f"__import__('os').system({touch!r})")
            if program == "getattr"
            else call("os", "system", touch)
        )
        path.write_bytes(archive(code))
    before = sorted(tmp_path.iterdir())
    done = onebit(tmp_path, "test", "classification", "--checkpoint", path, "--dataset", "mini-cifar10", "--data", data)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("onebit: ")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["verify", "submit-check"])
def test_a_record_that_would_run_code(tmp_path, command):
    content = json.loads(RECORD.read_text())
    touch = f"touch {tmp_path}/owned"
    content["cfg_options"] = {"model.backbone.type": "subprocess.getoutput", "model.backbone.cmd": touch}
    path = sealed(content, tmp_path / "records")
    done = onebit(tmp_path, command, path)
    assert done.returncode == 1
    assert re.search(r"the record(: option | takes no options ')model\.backbone\.", done.stdout)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/mem"])
def test_verify_of_what_has_no_end(tmp_path, path):
    done = onebit(tmp_path, "verify", path)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith(f"BAD  {path}\n     ")


def test_weights_that_a_config_names_are_read_the_same_way(tmp_path):
    """`load_from`, and `init_cfg` of type Pretrained: with torch before 2.6 mmengine itself would execute them."""
    path = tmp_path / "a.pth"
    path.write_bytes(archive(call("tests.security.canary", "sing")))
    for prefix in (None, "backbone"):
        start = PretrainedInit(str(path), prefix=prefix)
        with pytest.raises(InputError, match=r"it asks for tests\.security\.canary\.sing"):
            start(torch.nn.Linear(1, 1))


def test_predictions_that_have_no_end():
    with pytest.raises(InputError, match="/dev/zero: expected a file, found something else"):
        predictions.read("/dev/zero", {1}, {1})


@pytest.mark.parametrize("lacks", ["backbone", "dataset", "recipe", "seed"])
def test_a_start_that_does_not_say_what_it_is(tmp_path, lacks):
    row = dict(task="classification", dataset="cifar10", backbone="resnet18_w8", recipe="mini", seed=0)
    row.pop(lacks)
    torch.save({ROW: row, "state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=f"a.pth does not say its {lacks}"):
        pretrained.describe(tmp_path / "a.pth", torch.nn.Identity())


def test_a_link_out_of_the_data_set_is_not_opened(tmp_path):
    """An archive can hold links: what one leads to outside is no image of the data set."""
    outside, inside = tmp_path / "secret.jpg", tmp_path / "set" / "images"
    inside.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(outside)
    Image.new("RGB", (8, 8)).save(inside / "other.jpg")
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set" / "a.json").write_text(json.dumps(content))
    dataset = dict(ann_file="a.json", data_root=str(tmp_path / "set"), data_prefix=dict(img="images"))

    def check() -> dict:
        return checks._check_images(checks._read_coco(dataset, ("cat",)), set())

    (inside / "1.jpg").symlink_to(outside)
    with pytest.raises(InputError, match=r"image missing: expected .*1\.jpg"):
        check()
    (inside / "1.jpg").unlink()
    (inside / "1.jpg").symlink_to("other.jpg")
    assert check()["images"] == 1


def test_no_reader_of_the_source_trusts_a_file():
    """What would open the door again, wherever it stood."""
    forbidden = re.compile(
        r"add_safe_globals|weights_only=False|allow_pickle=True|yaml\.(load|unsafe_load|full_load)\(|\bmarshal\.|"
        r"\bshelve\.|joblib\.load|(?<![\w.`])pickle\.(load|loads|Unpickler)\b|(?<![\w.])(eval|exec)\(|shell=True"
    )
    found = []
    for room in ("backbones", "classification", "commons", "detection", "leaderboards", "onebit", "packed", "reid"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if forbidden.search(line.split("#")[0]):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_checkpoints_are_read_in_one_place():
    found = set()
    for room in ("backbones", "classification", "commons", "detection", "leaderboards", "packed", "reid"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if re.search(r"(?<!`)torch\.load\(", path.read_text()):
                found.add(str(path.relative_to(ROOT)))
    assert found == {"leaderboards/running/mock_run.py"}  # bytes that it has written itself, in memory
