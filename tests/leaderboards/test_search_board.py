"""`onebit search` and the board of searches, with a search and a training of milliseconds."""

import json
from pathlib import Path

import pytest
import torch

from onebit.backbones import Genotype, create_backbone
from onebit.classification.search import runner
from onebit.classification.search.result import SearchOutcome
from onebit.commons.engine import load_row
from onebit.commons.task import Outcome
from onebit.leaderboards import cli
from onebit.leaderboards.recording.search_record import SearchRun
from onebit.leaderboards.running import search_bench
from onebit.leaderboards.showing import search_table
from tests.classification.conftest import data  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]

OPERATIONS = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")


class Stub:
    """Stands in for the search and for the training of its cell; keeps what they were asked."""

    def __init__(self):
        self.searched, self.trained = [], []

    def search(self, job):
        self.searched.append(job)
        torch.manual_seed(job.seed)
        history = torch.rand(2, 2, 14, 4)
        return SearchOutcome.of(
            job,
            options={"x": 1},
            history=history,
            operations=OPERATIONS,
            derivation=dict(edges="top2", keep_none=False),
            supernet=dict(channels=4, cells=3, binarizer=None),
            measures={"alpha_entropy": 0.999},
            epochs_of_method=5,
            processes=1,
            data_checksum="content:0",
            config_sha256="0" * 64,
            wall_seconds=4.0,
            images_seen=200,
            peak_memory_bytes=10**6,
        )

    def train(self, job):
        self.trained.append(job)
        return Outcome(
            metrics={"top1": 0.5 + 0.1 * job.seed, "top5": 0.9},
            untrained=None,
            main_metric="top1",
            epochs=3,
            split="s",
            protocol="p",
            data_checksum="content:0",
            config="",
            checkpoint=None,
            cost={"strict": {"ops": 5.0, "memory_bits": 7}},
            num_classes=10,
            details={"network": {"binarizer": "bireal", "weight_bits": 1, "activation_bits": 1}},
        )


@pytest.fixture
def stub(monkeypatch):
    stub = Stub()
    monkeypatch.setattr(runner, "search", stub.search)
    monkeypatch.setattr(search_bench, "runner", lambda task: stub)
    return stub


