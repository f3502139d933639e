"""One number per method, over all boards: which lines are twins, which means are taken, what is missing."""

import io
import itertools
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.latency_record import LatencyRun
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import pictures
from onebit.leaderboards.showing.overall_table import TABLE, quadratic_mean

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "leaderboards" / "records"


@pytest.fixture(scope="module")
def one() -> Record:
    return next(r for r in Record.load_all(COMMITTED, "cifar10") if r.status == "done" and not r.cfg_options)


@pytest.fixture
def row(one):
    """A record of cifar10-jpeg, or of another dataset and board, that scores ``top1``."""

    def build(backbone, top1, seed=0, dataset="cifar10-jpeg", board="cifar10", memory=8, **changes):
        binarizer = backbone.partition("_")[2] or "none"
        bits = 32 if binarizer == "none" else 1
        strict = {**one.cost["strict"], "memory_bits": memory, "ops": 2.0 * memory}
        metrics = dict.fromkeys(ALL[board].metrics, top1)
        return one.model_copy(
            update=dict(
                **dict(backbone=backbone, binarizer=binarizer, weight_bits=bits, activation_bits=bits),
                **dict(seed=seed, dataset=dataset, board=board, metrics=metrics, cost={"strict": strict}),
                **dict(recipe="short"),
                **changes,
            )
        )

    return build


def values(records) -> dict[tuple[str, str], dict]:
    return {(line.values["data"], line.values["method"]): line.values for line in TABLE.lines(records)}


def test_a_ratio_by_hand(row):
    """0.4 and 0.6 are 0.5 in the mean, over 0.8; another network keeps 0.9; their mean is the dataset's."""
    found = values(
        [
            *(row("resnet18", 0.8, memory=80), row("resnet20", 0.5, memory=80)),
            *(row("resnet18_reactnet", 0.4, memory=8), row("resnet18_reactnet", 0.6, seed=1, memory=8)),
            row("resnet20_reactnet", 0.45, memory=4),
            *(row("resnet20", 0.8, dataset="fashion-mnist", board="fashion-mnist"),),
            *(row("resnet20_reactnet", 0.6, dataset="fashion-mnist", board="fashion-mnist"),),
        ]
    )
    assert set(found) == {("real", "reactnet"), ("development", "reactnet")}  # real data never mixes with other
    own = found["development", "reactnet"]
    assert own["overall"] == own["cifar10-jpeg"] == pytest.approx((0.5 / 0.8 + 0.9) / 2)
    assert own["memory_saving"] == own["ops_saving"] == own["cost"] == pytest.approx((10 + 20) / 2)
    assert (own["networks"], own["datasets"]) == (2, 1)
    assert found["real", "reactnet"]["overall"] == pytest.approx(0.75)


def test_a_twin_has_the_same_detector(row):
    coco = dict(dataset="mini-coco", board="coco")
    retinanet = dict(cfg_options={"detector": "retinanet"}, **coco)
    rows = [row("resnet18", 0.8, **coco), row("resnet18_reactnet", 0.4, **retinanet)]
    assert not values(rows)
    rows.append(row("resnet18", 0.5, **retinanet))
    assert values(rows)["drawn", "reactnet"]["mini-coco"] == pytest.approx(0.4 / 0.5)


def test_over_datasets_the_quadratic_mean_is_taken():
    assert quadratic_mean([0.6, 0.8]) == pytest.approx(math.sqrt(0.5))
    assert quadratic_mean([0.7]) == pytest.approx(0.7)


def test_twins_were_trained_alike(row):
    plain = row("resnet20", 0.8)
    for other in (
        row("resnet20_xnor", 0.4, cfg_options={"train_cfg.max_epochs": 2}),
        row("resnet18_xnor", 0.4),
        row("resnet20_xnor", 0.4, status="failed"),
        row("resnet20_xnor", 0.4).model_copy(update=dict(recipe="small")),
    ):
        assert values([plain, other]) == {}


def test_cells_have_their_twin_under_another_name(row):
    cell = row("dcp_nas_c8", 0.3).model_copy(update=dict(binarizer="mcn", weight_bits=1, activation_bits=1))
    real = row("dcp_nas_c8_real", 0.6).model_copy(update=dict(binarizer="none", weight_bits=32, activation_bits=32))
    assert values([cell, real])["development", "mcn"]["overall"] == pytest.approx(0.5)


def test_what_is_missing_stays_empty_and_more_datasets_stand_first(row):
    records = [
        *(row(name, top1) for name, top1 in (("resnet20", 0.8), ("resnet20_xnor", 0.72), ("resnet20_bireal", 0.4))),
        *(row(n, t, dataset="coco128", board="coco") for n, t in (("resnet20", 0.2), ("resnet20_bireal", 0.1))),
    ]
    lines = TABLE.lines(records)
    assert [line.values["method"] for line in lines] == ["bireal", "xnor"]
    frame = pd.read_csv(io.StringIO(TABLE.csv(lines))).set_index("method")
    assert math.isnan(frame.loc["xnor", "coco128"])
    assert frame.loc["bireal", "coco128"] == pytest.approx(0.5)
    assert frame.loc["bireal", "overall"] == pytest.approx(0.5)
    assert "| - |" in TABLE.render(lines, "markdown")


def test_accelerations_are_of_whole_networks_beside_their_twin(row):
    run = next(r for r in LatencyRun.load_all(COMMITTED, "latency") if r.threads == 1 and r.classes)
    entry = next(e for e in run.entries if e.backbone == "resnet18_reactnet")
    records = [row("resnet20", 0.8), row("resnet20_reactnet", 0.4), row("resnet20_mcn", 0.4)]
    expected = run.fastest_reference().median / entry.median
    two = run.model_copy(update=dict(threads=2))
    features = run.model_copy(update=dict(classes=None))
    found = values([*records, run, two, features])
    assert found["development", "reactnet"]["acceleration"] == pytest.approx(expected)
    assert found["development", "mcn"]["acceleration"] is None
    assert values([*records, two, features])["development", "reactnet"]["acceleration"] is None


def test_columns_are_documented():
    section = (ROOT / "docs" / "tables.md").read_text().split("\n## All boards together\n")[1].split("\n## ")[0]
    named = re.findall(
        r"`([a-z_]+)`", " ".join(line.split("|")[1] for line in section.splitlines() if line[:3] == "| `")
    )
    frame = TABLE.frame(TABLE.lines(TABLE.load(COMMITTED)))
    datasets = {"fashion-mnist", "cifar10-jpeg", "coco128"}
    assert [name for name in frame.columns if "-" not in name and name not in datasets] == named


def test_commands(capsys, tmp_path, row):
    assert cli.main(["table", "overall", "--format", "csv", "--records", str(COMMITTED)]) == 0
    assert "reactnet" in capsys.readouterr().out
    assert cli.main(["plot", "overall", "--out", str(tmp_path / "x.svg"), "--records", str(COMMITTED)]) == 0
    assert "reactnet" in (tmp_path / "x.svg").read_text()
    assert cli.main(["plot", "overall", "--metric", "top1", "--out", str(tmp_path / "y.svg")]) == 2
    (tmp_path / "records").mkdir()
    assert cli.main(["plot", "overall", "--out", str(tmp_path / "y.svg"), "--records", str(tmp_path / "records")]) == 2
    assert "no 1-bit network whose real-valued twin was trained likewise" in capsys.readouterr().err
    assert not (tmp_path / "y.svg").exists()


def test_names_below_bars_do_not_overlap():
    figure = pictures.draw_overall(TABLE.lines(TABLE.load(COMMITTED)))
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
