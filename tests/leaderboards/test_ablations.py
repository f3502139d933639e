"""Ablations: variants become ordinary rows, are told apart by what these say, and make a table."""

import io
import re
import sys
import types
from dataclasses import replace

import pandas as pd
import pytest

from onebit.backbones import Genotype, cells
from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.leaderboards import cli, reported
from onebit.leaderboards.ablations import ABLATIONS, NARROW, default_backbones, variant_of
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.verification import problems
from onebit.leaderboards.running.ablation_bench import AblationSweep, bench_ablation
from onebit.leaderboards.showing.ablation_table import AblationTable, printed
from tests.leaderboards.conftest import StubRunner

NAMES = sorted(ABLATIONS)


@pytest.fixture
def searches(monkeypatch):
    """Stands in for the search: every one finds another cell, at once."""
    jobs = []

    def search(job):
        jobs.append(job)
        genotype = cells.load_cell("dcp_nas_imagenet")
        normal = [list(node) for node in genotype.normal]
        # One edge by (seed, options): cells of different searches differ.
        number = job.seed + 3 * len(jobs)
        name = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
        normal[0] = [(name[number % 4], 0), (name[number // 4 % 4], 1)]
        provenance = dict(method=job.method, gpu_days=0.25)
        found = Genotype(normal, genotype.reduce, provenance)
        return types.SimpleNamespace(save=lambda path: found.save(path))

    module = types.ModuleType("onebit.classification.search.runner")
    module.search, module.check = search, lambda job: None
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return jobs


@pytest.fixture
def start(sweep, stub_runner, searches):
    """Builds the sweep of an ablation on mini-cifar10."""

    def build(name, **changes):
        fewer = dict(backbones=["resnet18_w8_reactnet"], seeds=(0,))
        rows = replace(sweep, **{**fewer, **changes})
        return AblationSweep(ABLATIONS[name], rows, "mini")

    return build


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_is_told_from_its_record_alone(start, stub_runner, name, monkeypatch):
    def with_network(job, *arguments, of=StubRunner.outcome):
        from onebit.backbones import describe

        start = "model.backbone."
        options = {k.removeprefix(start): v for k, v in job.cfg_options.items() if k.startswith(start)}
        outcome = of(stub_runner, job, *arguments)
        outcome.details["network"] = describe(job.backbone, **options)
        return outcome

    monkeypatch.setattr(stub_runner, "outcome", with_network)
    asked = start(name, backbones=NARROW)
    ran = list(bench_ablation(asked))
    assert [run_now for _, run_now in ran] == [True] * len(asked.variants)
    for variant, (record, _) in zip(asked.variants, ran, strict=True):
        found, _ = variant_of(asked.ablation, record)
        assert found is variant
        assert asked.label(record) == f"{variant.name}, {NARROW[0]} seed 0"
        assert problems(record, asked.rows.work_root) == []
        if variant.search:
            searched = record.details["search"]
            assert searched["seed"] == record.seed
            genotype = Genotype.from_dict(searched["genotype"])
            assert genotype.hash == record.genotype_hash
            option = record.cfg_options["model.backbone.cell"]
            assert re.fullmatch(r"mini-cifar10--dcp-nas--mini--opt\w+--seed\d\.json@sha256:\w{64}", option)
        else:
            assert "search" not in record.details
    names = [line.variant for line in AblationTable(asked.ablation).lines([record for record, _ in ran])]
    assert names == [variant.name for variant in asked.variants]


@pytest.mark.parametrize("name", ["ablation-space", "ablation-training"])
def test_a_finished_ablation_runs_and_searches_nothing(start, stub_runner, searches, name):
    asked = start(name)
    list(bench_ablation(asked))
    before = len(stub_runner.jobs), len(searches)
    assert before[1] == (4 if name == "ablation-space" else 0)
    for job in searches:  # the cells are gone, but nothing asks for them
        for path in job.work_dir.rglob("*.json"):
            path.unlink()
    assert not any(run_now for _, run_now in bench_ablation(asked))
    assert (len(stub_runner.jobs), len(searches)) == before


def test_a_cell_is_searched_once_and_its_training_goes_on(start, stub_runner, searches):
    asked = start("ablation-tangent")
    running = bench_ablation(asked)
    next(running)
    running.close()
    assert (len(stub_runner.jobs), len(searches)) == (1, 1)
    assert len(list(bench_ablation(asked))) == 4
    assert (len(stub_runner.jobs), len(searches)) == (4, 4)
    again = start("ablation-tangent", overwrite="always")
    assert all(run_now for _, run_now in bench_ablation(again))
    assert len(searches) == 4
    assert all(job.resume for job in searches)


def test_another_preset_is_another_line(start, searches):
    asked = start("ablation-space")
    list(bench_ablation(asked))
    list(bench_ablation(replace(asked, search_options={"schedule.epochs": 2})))
    records = list(Record.load_all(asked.rows.records, "cifar10"))
    lines = AblationTable(asked.ablation).lines(records)
    assert len(lines) == 8
    assert len({line.cfg_options for line in lines}) == 2
    assert [line.variant for line in lines[:2]] == ["normal search space"] * 2


def test_what_an_ablation_varies_cannot_be_changed(start):
    asked = start("ablation-training", cfg_options={"model.data_preprocessor.cutout": 4})
    with pytest.raises(InputError, match=r"ablation-training varies model\.data_preprocessor\.cutout"):
        list(bench_ablation(asked))
    asked = replace(start("ablation-space"), search_options={"space.skip": True})
    with pytest.raises(InputError, match=r"ablation-space varies space\.skip itself"):
        list(bench_ablation(asked))


def test_the_seeds_of_a_variant_are_one_line_with_search_cost_and_verdict(start, stub_runner):
    stub_runner.network = dict(genotype_hash="0" * 64)
    asked = start("ablation-tangent", seeds=(0, 1, 2))
    records = [record for record, _ in bench_ablation(asked)]
    lines = AblationTable(asked.ablation).lines(records)
    assert [line.seeds for line in lines] == [3] * 4
    assert {line.search_method for line in lines} == {"dcp-nas"}
    assert {line.search_cost_gpu_days for line in lines} == {0.25}
    assert {line.verdicts["top1"] for line in lines} == {"tie"}
    text = AblationTable(asked.ablation).render(lines, "text")
    assert "ablation-tangent: mini-cifar10" in text
    assert "tangent direction and reconstruction error" in text


def test_csv_has_the_columns_of_a_table_after_the_variant(start):
    asked = start("ablation-binarization")
    records = [record for record, _ in bench_ablation(asked)]
    table = AblationTable(asked.ablation)
    made = pd.read_csv(io.StringIO(table.csv(table.lines(records, reported=True))))
    assert list(made.columns[:5]) == ["ablation", "variant", "dataset", "data", "backbone"]
    ours = made[made["source"] == "measured"]
    assert list(ours["variant"]) == [variant.name for variant in asked.variants]
    assert list(ours["seeds"]) == [1, 1, 1]
    printed = made[made["source"] == "dcp-nas table 8"]
    assert len(printed) == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_number_stands_under_one_of_our_variants(name):
    ablation = ABLATIONS[name]
    for board, table in ablation.printed.items():
        lines = printed(ablation, board)
        ours = [variant.name for variant in ablation.variants_on(board)]
        assert {line.variant for line in lines} <= set(ours)
        numbers = reported.load("dcp-nas", table.table)
        if table.group:
            numbers = numbers[numbers["group"] == table.group]
        numbers = numbers[numbers["column"].isin(table.metrics)]
        assert len(numbers) == sum(len(line.values) for line in lines)
        missing = set(ours) - {line.variant for line in lines}
        # The fourth ImageNet row of Table 9 is not legible in our copy.
        fourth = {"no label smoothing or auxiliary loss"}
        assert missing == (fourth if (name, board) == ("ablation-training", "imagenet") else set())


def test_the_papers_numbers_stand_beside_ours(capsys, tmp_path):
    assert cli.main(["table", "ablation-training", "--records", str(tmp_path / "records")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"DCP-NAS-S\s+cutout and gradient clipping\s+6\.13", text)
    assert re.search(r"DCP-NAS-S\s+label smoothing and auxiliary loss\s+63\.0\s+84\.5", text)
    for form in ("markdown", "latex", "html", "csv"):
        assert (
            cli.main(
                ["table", "ablation-space", "--format", form, "--reported", "--records", str(tmp_path / "records")]
            )
            == 0
        )
        assert "without pooling" in capsys.readouterr().out


def test_without_own_rows_and_the_papers_there_is_nothing_to_show(capsys, tmp_path):
    assert cli.main(["table", "ablation-training", "--no-reported", "--records", str(tmp_path)]) == 2
    assert "`onebit bench ablation-training` makes them" in capsys.readouterr().err


def test_backbones_are_the_papers_on_its_data_and_narrow_ones_elsewhere():
    tangent = ABLATIONS["ablation-tangent"]
    assert default_backbones(tangent, get_dataset("imagenet")) == ("dcp_nas_l",)
    assert default_backbones(tangent, get_dataset("mini-imagenet")) == NARROW
    assert default_backbones(ABLATIONS["ablation-training"], get_dataset("cifar10")) == ("dcp_nas_s",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablation-tangents"], "unknown ablation .*did you mean ablation-tangent"),
        (["ablation-space", "--dataset", "mini-voc"], "is of classification, not of detection"),
        (["ablation-training", "--preset", "mini"], "--preset is for benches that search"),
        (["mini-cifar10", "--search-options", "a=1"], "--search-options is for benches that"),
        (["ablation-space", "--slurm"], "ablation-space searches in this process"),
        (["ablation-binarization", "--data", "nowhere"], "dataset imagenet not found"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
