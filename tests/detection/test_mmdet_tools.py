"""The tools that MMDetection ships, with a 1-bit detector and our checkpoint, beside whatever mmcv is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import foreign, own_config, tools
from tests.detection.test_own_config import CONFIG

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def mine(drawn, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tools") / "mine.py"
    path.write_text(CONFIG.format(root=str(drawn / "mini-coco")) + "train_cfg = dict(max_epochs=1)\n")
    return path


@pytest.fixture(scope="module")
def checkpoint(mine, drawn) -> Path:
    """Ours, of this config."""
    job = Job("", "", "", 0, drawn, mine.parent / "ours")
    return own_config.train(mine, job).checkpoint


def run(*arguments: object, cwd: Path) -> str:
    """What a tool prints; it has to succeed."""
    command = [sys.executable, "-m", "onebit.detection.tools", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def bbox_map(text: str) -> float:
    return float(re.findall(r"coco/bbox_mAP: ([\d.-]+)", text)[-1])


@pytest.mark.slow
def test_train_and_test(mine, checkpoint, tmp_path) -> None:
    trained = run("train", mine, "--work-dir", tmp_path / "work", cwd=tmp_path)
    assert "coco/bbox_mAP:" in trained
    # With torch 2.6 or newer `tools/test.py` cannot read what `tools/train.py` wrote (mmengine 0.10.7); we can.
    theirs = foreign.score_checkpoint(
        tmp_path / "work" / "epoch_1.pth", mine, Job("", "", "", 0, tmp_path, tmp_path / "scored")
    )
    assert theirs.metrics["AP"] == pytest.approx(bbox_map(trained), abs=1e-3)
    ours = run("test", mine, checkpoint, "--work-dir", tmp_path / "work", cwd=tmp_path)
    scored = foreign.score_checkpoint(checkpoint, mine, Job("", "", "", 0, tmp_path, tmp_path / "ours"))
    assert bbox_map(ours) == pytest.approx(scored.metrics["AP"], abs=1e-3)
    start = [
        "model.backbone.init_cfg.type=Pretrained",
        f"model.backbone.init_cfg.checkpoint={checkpoint}",
        "model.backbone.init_cfg.prefix=backbone.",
    ]
    again = run("train", mine, "--work-dir", tmp_path / "start", "--cfg-options", *start, cwd=tmp_path)
    assert f"load backbone. in model from: {checkpoint}" in again


@pytest.mark.slow
def test_resume(mine, checkpoint, tmp_path) -> None:
    options = ["--cfg-options", "train_cfg.max_epochs=2"]
    text = run("train", mine, "--work-dir", tmp_path / "work", "--resume", checkpoint, *options, cwd=tmp_path)
    assert "Epoch(train)  [2]" in text or "Epoch(train) [2]" in text
    assert "Epoch(train)  [1]" not in text
    assert "Epoch(train) [1]" not in text


@pytest.mark.slow
def test_get_flops(mine, tmp_path) -> None:
    text = run("get_flops", mine, "--num-images", "1", cwd=tmp_path)
    assert re.search(r"Flops: [\d.]+[GM]", text)
    assert re.search(r"Params: [\d.]+[KM]", text)


@pytest.mark.slow
def test_browsing(mine, tmp_path) -> None:
    run("browse_dataset", mine, "--not-show", "--output-dir", tmp_path / "seen", cwd=tmp_path)
    assert list((tmp_path / "seen").rglob("*.jpg"))


@pytest.mark.slow
def test_benchmark_of_the_loader(mine, tmp_path) -> None:
    """`--task inference` of benchmark.py needs a GPU."""
    pytest.importorskip("psutil", reason="MMDetection's benchmark.py asks for it")
    text = run("benchmark", mine, "--task", "dataloader", "--max-iter", "4", "--num-warmup", "1", cwd=tmp_path)
    assert "fps" in text


@pytest.mark.slow
def test_the_inferencer_finds_what_we_find(mine, checkpoint, drawn) -> None:
    import onebit

    # ruff: isort: split
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(model=str(mine), weights=str(checkpoint), device="cpu", show_progress=False)
    image = next((drawn / "mini-coco" / "val2017").glob("*.jpg"))
    (found,) = inferencer(str(image), no_save_pred=True, no_save_vis=True, return_vis=False)["predictions"]
    expected = onebit.load(checkpoint, config=mine)(image)["boxes"]
    assert len(found["scores"]) == len(expected)
    assert sorted(found["scores"], reverse=True) == pytest.approx([box["score"] for box in expected], rel=1e-3)


def test_an_unknown_tool_is_one_line() -> None:
    assert {"train", "test", "get_flops", "benchmark", "browse_dataset", "analyze_logs"} <= tools.tools().keys()
    with pytest.raises(InputError, match="unknown tool of MMDetection 'trian'; did you mean train"):
        tools.run("trian")
