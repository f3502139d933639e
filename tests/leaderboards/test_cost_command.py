"""`onebit cost`: the numbers that the papers print, as the command prints them."""

import csv
import io
import json
import re

import pytest

from onebit.leaderboards import cli


def run(capsys, *arguments):
    try:
        code = cli.main(["cost", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("name", "convention", "mbit", "mops"),
    [
        ("dcp_nas_s", "dcp-nas", "4.19", "98.96"),
        ("dcp_nas_m", "dcp-nas", "6.95", "161.74"),
        ("dcp_nas_l", "dcp-nas", "14.51", "332.01"),
        ("dcp_nas_s", "strict", "36.15", "285.74"),
        ("dcp_nas_m", "strict", "50.10", "493.80"),
        ("dcp_nas_l", "strict", "80.84", "1079.15"),
        ("resnet18_reactnet", "strict", "33.99", "163.99"),
    ],
)
def test_prints_the_numbers(capsys, name, convention, mbit, mops):
    code, out, _ = run(capsys, name, "--convention", convention, "--input", 224, 224, "--classes", 1000)
    assert code == 0
    assert re.search(rf"memory +{mbit} Mbit", out)
    assert re.search(rf"OPs +{mops} M ", out)


def test_resnet18_without_classifier(capsys):
    _, out, _ = run(capsys, "resnet18", "--layers", "--format", "json")
    layers = json.loads(out)["layers"]
    convolutions = sum(row["memory_bits"] for row in layers if row["type"] == "Conv2d")
    assert round(convolutions / 1e6, 1) == 357.3
    assert json.loads(out)["memory_bits"] / 1e6 == pytest.approx(357.4, rel=1e-3)


@pytest.mark.slow
def test_detector_of_table_13(capsys):
    code, out, _ = run(
        capsys,
        "resnet18",
        "--task",
        "detection",
        "--input",
        600,
        1000,
        "--classes",
        20,
        "--proposals",
        1000,
        "--convention",
        "mmdet-legacy",
        "--format",
        "json",
    )
    assert code == 0
    counted = json.loads(out)
    assert 96.39e9 < counted["flops"] < 96.40e9
    assert round(counted["memory_bits"] / 8e6, 2) == 112.88


@pytest.mark.slow
def test_proposals_change_the_head_alone(capsys):
    def layers(proposals):
        _, out, _ = run(
            capsys,
            "resnet18_w8",
            "--task",
            "detection",
            "--input",
            96,
            96,
            "--proposals",
            proposals,
            "--layers",
            "--format",
            "json",
        )
        return json.loads(out)["layers"]

    for few, many in zip(layers(10), layers(30), strict=True):
        assert many["macs"] == few["macs"] * (3 if few["group"] == "head" else 1)
    assert {"stem", "convolution", "neck", "rpn", "head"} <= {row["group"] for row in layers(10)}


def test_several_backbones_and_conventions(capsys, tmp_path):
    names = ["resnet18_w8", "resnet18_w8_bireal", "dcp_nas_c8"]
    picture = tmp_path / "cost.png"
    code, out, _ = run(capsys, *names, "--input", 32, 32, "--stem", "cifar", "--format", "csv", "--plot", picture)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["backbone"], row["convention"]) for row in rows] == [
        (name, convention) for name in names for convention in ("strict", "dcp-nas")
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")
    _, out, _ = run(capsys, *names, "--input", 32, 32, "--format", "json", "--convention", "cp-nas")
    assert [(row["backbone"], row["convention"]) for row in json.loads(out)] == [(name, "cp-nas") for name in names]
    _, out, _ = run(capsys, *names[:2], "--convention", "strict", "--input", 32, 32)
    assert out.count("  OPs  ") == 2
    assert "resnet18_w8_bireal, classification, convention strict" in out


def test_reid(capsys):
    code, out, _ = run(capsys, "resnet18_w8", "--task", "reid", "--format", "json")
    assert code == 0
    assert json.loads(out)["task"] == "reid"
    assert json.loads(out)["input_shape"] == [3, 256, 128]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18", "--convention", "loose"], "expected one or more of strict"),
        (["resnet18", "--convention", ","], "expected something like a,b"),
        (["resnet18", "--proposals", "5"], "goes with --task detection"),
        (["resnet18", "--proposals", "0"], "from 1 up"),
        (["resnet18", "--classes", "0"], "from 1 up"),
        (["resnet18", "--stem", "cifar", "--task", "reid"], "goes with --task classification"),
        (["resnet18", "--plot", "cost.pdf"], "expected a name that ends in .svg or .png"),
        (["resnet18", "resnet81"], "resnet18"),
    ],
)
def test_bad_input(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []
