"""Tables follow from records: means over seeds, percent for people, fractions for programs."""

import io

import pandas as pd
import pytest

from commons.errors import WorkError
from leaderboards import table as tables
from leaderboards.bench import bench
from leaderboards.boards import ALL
from leaderboards.record import load_all

BOARD = ALL["cifar10"]


@pytest.fixture
def frame(sweep, stub_runner):
    stub_runner.failure["resnet18_w8_reactnet"] = WorkError("no")
    list(bench(sweep))
    return tables.table(BOARD, load_all(sweep.records, "cifar10"))


def test_mean_deviation_and_failures(frame):
    real, onebit = frame.iloc[0], frame.iloc[1]
    assert real["backbone"] == "resnet18_w8"
    assert real["top1"] == pytest.approx(0.505)
    assert real["top1_std"] == pytest.approx(0.0070710678)
    assert (real["seeds"], real["failed"]) == (2, 0)
    assert (onebit["seeds"], onebit["failed"]) == (0, 2)
    assert pd.isna(onebit["top1"])


def test_csv_opens_in_pandas_with_the_documented_columns(frame):
    read = pd.read_csv(io.StringIO(tables.render(BOARD, frame, "csv")))
    assert list(read.columns) == [
        "dataset", "backbone", "binarizer", "weight_bits", "activation_bits", "recipe", "cfg_options",
        "epochs", "top1", "top1_std", "top5", "top5_std", "untrained", "params", "memory_mbit_strict",
        "ops_m_strict", "paper_convention", "memory_mbit_paper", "ops_m_paper", "wall_seconds",
        "source", "seeds", "failed",
    ]  # fmt: skip
    assert read["top1"][0] == frame["top1"][0], "full precision"
    assert read["memory_mbit_strict"][0] == pytest.approx(0.0041)
    assert read["memory_mbit_paper"][0] == pytest.approx(0.001)


def test_people_see_percent_and_deviation(frame):
    text = tables.render(BOARD, frame, "text")
    assert "50.5 ± 0.7" in text
    assert "0 (2 failed)" in text
    assert "1/1" in text
    assert "32/32" in text


@pytest.mark.parametrize("form", ["html", "markdown", "latex"])
def test_what_a_record_says_stays_text(frame, form):
    hostile = frame.assign(recipe="<script>|&_")
    shown = tables.render(BOARD, hostile, form)
    assert {"html": "&lt;script&gt;", "markdown": r"<script>\|", "latex": r"\&\_"}[form] in shown
    if form == "html":
        assert "<script>" not in shown


def test_one_seed_has_no_deviation(sweep):
    list(bench(sweep))
    for backbone in sweep.backbones:
        sweep.record_path(backbone, 1).unlink()
    frame = tables.table(BOARD, load_all(sweep.records, "cifar10"))
    assert frame["top1_std"].isna().all()
    assert "±" not in tables.render(BOARD, frame, "text")
