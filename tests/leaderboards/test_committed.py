"""The records and tables in the repository are sound, and the tables follow from the records."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from onebit.leaderboards.recording import latency_record, search_record
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.verification import form_problems, problems, table_problems

LEADERBOARDS = Path(__file__).resolve().parents[2] / "leaderboards"
OTHERS = (latency_record.BOARD, search_record.BOARD)
RECORDS = sorted(p for p in (LEADERBOARDS / "records").rglob("*.json") if p.parent.name not in OTHERS)
SEARCHES = sorted((LEADERBOARDS / "records" / search_record.BOARD).glob("*.json"))
LATENCIES = sorted((LEADERBOARDS / "records" / latency_record.BOARD).glob("*.json"))
TABLES = sorted((LEADERBOARDS / "tables").glob("*.csv"))


def test_there_are_records_and_tables():
    assert RECORDS
    assert TABLES


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_record_is_sound_and_of_a_clean_checkout(path, tmp_path):
    record = Record.load(path)
    assert problems(record, tmp_path) == []
    assert record.code.commit
    assert record.code.dirty is False


@pytest.mark.parametrize("path", LATENCIES, ids=lambda p: p.stem)
def test_latency_is_sound_and_of_a_clean_checkout(path):
    run = latency_record.LatencyRun.load(path)
    assert form_problems(path) == []
    assert run.code.commit
    assert run.code.dirty is False


@pytest.mark.parametrize("path", SEARCHES, ids=lambda p: p.stem)
def test_search_is_sound_and_of_a_clean_checkout(path):
    run = search_record.SearchRun.load(path)
    assert form_problems(path) == []
    assert run.code.commit
    assert run.code.dirty is False


@pytest.mark.parametrize("path", TABLES, ids=lambda p: p.stem)
def test_table_follows_from_records(path):
    assert table_problems(path, LEADERBOARDS / "records") == []
    assert not pd.read_csv(path).empty


def test_the_1bit_detector_learned_its_images():
    """The claim of the README: AP50 of at least 0.25 on the images it was trained on."""
    record = Record.load(LEADERBOARDS / "records/coco/coco128--resnet18_w16_reactnet--small--seed0.json")
    assert record.metrics["AP50"] >= 0.25 > 0.01 > record.untrained["AP50"]
    assert record.weight_bits == record.activation_bits == 1


@pytest.mark.parametrize("before", ["", "\n", "\n| an old table |\n\n"])
def test_a_marker_is_filled_whatever_stands_there(before, monkeypatch):
    """An empty one too: it was left as it was, and `--check` found nothing wrong with it."""
    refresh = runpy.run_path(str(LEADERBOARDS.parent / "docs/refresh.py"))
    monkeypatch.setitem(refresh["page"].__globals__, "output", lambda command: f"[{command}]\n")
    text = f"<!-- onebit table voc -->\n{before}<!-- end -->"
    assert refresh["page"](text) == "<!-- onebit table voc -->\n\n[onebit table voc]\n\n<!-- end -->"


def test_readme_shows_what_its_commands_print():
    """And a picture that one of them drew; `python docs/refresh.py` brings all of it up to date."""
    done = subprocess.run(
        [sys.executable, "docs/refresh.py", "--check"], cwd=LEADERBOARDS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    readme = (LEADERBOARDS.parent / "README.md").read_text()
    assert "<!-- onebit table " in readme
    (picture,) = re.findall(r"<!-- onebit plot .* --out (\S+) -->", readme)
    assert f"]({picture})" in readme
    drawn = (LEADERBOARDS.parent / picture).read_text()
    for record in Record.load_all(LEADERBOARDS / "records", "cifar10", "cifar10-jpeg"):
        if record.recipe == "small":
            assert record.status == "failed" or record.backbone in drawn
