"""`onebit latency`, its records, and the table made from them."""

import importlib.util
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.recording.latency_record import Entry, LatencyRun
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.running import latency
from onebit.leaderboards.showing import latency_table

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = "resnet18_w16_reactnet"


def onebit(*arguments) -> int:
    try:
        return cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code


def entry(**changes) -> Entry:
    content = dict(
        backbone="resnet18",
        engine="torch",
        engine_version="1",
        precision="float32",
        weight_bits=32,
        activation_bits=32,
        memory_bits_strict=4_000_000,
        disk_bytes=500_000,
        resident_bytes=1_000_000,
        milliseconds=[4.0, 5.0, 6.0],
    )
    return Entry(**{**content, **changes})


def run_of(*entries: Entry, **changes) -> LatencyRun:
    content = dict(
        processor="A Processor <8>",
        flags=["avx2", "fma"],
        cores=2,
        load_before=0.0,
        threads=1,
        input=(224, 224),
        classes=1000,
        entries=list(entries),
        code={},
        versions={"torch": "1"},
        created="2026-01-01T00:00:00+00:00",
    )
    return LatencyRun(**{**content, **changes})


@pytest.fixture
def run() -> LatencyRun:
    fast = entry(engine="openvino", precision="bfloat16", milliseconds=[2.0, 2.5, 2.25])
    ours = entry(
        backbone=NAME,
        engine="packed",
        weight_bits=1,
        activation_bits=1,
        disk_bytes=20_000,
        memory_bits_strict=155_000,
        milliseconds=[1.0, 1.5, 0.5],
        resident_bytes=None,
    )
    return run_of(entry(), fast, ours)


def test_round_trip(run, tmp_path):
    path = run.save(tmp_path)
    assert path.parent == tmp_path / "latency"
    assert re.fullmatch(r"a-processor-8-[0-9a-f]{6}--224x224-1000-classes--threads1\.json", path.name)
    assert LatencyRun.load(path) == run
    assert list(LatencyRun.load_all(tmp_path, "latency")) == [run]
    content = json.loads(path.read_text())
    assert content.pop("digest") == digest(content)