@pytest.fixture
def onebit(data, tmp_path, monkeypatch, capsys):  # noqa: F811
    """Runs a command in an empty folder; returns code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        more = ["--data", str(data)] if arguments[0] in ("search", "bench") else []
        code = cli.main([*arguments, *more])
        return code, *capsys.readouterr()

    return run


MINI = ("--dataset", "mini-cifar10")


def test_search_writes_cell_history_and_picture(onebit, stub, tmp_path):
    code, out, err = onebit("search", "random", *MINI, "--out", "new/cell.json", "--seed", "3")
    assert (code, err) == (0, "")
    assert "images      200, 50 per second" in out
    assert "warning     alpha has hardly moved, its entropy is 99.9 % of the largest" in out
    names = {p.name for p in (tmp_path / "new").iterdir()}
    assert names == {"cell.json", "cell.svg", "cell.scores.npz"}
    cell = Genotype.load(tmp_path / "new" / "cell.json")
    assert cell.hash[:12] in out
    assert cell.provenance["seed"] == 3
    (job,) = stub.searched
    assert (job.preset, job.work_dir.name) == ("mini", "mini-cifar10--random--mini--seed3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nas", *MINI, "--out", "c.json"], "unknown search method 'nas'"),
        (["random", *MINI, "--out", "c.txt"], "expected the name of a .json file, got 'c.txt'"),
        (["random", *MINI, "--out", "file/c.json"], "file is not a folder that can be written"),
        (["random", *MINI, "--out", "c.json", "--preset", "big"], "unknown preset of search 'big'"),
        (["random", *MINI, "--out", "c.json", "--options", "x"], "--options takes KEY=VALUE"),
        (["random", *MINI, "--out", "c.json", "--options", "x=1"], "unknown option of random 'x'"),
        (["random", "--dataset", "mini-voc", "--out", "c.json"], "is for detection"),
    ],
)
def test_what_is_wrong_is_one_line(onebit, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    try:
        code, out, err = onebit("search", *arguments)
    except SystemExit as stopped:  # argparse
        code, out, err = stopped.code, "", message + "\n"
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_budget_is_passed_on_and_told(onebit, stub, tmp_path):
    code, out, _ = onebit("search", "random", *MINI, "--out", "cell.json", "--budget", "7.5")
    assert code == 0
    assert stub.searched[0].budget == 7.5
    assert "epochs      2 of 5, ended by --budget 7.5, 4 s" in out
    about = Genotype.load(tmp_path / "cell.json").provenance
    assert (about["budget_seconds"], about["epochs"], about["epochs_of_method"]) == (7.5, 2, 5)
    with pytest.raises(SystemExit):
        onebit("search", "random", *MINI, "--out", "cell.json", "--budget", "0")


def test_board_is_filled_once_and_shown(onebit, stub, tmp_path):
    sweep = ("bench", "search", *MINI, "--methods", "random,darts", "--seeds", "0,1")
    code, out, err = onebit(*sweep)
    assert (code, err) == (0, "")
    assert "[4/4] darts seed 1: top1 60.0 %, 4 s" in out
    assert (tmp_path / "leaderboards" / "tables" / "search.csv").exists()
    assert len(stub.searched) == len(stub.trained) == 4
    row = "mini-cifar10--random--mini--seed0"
    assert stub.trained[0].backbone == f"work_dirs/search/{row}/cell.json_c8_l6"
    assert stub.trained[0].recipe == "mini"
    code, again, _ = onebit(*sweep)
    assert (code, len(stub.searched), again.count("already done")) == (0, 4, 4)
    runs = list(SearchRun.load_all(tmp_path / "leaderboards" / "records", "search"))
    assert {run.file_name() for run in runs} >= {f"{row}.json"}
    assert runs[0].gpu_days is None or torch.cuda.is_available()
    assert Genotype.from_dict(runs[0].genotype).provenance["method"] == runs[0].method

    code, csv, _ = onebit("table", "search", "--format", "csv")
    assert csv.splitlines()[0] == ",".join(search_table.TABLE.columns)
    assert csv.count("mini-cifar10") == 2
    code, text, _ = onebit("table", "search")
    assert "55.00 ± 7.07" in text
    assert "DCP-NAS Table 10" in text
    assert "none" in text
    assert "bireal" in text
    assert onebit("verify")[0] == 0
    code, _, err = onebit(*sweep, "--overwrite", "never")
    assert code == 2
    assert "--overwrite never was asked for" in err
    code, *_ = onebit(*sweep, "--overwrite", "always")
    assert (code, len(stub.searched)) == (0, 8)


def test_an_interrupted_row_goes_on_where_it_stopped_also_when_it_replaces_a_record(
    onebit, stub, tmp_path, monkeypatch
):
    sweep = ("bench", "search", *MINI, "--methods", "random")
    assert onebit(*sweep)[0] == 0
    checkpoint = tmp_path / "work_dirs/search/mini-cifar10--random--mini--seed0/search/epoch_1.pth"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"of the row that ended")

    def interrupted(job):
        assert not checkpoint.exists(), "a row that ended starts afresh"
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes(b"an hour of searching")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "search", interrupted)
        assert onebit(*sweep, "--overwrite", "always")[0] == 1
    assert onebit(*sweep, "--overwrite", "always")[0] == 0
    assert checkpoint.read_bytes() == b"an hour of searching"


def test_searches_are_handed_to_slurm_as_rows_of_a_board_are(onebit, stub):
    pytest.importorskip("submitit")
    code, out, _ = onebit("bench", "search", *MINI, "--methods", "random", "--slurm", "cluster=debug")
    assert (code, len(stub.searched)) == (0, 1)
    assert "[1/1] random seed 0" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "needs --dataset"),
        (["search", *MINI, "--methods", "nas"], "unknown search method 'nas'"),
        (["search", *MINI, "--backbones", "resnet18"], "--backbones is not for `onebit bench search`"),
        (["search", *MINI, "--retry-failed"], "--retry-failed is not for `onebit bench search`"),
        (["mini-cifar10", "--methods", "random"], "--methods is for benches that search, not for mini-cifar10"),
    ],
)
def test_bench_refuses_what_does_not_fit(onebit, stub, tmp_path, arguments, message):
    code, out, err = onebit("bench", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not stub.searched
    assert not list(tmp_path.iterdir())


def test_table_without_records(onebit):
    code, out, err = onebit("table", "search", "--format", "csv", "--no-reported", "--records", "none")
    assert (code, out) == (2, "")
    assert "`onebit bench search` makes them" in err
    assert "ABanditNAS" in onebit("table", "search", "--reported")[1]


def test_printed_costs_stand_once():
    lines = search_table.TABLE.frame(search_table.TABLE.lines([], reported=True))
    assert not lines.duplicated(["backbone", "dataset", "gpu_days", "top1"]).any()
    found = lines[(lines.backbone == "DCP-NAS-L") & (lines.dataset == "ImageNet")]
    assert found.gpu_days.tolist() == [2.9]
    slow = lines[lines.backbone == "DCP-NAS-L (T.P.)"]
    assert (slow.gpu_days.item(), slow.top1.item()) == (27.9, 0.714)
    bnas = lines[(lines.backbone == "BNAS (XNOR)")]
    assert (bnas.gpu_days.item(), bnas.top1.item()) == (0.104, 0.9429)
    assert set(lines.dataset) == {"CIFAR-10", "ImageNet"}


def test_a_changed_record_is_refused(onebit, stub, tmp_path):
    onebit("bench", "search", *MINI, "--methods", "random")
    (path,) = (tmp_path / "leaderboards" / "records" / "search").glob("*.json")
    content = json.loads(path.read_text())
    content["wall_seconds"] = 0.1
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="was changed after it was written"):
        SearchRun.load(path)
    assert onebit("verify")[0] == 1


#: One epoch of two batches.
QUICK = (
    "--cfg-options",
    "data.images=80",
    "data.image_size=8",
    "data.batch_size=20",
    "space.channels=2",
    "schedule.epochs=1",
)


@pytest.mark.slow
def test_a_cell_that_was_searched_is_trained_by_its_file(onebit, data, tmp_path):  # noqa: F811
    code, out, err = onebit("search", "dcp-nas", *MINI, "--out", "cell.json", "--options", "lambda=1e-3", *QUICK)
    assert (code, err) == (0, "")
    cell = Genotype.load(tmp_path / "cell.json")
    assert cell.hash[:12] in out
    assert cell.provenance["options"]["lambda_"] == 1e-3
    train = ("train", "classification", *MINI, "--data", str(data), "--work-dir", "run")
    code, out, err = onebit(*train, "--backbone", "cell.json", "--cfg-options", "train_cfg.max_epochs=1")
    assert code == 0, err
    assert "cell.json on mini-cifar10" in out
    _, weights = load_row(tmp_path / "run" / "epoch_1.pth")
    with torch.device("meta"):  # as wide and deep as the supernet was
        network = create_backbone("cell.json_c2_l3", stem="cifar")
    stored = {name.removeprefix("backbone."): value.shape for name, value in weights.items()}
    assert all(stored[name] == value.shape for name, value in network.state_dict().items())


@pytest.mark.slow
def test_searches_of_a_bench_are_real(onebit, monkeypatch, tmp_path):
    """Only the training of the cells is a stand-in."""
    stub = Stub()
    monkeypatch.setattr(search_bench, "runner", lambda task: stub)
    code, _, err = onebit("bench", "search", *MINI, "--methods", "dcp-nas,random", *QUICK)
    assert (code, err) == (0, "")
    runs = {run.method: run for run in SearchRun.load_all(tmp_path / "leaderboards" / "records", "search")}
    assert set(runs) == {"dcp-nas", "random"}
    for run, job in zip(runs.values(), stub.trained, strict=True):
        cell = Genotype.load(job.backbone.removesuffix("_c8_l6"))
        assert cell == Genotype.from_dict(run.genotype)
        assert cell.provenance["config_sha256"] == run.config_sha256
        supernet = {"channels": 2, "cells": 3, "binarizer": "mcn", "structure": "onebit"}
        assert cell.provenance["supernet"] == supernet
        assert run.epochs == 1
        assert run.images_seen > 0
    assert runs["random"].images_seen == 40  # the half that trains weights
    assert runs["dcp-nas"].config_sha256 != runs["random"].config_sha256


def test_a_line_says_as_what_a_cell_was_searched_and_trained(onebit, stub, tmp_path):
    onebit("bench", "search", *MINI, "--methods", "random")
    (run,) = SearchRun.load_all(tmp_path / "leaderboards" / "records", "search")
    assert (run.searched_as, run.trained_as) == ("none", "bireal")
    earliest = {"cp-nas": "xnor", "bnas": "bnaspcnn", "dcp-nas": "mcn", "random": "mcn"}
    committed = list(SearchRun.load_all(ROOT / "leaderboards" / "records", "search"))
    assert {run.method: run.searched_as for run in committed} == earliest
    assert {run.trained_as for run in committed} == {"mcn"}
    strange = {**run.genotype, "provenance": {"supernet": 3, "options": "x"}}
    assert run.model_copy(update={"genotype": strange}).searched_as == "none"


def test_searches_by_another_preset_of_the_same_name_are_another_line(onebit, stub, tmp_path):
    onebit("bench", "search", *MINI, "--methods", "random", "--seeds", "0,1")
    runs = list(SearchRun.load_all(tmp_path / "leaderboards" / "records", "search"))
    assert len(search_table.TABLE.lines(runs)) == 1
    runs[1] = runs[1].model_copy(update={"config_sha256": "1" * 64})
    assert len(search_table.TABLE.lines(runs)) == 2
