"""The command answers fast, in one line when something is wrong, with the right exit code."""

import argparse
import inspect
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import onebit
from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.commands import import_
from onebit.leaderboards.commands import options as shared_options
from onebit.leaderboards.commands.options import cfg_options
from onebit.leaderboards.running.sweep import bench

VERBS = [verb.__name__.rsplit(".", 1)[1].rstrip("_").replace("_", "-") for verb in cli.VERBS] + ["test"]


@pytest.mark.parametrize("arguments", [[], *[[v] for v in VERBS]], ids=lambda a: " ".join(a) or "top")
def test_help_has_examples_and_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from onebit.leaderboards.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'rich', 'mmengine', 'mmdet', 'torchreid'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


def run(capsys, *arguments):
    try:
        code = cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "invalid choice"),
        (["bench"], "required"),
        (["bench", "vocc"], "did you mean voc"),
        (["bench", "voc", "--dataset", "coco128"], "belongs to board coco"),
        (["bench", "voc", "--seeds", "one"], "whole number"),
        (["train", "reid", "--dataset", "d", "--backbone", "b", "--seed", "-1"], "from 0 to 4294967295"),
        (["bench", "voc", "--seeds", "0, 1"], "' 1': expected a whole number from 0 to"),
        (["bench", "voc", "--workers", "1_0"], "--workers: '1_0': expected a whole number from 1 up"),
        (["bench", "voc", "--seeds", "١"], "'١': expected a whole number from 0 to"),
        (["bench", "voc", "--data", "/nonexistent"], "expected /nonexistent/"),
        (["bench", "dukemtmcreid", "--data", "/nonexistent"], "withdrawn by its authors"),
        (["bench", "voc", "--cfg-options", "x"], "KEY=VALUE"),
        (["train", "reid", "--dataset", "mini-voc", "--backbone", "resnet18"], "for detection, not for reid"),
        (
            ["test", "reid", "--dataset", "market1501", "--checkpoint", "none.pth", "--data", "/nonexistent"],
            "not found",
        ),
        (["cost", "resnet81"], "resnet18"),
        (["cost", "resnet18", "--input", "0", "5"], "from 1 up"),
        (["backbones", "nothing*"], "no backbone matches"),
        (["table", "voc", "--no-reported", "--records", "/nonexistent"], "no records"),
        (["verify", "/nonexistent.json"], "no such file"),
        (["data", "mini", "x", "--only", "mini-vocc"], "mini-voc"),
    ],
    ids=lambda a: " ".join(a)[:40] if isinstance(a, list) else "",
)
def test_bad_input_gets_one_line_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("onebit: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "nothing half-written is left behind"


def test_bench_on_a_missing_dataset_names_those_that_are_there(capsys, sweep):
    code, _, err = run(capsys, "bench", "cifar10", "--data", sweep.data_root)
    assert code == 2
    assert "--dataset mini-cifar10" in err


def test_bench_table_and_verify(capsys, sweep, stub_runner):
    common = ["--out", sweep.out]
    code, out, _ = run(
        capsys,
        "bench",
        "mini-cifar10",
        "--backbones",
        "resnet18_w8,resnet18_w8_reactnet",
        "--seeds",
        "0,1",
        "--data",
        sweep.data_root,
        "--work-dir",
        sweep.work_root,
        *common,
    )
    assert code == 0
    assert "[4/4] resnet18_w8_reactnet seed 1" in out
    csv = sweep.out / "tables" / "mini-cifar10.csv"
    assert str(csv) in out
    code, out, _ = run(capsys, "table", "mini-cifar10", "--format", "csv", "--records", sweep.records)
    assert out == csv.read_text()
    code, out, _ = run(capsys, "verify", "--work-dir", sweep.work_root, "--records", sweep.records)
    assert code == 0
    assert "4 of 4" in out


def test_verify_finds_a_changed_record_and_a_changed_checkpoint(capsys, sweep, stub_runner):
    list(bench(sweep))
    (sweep.work_root / sweep.row_name("resnet18_w8", 0) / "epoch_1.pth").write_bytes(b"other")
    changed = sweep.record_path("resnet18_w8", 1)
    changed.write_text(changed.read_text().replace("0.51", "0.91"))
    code, out, _ = run(capsys, "verify", "--work-dir", sweep.work_root, "--records", sweep.records)
    assert code == 1
    assert "not the checkpoint that was scored" in out
    assert "was changed after it was written" in out
    assert "2 of 4" in out


def test_interrupt_and_unexpected_error_are_one_line(capsys, sweep, stub_runner, monkeypatch):
    arguments = [
        "bench",
        "mini-cifar10",
        "--backbones",
        "resnet18_w8",
        "--data",
        sweep.data_root,
        "--out",
        sweep.out,
        "--work-dir",
        sweep.work_root,
    ]
    stub_runner.failure["resnet18_w8"] = KeyboardInterrupt()
    code, _, err = run(capsys, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert "interrupted" in err
    stub_runner.failure.clear()

    def broken(*_):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("onebit.leaderboards.showing.table.BoardTable.write", broken)
    code, _, err = run(capsys, *arguments)
    assert (code, err.count("\n")) == (1, 1)
    assert "ZeroDivisionError: two lines" in err


def test_train_refuses_to_overwrite_an_earlier_run(capsys, sweep):
    (sweep.work_root).mkdir()
    (sweep.work_root / "epoch_3.pth").write_bytes(b"hours of work")
    code, _, err = run(
        capsys,
        "train",
        "classification",
        "--dataset",
        "mini-cifar10",
        "--backbone",
        "resnet18_w8",
        "--data",
        sweep.data_root,
        "--work-dir",
        sweep.work_root,
    )
    assert code == 2
    assert "--resume" in err
    assert (sweep.work_root / "epoch_3.pth").exists()


def test_sigterm_ends_a_run_like_ctrl_c_and_only_while_it_runs(capsys, sweep, stub_runner):
    before = signal.getsignal(signal.SIGTERM)

    def train(job):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    stub_runner.train = train
    code, _, err = run(
        capsys,
        "bench",
        "mini-cifar10",
        "--backbones",
        "resnet18_w8",
        "--data",
        sweep.data_root,
        "--out",
        sweep.out,
        "--work-dir",
        sweep.work_root,
    )
    assert code == 1
    assert "interrupted" in err
    assert signal.getsignal(signal.SIGTERM) == before


def test_every_verb_has_a_summary_of_one_line():
    """62 characters are what a terminal of 80 columns leaves beside the verbs."""
    (verbs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    summaries = {action.dest: action.help for action in verbs._choices_actions}
    assert summaries.keys() == verbs.choices.keys()
    assert {verb: text for verb, text in summaries.items() if len(text) > 62} == {}


def test_a_name_like_none_is_told_what_there_is(capsys):
    assert cli.main(["table", "zzz"]) == 2
    assert "unknown dataset 'zzz'; there are voc, coco," in capsys.readouterr().err
    assert cli.main(["table", "mini-vox"]) == 2
    assert "did you mean mini-voc" in capsys.readouterr().err


def test_values_of_options_are_numbers_only_in_plain_digits():
    texts = ["a=1", "b=-2.5e-3", "c=true", "d=None", "e=(0, 1)", "f=inf", "g=run_1_0"]
    assert cfg_options(texts) == dict(a=1, b=-0.0025, c=True, d=None, e=(0, 1), f=float("inf"), g="run_1_0")
    for text in ("1_0", "١", "(0, 1_0)"):
        with pytest.raises(InputError, match="expected a number in plain digits"):
            cfg_options([f"a={text}"])


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"onebit-bench {onebit.__version__}\n"


def test_every_option_of_a_command_is_read():
    """By the module of its command, or by what commands share: one that nothing reads would only look chosen."""
    (verbs,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    shared = inspect.getsource(shared_options) + inspect.getsource(import_)  # `test` records what `import` does
    found = {}
    for verb, parser in verbs.choices.items():
        source = inspect.getsource(inspect.getmodule(parser.get_default("run"))) + shared
        for action in parser._actions:
            if action.dest != "help":
                found[verb, action.dest] = bool(re.search(rf'\bargs\.{action.dest}\b|"{action.dest}"', source))
    assert len(found) > 200
    assert [option for option, read in found.items() if not read] == []