def test_machine_threads_and_input_have_files_of_their_own(run):
    others = [
        dict(processor="Another"),
        dict(flags=["avx2"]),
        dict(threads=2),
        dict(input=(32, 32)),
        dict(classes=None),
        dict(classes=10),
    ]
    names = {run.file_name(), *(run.model_copy(update=change).file_name() for change in others)}
    assert len(names) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["entries"][2]["milliseconds"].__setitem__(0, 0.1), "digest"),
        (lambda c: c.update(load_before=0.5), "digest"),
    ],
)
def test_tampering_is_found(run, tmp_path, change, message, capsys):
    path = run.save(tmp_path / "records")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    with pytest.raises(InputError, match=message):
        LatencyRun.load(path)
    assert onebit("verify", "--records", tmp_path / "records") == 1
    assert f"BAD  {path}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["entries"][0].update(milliseconds=[1.0]), "entries.0.milliseconds"),
        (lambda c: c["entries"][0].update(milliseconds=[1.0, -1.0]), "milliseconds"),
        (lambda c: c.update(entries=[]), "entries"),
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.update(board="voc"), "board"),
        (lambda c: c.update(threads=2), "belongs at latency/"),
    ],
)
def test_what_is_no_run_is_refused(run, tmp_path, change, message):
    path = run.save(tmp_path)
    content = json.loads(path.read_text())
    del content["digest"]
    change(content)
    content["digest"] = digest(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        LatencyRun.load(path)


def test_verify_and_a_wrong_path(run, tmp_path, capsys):
    path = run.save(tmp_path / "records")
    assert onebit("verify", "--records", tmp_path / "records") == 0
    said = capsys.readouterr().out
    assert f"ok   {path}" in said
    assert "cannot be computed again" in said
    path.rename(path.with_name("mine.json"))
    assert onebit("verify", "--records", tmp_path / "records") == 1
    assert "belongs at latency/" in capsys.readouterr().out


def test_a_latency_is_no_row_to_submit(run, tmp_path, capsys):
    run.save(tmp_path / "records")
    assert onebit("submit-check", tmp_path / "records") == 2
    assert "no records in" in capsys.readouterr().err


def test_ratios_are_over_the_fastest_reference(run):
    frame = latency_table.TABLE.frame(latency_table.TABLE.lines([run]))
    ours = frame.iloc[2]
    assert run.fastest_reference().engine == "openvino"
    assert ours["latency_ms"] == 1.0
    assert ours["acceleration"] == pytest.approx(2.25)
    assert ours["memory_saving"] == pytest.approx(25)
    assert ours["memory_mbit_file"] == pytest.approx(0.16)
    assert pd.isna(ours["resident_mbyte"])
    assert frame.iloc[0]["acceleration"] == pytest.approx(0.45)


def test_without_a_reference_there_is_no_ratio():
    ours = entry(backbone=NAME, engine="packed", weight_bits=1, activation_bits=1)
    row = latency_table.TABLE.frame(latency_table.TABLE.lines([run_of(ours)])).iloc[0]
    assert pd.isna(row["acceleration"])
    assert pd.isna(row["memory_saving"])


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html", "csv"])
def test_table(run, tmp_path, capsys, form):
    run.save(tmp_path / "records")
    assert onebit("table", "latency", "--format", form, "--records", tmp_path / "records") == 0
    said = capsys.readouterr().out
    assert NAME.replace("_", r"\_" if form == "latex" else "_") in said
    if form == "csv":
        frame = pd.read_csv(io.StringIO(said))
        assert tuple(frame.columns) == latency_table.TABLE.columns
        assert len(frame) == 3
        assert set(frame["source"]) == {"measured"}
    else:
        assert "2.25x" in said
        assert "bf16" in said
        assert "DCP-NAS Table 15" in said
        assert "3.8" in said  # ReActNet's printed acceleration
        assert "<8>" not in said or form == "text" or form == "markdown"


def test_printed_lines_alone(tmp_path, capsys):
    assert onebit("table", "latency", "--reported", "--records", tmp_path / "records") == 0
    assert "51.8" in capsys.readouterr().out
    assert onebit("table", "latency", "--records", tmp_path / "records") == 0
    assert onebit("table", "latency", "--no-reported", "--records", tmp_path / "records") == 2
    assert "`onebit latency BACKBONE...` makes them" in capsys.readouterr().err


def test_columns_are_documented():
    text = (DOCS / "tables.md").read_text()
    section = text.split("## The latency table\n")[1]
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert tuple(named) == latency_table.TABLE.columns


@pytest.mark.slow
def test_a_tiny_run(tmp_path, capsys):
    arguments = [NAME, "--input", 32, 32, "--classes", 10, "--repeat", 2, "--engines", "torch"]
    assert onebit("latency", *arguments, "--out", tmp_path) == 0
    said = capsys.readouterr().out
    (path,) = (tmp_path / "records" / "latency").iterdir()
    assert f"record: {path}\n" in said
    run = LatencyRun.load(path)
    assert (run.threads, run.input, run.classes) == (1, (32, 32), 10)
    assert [(e.backbone, e.engine) for e in run.entries] == [("resnet18", "torch"), (NAME, "packed")]
    reference, ours = run.entries
    assert all(len(e.milliseconds) == 2 for e in run.entries)
    assert (ours.weight_bits, ours.activation_bits) == (1, 1)
    assert ours.disk_bytes * 8 == pytest.approx(ours.memory_bits_strict, rel=0.1)
    assert reference.disk_bytes * 8 == pytest.approx(reference.memory_bits_strict, rel=0.05)
    if Path("/proc/self/statm").exists():
        assert reference.resident_bytes > 0.5 * reference.disk_bytes
    assert f"{run.entries[1].median:.4g}" in said


@pytest.mark.parametrize("resident", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_features_and_engines(resident, monkeypatch, tmp_path):
    """What a detector uses, and every engine there is, on a tiny image."""
    for engine in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(engine)
    if not resident:  # else a process for each
        monkeypatch.setattr(latency, "_STATM", tmp_path / "none")
    measured = latency.compete([NAME], size=(32, 32), classes=None, repeat=2)
    engines = {c.engine for c in measured}
    assert engines == {"torch", "onnxruntime", "openvino", "packed"}
    assert all(min(c.milliseconds) > 0 for c in measured)
    assert all((c.resident_bytes is not None) == resident for c in measured)
    maps = measured[-1].infer()
    assert [m.shape[-1] for m in maps] == [8, 4, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18"], "resnet18 is not 1-bit"),
        (["resnet18_w16_dorefa2"], "is not 1-bit"),
        (["resnet81"], "unknown backbone"),
        ([NAME, "--repeat", "0"], "--repeat: 0: expected a whole number from 2 up"),
        ([NAME, "--threads", "0"], "--threads: 0: expected a whole number from 1 up"),
        ([NAME, "--input", "0", "3"], "--input: 0: expected a whole number from 1 up"),
        ([NAME, "--classes", "-1"], "--classes: -1: expected a whole number from 1 up"),
        ([NAME, "--engines", "tensorrt"], "unknown engine 'tensorrt'"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else "",
)
def test_wrong_input_gets_one_line(arguments, message, tmp_path, capsys):
    assert onebit("latency", *arguments, "--out", tmp_path) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_engine(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else find(name, *a))
    assert "openvino" not in latency.available_engines()
    assert onebit("latency", NAME, "--engines", "openvino", "--out", tmp_path) == 2
    assert "openvino is not installed: pip install openvino" in capsys.readouterr().err


def test_the_steps_of_a_plan(capsys):
    arguments = ["latency", "resnet18_w16_bireal", "--plan", "--input", "64", "64", "--classes", "10", "--repeat", "2"]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["Step", "Layer", "Kernel", "Output", "ms", "GMAC/s", "Of", "the", "bound"]
    steps = [line.split() for line in lines[2:] if line[:1].isdigit()]
    assert [step[0] for step in steps] == [str(i) for i in range(1, len(steps) + 1)]
    assert steps[0][1:4] == ["input", "load", "64x64x3"]
    assert steps[-1][1:4] == ["classifier", "conv_floats", "1x1x10"]
    assert sum(step[2] == "conv_bits" for step in steps) == 16
    assert all(float(step[4]) > 0 for step in steps)
    (shares,) = (line for line in lines if line.strip().startswith("by kernel: "))
    assert 98 <= sum(map(int, re.findall(r"(\d+) %", shares))) <= 102
