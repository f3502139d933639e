"""`onebit cells-table`, and `onebit verify` of its tables."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from onebit.backbones import Genotype
from onebit.classification.cells_table import table
from onebit.commons import mini
from onebit.leaderboards import cli
from tests.classification.test_cells_table import line


def run(capsys, *arguments):
    code = cli.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--workers", "2"], "--workers is an option of onebit cells-table train"),
        (["train", "--out", "x.csv"], "--out is an option of onebit cells-table merge"),
        (["train", "x.csv"], "takes no 'x.csv'"),
        (["train", "--dataset", "cifar100"], "unknown dataset of a table of cells"),
        (["merge", "x.csv"], "expected tables, and --out FILE"),
        (["show", "x.csv"], "no table of cells at x.csv"),
        (["show", "x.csv", "y.csv"], "takes one table"),
        (["train", "--budget", "-1"], "--budget"),
    ],
)
def test_wrong_use_is_one_line(capsys, arguments, message):
    try:
        code, out, err = run(capsys, "cells-table", *arguments)
    except SystemExit as ended:  # refused by the parser
        code, (out, err) = ended.code, capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_merge_joins_tables_of_one_setting(capsys, tmp_path):
    one = table.write(tmp_path / "one.csv", [line(), line(seed=1)], 2)
    two = table.write(tmp_path / "two.csv", [line(), line(cell=1)], 2)
    assert run(capsys, "cells-table", "merge", one, two, "--out", tmp_path / "both.csv")[0] == 0
    assert len(table.read(tmp_path / "both.csv")) == 3
    other = table.write(tmp_path / "other.csv", [line(cell=2, config="f" * 12)], 2)
    code, _, err = run(capsys, "cells-table", "merge", one, other, "--out", tmp_path / "none.csv")
    assert (code, (tmp_path / "none.csv").exists()) == (2, False)
    assert "of another setting" in err


def test_show_parts_cells_from_seeds(capsys, tmp_path):
    lines = [
        line(cell=cell, seed=seed, valid_2=0.3 + 0.1 * cell + 0.01 * seed, valid_1=0.1 + 0.01 * cell)
        for cell in range(4)
        for seed in range(2)
    ]
    path = table.write(tmp_path / "t.csv", lines, 2)
    code, out, _ = run(capsys, "cells-table", "show", path)
    assert code == 0
    assert "8 trainings of 4 cells" in out
    # Variances in squared points: of 30, 40, 50, 60 less that of two seeds a point apart.
    assert "sd between cells 12.89, between seeds 0.71 points" in out
    assert "Kendall tau of epoch 1 and the last: 1.000" in out


def test_verify_finds_what_was_changed(capsys, tmp_path):
    from onebit.classification.cells_table.training import cost_columns, get_setting

    setting = get_setting("mini-cifar10")
    lines = [line(config=setting.hash, **cost_columns(Genotype.random(0), setting))]
    path = table.write(tmp_path / "t.csv", lines, 2)
    assert run(capsys, "verify", path)[0] == 0
    for change, message in (
        (dict(genotype=table.encode(Genotype.random(1))), "genotype_hash is not that of the genotype"),
        (dict(params=7), "params is 7, but the cell has"),
        (dict(config="f" * 12), "of none of the settings of this version"),
    ):
        table.write(path, [{**lines[0], **change}], 2)
        code, out, _ = run(capsys, "verify", path)
        assert code == 1
        assert message in out


def test_the_table_that_ships_is_sound_and_of_a_clean_checkout():
    from onebit.leaderboards.recording.cells_check import problems

    assert problems(table.FILE) == []
    assert all(line["commit"] for line in table.read(table.FILE))


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_lines(capsys, tmp_path, monkeypatch):
    list(mini.write(tmp_path, ["mini-cifar10"]))
    monkeypatch.setenv("ONEBIT_DATA", str(tmp_path))

    def command(work_dir, *more):
        words = ["cells-table", "train", "--dataset", "mini-cifar10", "--work-dir", str(work_dir), *more]
        return [sys.executable, "-m", "onebit", *words]

    def lines(work_dir):
        (path,) = work_dir.glob("*.csv")
        with open(path) as stream:
            found = list(csv.DictReader(stream))
        return {(each["name"], each["seed"]): {**each, "seconds": ""} for each in found}

    def start(work_dir, *more):
        return subprocess.Popen(command(work_dir, *more), stdout=subprocess.PIPE, text=True, env=os.environ)

    whole = start(tmp_path / "whole")
    for _ in range(4):
        whole.stdout.readline()
    os.kill(whole.pid, signal.SIGKILL)
    whole.wait()
    for _ in range(2):  # two lines, then killed in the middle of the third
        part = start(tmp_path / "part")
        part.stdout.readline(), part.stdout.readline()
        time.sleep(0.05)
        os.kill(part.pid, signal.SIGKILL)
        part.wait()
    first, second = lines(tmp_path / "whole"), lines(tmp_path / "part")
    assert len(first) >= 4
    assert len(second) >= 4
    assert all(second[key] == first[key] for key in list(first)[:4])
    (path,) = (tmp_path / "part").glob("*.csv")
    code, out, _ = run(capsys, "verify", path, "--full")
    assert code == 0, out
    code, out, _ = run(
        capsys, "cells-table", "train", "--dataset", "mini-cifar10", "--work-dir", path.parent, "--budget", 0
    )
    assert (code, f"{len(second)} of" in out) == (0, True)


@pytest.mark.slow
def test_a_line_is_trained_again_to_the_last_digit(capsys, tmp_path, monkeypatch):
    from onebit.classification.cells_table.plan import Planned
    from onebit.classification.cells_table.training import get_setting, load_images
    from onebit.leaderboards.running.cells_table import trained

    list(mini.write(tmp_path, ["mini-cifar10"]))
    setting = get_setting("mini-cifar10")
    own = trained(Planned("random", "random_3", Genotype.random(3), 1), setting, load_images(setting, tmp_path), "")
    path = table.write(tmp_path / "t.csv", [own], setting.epochs)
    monkeypatch.setattr(table, "FILE", path)
    name = f"{own['genotype_hash'][:12]}--seed1"
    code, out, _ = run(capsys, "verify", "--data", tmp_path, "--records", tmp_path, "--retrain", name)
    assert code == 0, out
    assert "to the last digit" in out
    table.write(path, [{**own, "test": own["test"] + 0.2}], setting.epochs)
    code, out, _ = run(capsys, "verify", "--data", tmp_path, "--records", tmp_path, "--retrain", name)
    assert code == 1
    assert "trained again: test is" in out
