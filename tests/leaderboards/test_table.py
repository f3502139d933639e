"""Tables follow from records: means over seeds, percent for people, fractions for programs."""

import io
import os
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from mmengine.config import Config

from onebit.commons.errors import WorkError
from onebit.leaderboards import cli, reported
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.sweep import bench
from onebit.leaderboards.showing.layout import COLUMNS, sheet
from onebit.leaderboards.showing.line import Line
from onebit.leaderboards.showing.lines import further, judge, measured, printed
from onebit.leaderboards.showing.table import BoardTable

BOARD = ALL["cifar10"]
DOCS = Path(__file__).resolve().parents[2] / "docs"
HOSTILE = "<script>alert(1)</script>|&_$%#{}~^\\\"'`*\u2028é"


@pytest.fixture
def lines(sweep, stub_runner):
    stub_runner.failure["resnet18_w8_reactnet"] = WorkError("no")
    list(bench(sweep))
    return BoardTable(BOARD).lines(Record.load_all(sweep.records, "cifar10"))


def records_of(sweep, values):
    """The records of a stub sweep, changed: {backbone: {seed: top1}}."""
    base = next(Record.load_all(sweep.records, "cifar10"))
    return [
        base.model_copy(
            update=dict(
                backbone=backbone, seed=seed, weight_bits=1, activation_bits=1, metrics={"top1": value, "top5": 0.9}
            )
        )
        for backbone, seeds in values.items()
        for seed, value in seeds.items()
    ]


def test_mean_deviation_and_failures(lines):
    frame = BoardTable(BOARD).frame(lines)
    real, onebit = frame.iloc[0], frame.iloc[1]
    assert real["backbone"] == "resnet18_w8"
    assert real["top1"] == pytest.approx(0.505)
    assert real["top1_std"] == pytest.approx(0.0070710678)
    assert (real["seeds"], real["failed"]) == (2, 0)
    assert (onebit["seeds"], onebit["failed"]) == (0, 2)
    assert pd.isna(onebit["top1"])
    assert "failed at seed 0, 1: no" in onebit["notes"]


@pytest.mark.parametrize("board", ALL.values(), ids=lambda b: b.name)
def test_csv_columns_are_the_documented_ones(board):
    first_cells = re.findall(r"^\| ([^|]*) \|", _section("Columns of the CSV"), re.MULTILINE)
    documented = set(re.findall(r"`([a-z_0-9]+)`", " ".join(first_cells)))
    for metric in board.metrics:
        assert f"`{metric}`" in _section("Metrics by board")
    plain = [c for c in BoardTable(board).columns if not any(c.startswith(m) for m in board.metrics)]
    assert set(plain) <= documented
    of_detection = set() if board.task == "detection" else {"detector"}
    assert documented - set(plain) == {"_std", "_verdict"} | of_detection
    frame = BoardTable(board).frame(BoardTable(board).lines([], reported=True))
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    assert list(read.columns) == BoardTable(board).columns
    assert len(read) == len(frame)
    assert (len(frame) > 0) == (board.printed is not None)


def _section(title):
    text = (DOCS / "tables.md").read_text()
    return text.split(f"## {title}")[1].split("\n## ")[0]


def test_csv_has_full_precision(lines):
    read = pd.read_csv(io.StringIO(BoardTable(BOARD).render(lines, "csv")))
    assert read["top1"][0] == lines[0].summary("top1").mean
    assert read["memory_mbit_strict"][0] == pytest.approx(0.0041)
    assert read["memory_mbit_paper"][0] == pytest.approx(0.001)
    assert list(read["source"]) == ["measured", "measured"]
    assert read["seeds"].dtype.kind == "i"


def test_people_see_the_paper_s_columns_percent_and_deviation(lines):
    text = BoardTable(BOARD).render(lines, "text")
    assert "49.50 ± 0.71" in text, "Table 10 prints the error"
    assert "0 (2 failed)" in text
    assert "1/1" in text
    assert "32/32" in text
    order = [
        text.index(h)
        for h in ("Err. %", "Params M", "(strict)", "(dcp-nas)", "W/A", "Search GPU days", "Search method", "Source")
    ]
    assert order == sorted(order)


def test_every_layout_names_columns_that_there_are():
    for board in ALL.values():
        assert set(board.layout) <= {*COLUMNS, *board.metrics}
        for metric in set(board.metrics) - {"top1", "top5"}:
            assert metric in board.layout
        assert {"memory_strict", "memory_paper", "ops_strict", "ops_paper", "source"} <= {*board.layout}


@pytest.mark.parametrize("form", ["text", "html", "markdown", "latex"])
def test_the_best_is_marked_only_beyond_noise(sweep, stub_runner, form):
    list(bench(sweep))
    near = {0: 0.801, 1: 0.802, 2: 0.803}
    clear = records_of(sweep, {"a": {0: 0.9, 1: 0.904, 2: 0.902}, "b": near})
    mark = {"text": "*9.80", "html": "<strong>9.80", "markdown": "**9.80", "latex": r"\textbf{9.80"}
    any_best = {"text": r"\*\d", "html": "<strong>", "markdown": r"\*\*\d", "latex": r"\\textbf"}[form]
    assert mark[form] in BoardTable(BOARD).render(measured(BOARD, clear), form)
    tied = records_of(sweep, {"a": {0: 0.8, 1: 0.804, 2: 0.802}, "b": near})
    shown = BoardTable(BOARD).render(measured(BOARD, tied), form)
    assert shown.count("approx" if form == "latex" else "≈") >= 3, "two lines and the legend"
    assert not re.search(any_best, shown)
    few = records_of(sweep, {"a": {0: 0.9, 1: 0.9}, "b": {0: 0.1, 1: 0.1}})
    shown = BoardTable(BOARD).render(measured(BOARD, few), form)
    assert "fewer than 3 seeds" in shown
    assert not re.search(f"{any_best}|≈|approx", shown)


def test_real_valued_and_1bit_lines_do_not_compete(sweep, stub_runner):
    list(bench(sweep))
    records = records_of(sweep, {"a": {0: 0.9, 1: 0.904, 2: 0.902}, "b": {0: 0.1, 1: 0.1, 2: 0.11}})
    real = [r.model_copy(update=dict(backbone="c", weight_bits=32, activation_bits=32)) for r in records[:3]]
    by_name = {line.backbone: line for line in measured(BOARD, records + real)}
    assert by_name["a"].verdicts["top1"] == "best"
    assert by_name["c"].verdicts["top1"] == "alone"


def test_imported_rows_are_lines_of_their_own_and_say_so(sweep, stub_runner):
    list(bench(sweep))
    ours = records_of(sweep, {"a": {0: 0.5}})
    theirs = [r.model_copy(update=dict(origin="imported-checkpoint")) for r in ours]
    lines = measured(BOARD, ours + theirs)
    assert sorted(line.source for line in lines) == ["imported checkpoint", "measured"]
    note = "trained elsewhere, scored here from its checkpoint"
    assert [note in line.notes for line in lines] == [line.source != "measured" for line in lines]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({}, "mini-cifar10 instead of cifar10 (drawn by a program): not comparable with the paper"),
        ({"dataset": "cifar10-jpeg"}, "cifar10-jpeg instead of cifar10 (development data)"),
        ({}, "trained for 1 epoch, the paper for 600"),
        ({"dataset": "coco128"}, "scored on the images it was trained on"),
        ({"cfg_options": {"a.b": 2}}, "config changed: a.b=2"),
        ({"cost": {"strict": {"input_shape": [3, 8, 8]}}}, "cost for an input of 3×8×8, the paper's is 3×32×32"),
    ],
)
def test_footnotes_of_protocol_differences(sweep, stub_runner, change, note):
    list(bench(sweep))
    record = next(Record.load_all(sweep.records, "cifar10")).model_copy(update=change)
    (line,) = measured(BOARD, [record])
    assert any(found.startswith(note) for found in line.notes), line.notes
    number = next(i for i, found in enumerate(sheet(BOARD, [line]).notes, 1) if found.startswith(note))
    for form in ("text", "markdown", "latex", "html"):
        shown = BoardTable(BOARD).render([line], form)
        assert str(number) in shown.split("resnet18", 1)[1].split("ured", 1)[0]
    assert note in BoardTable(BOARD).render([line], "csv")


def test_the_papers_own_protocol_needs_no_footnote(sweep, stub_runner):
    list(bench(sweep))
    cost = {"strict": {"input_shape": [3, 32, 32]}}
    own = next(Record.load_all(sweep.records, "cifar10")).model_copy(
        update=dict(dataset="cifar10", epochs=600, cost=cost)
    )
    assert measured(BOARD, [own])[0].notes == []


def test_seeds_of_different_protocols_are_said_to_differ(sweep, stub_runner):
    list(bench(sweep))
    records = records_of(sweep, {"a": {0: 0.5, 1: 0.6}})
    records[1] = records[1].model_copy(update=dict(data_checksum="content:11", epochs=2))
    assert "its seeds differ in data, epochs" in measured(BOARD, records)[0].notes


PRINTED = [board for board in ALL.values() if board.printed]


def test_a_board_without_a_printed_table_has_no_reported_lines():
    assert printed(ALL["msmt17"]) == []
    assert {name for name, board in ALL.items() if not printed(board)} == {
        "msmt17",
        "fashion-mnist",
        "folder",
        "own",
        "reid",
    }
    assert len(PRINTED) == len(ALL) - 5


@pytest.mark.parametrize("board", PRINTED, ids=lambda b: b.name)
def test_reported_lines_are_the_printed_numbers(board):
    lines = printed(board)
    table = board.printed
    numbers = reported.load(table.paper, table.table)
    if table.group:
        numbers = numbers[numbers["group"] == table.group]
    expected = numbers[numbers["column"].isin(table.metrics)]
    values = sorted(v for line in lines for m in line.values.values() for v in m.values())
    as_fraction = [(1 - n.value / 100) if n.column == "test_error" else n.value / 100 for n in expected.itertuples()]
    assert values == pytest.approx(sorted(as_fraction))
    assert all(line.reported for line in lines)
    stated = "weight_bits" in set(reported.load(table.paper, table.table)["column"])
    assert all((line.weight_bits and line.activation_bits) for line in lines) == stated
    assert {line.source for line in lines} == {f"{table.paper} table {table.table}"}


def test_reported_units():
    by_name = {line.backbone: line for line in printed(ALL["imagenet"])}
    small = by_name["DCP-NAS-S"]
    assert (small.memory_bits, small.ops) == ({"as printed": 4.2e6}, {"as printed": 100e6})
    assert small.search_cost_gpu_days == 2.9
    voc = printed(ALL["voc"])[0]
    assert (voc.backbone, voc.binarizer) == ("ResNet-18", "real-valued")
    assert voc.memory_bits["as printed"] == pytest.approx(112.88e6 * 8)
    assert voc.ops["as printed"] == pytest.approx(96.4e9)
    methods = {line.backbone: line.search_method for line in printed(ALL["cifar10"])}
    assert methods["BNAS1 (Large)"] == "Performance-based"
    assert methods["BNAS2v2-B"] == "Gradient-based"
    assert methods["CP-NAS-S"] == "Child-Parent model"


def test_reported_switch(capsys, sweep, lines):
    def table(*arguments):
        assert cli.main(["table", *arguments, "--records", str(sweep.records)]) == 0
        return capsys.readouterr().out

    assert "dcp-nas table 10" in table("cifar10")
    assert "dcp-nas table 10" not in table("cifar10", "--no-reported")
    assert "dcp-nas" not in table("mini-cifar10", "--format", "csv").replace(",dcp-nas,", "")
    assert "dcp-nas table 10" not in table("mini-cifar10")
    assert "dcp-nas table 10" in table("mini-cifar10", "--reported")
    assert "dcp-nas table 10" not in table("cifar10", "--format", "csv")
    read = pd.read_csv(io.StringIO(table("cifar10", "--format", "csv", "--reported")))
    readmes = {f"{paper} table 1" for paper in ("ir-net", "rbnn", "recu", "adabin", "sd-bnn", "ir2net", "ab-bnn")}
    assert set(read["source"]) == {"measured", "dcp-nas table 10", "cp-nas tables 1, 3", *readmes}


def test_one_recipe_alone(capsys, sweep, lines):
    longer = [r.model_copy(update=dict(recipe="small")) for r in Record.load_all(sweep.records, "cifar10")]
    for record in longer:
        record.save(sweep.records)

    def table(*arguments):
        code = cli.main(["table", *arguments, "--format", "csv", "--records", str(sweep.records)])
        return code, *capsys.readouterr()

    recipes = [
        list(pd.read_csv(io.StringIO(table("mini-cifar10", *more)[1]))["recipe"])
        for more in ([], ["--recipe", "small"])
    ]
    assert recipes[0] == sorted(recipes[0]), "rows of one recipe stand together"
    assert set(recipes[0]) == {"mini", "small"}
    assert set(recipes[1]) == {"small"}
    for arguments, message in (
        (["mini-cifar10", "--recipe", "long"], "no records of mini-cifar10 --recipe long in"),
        (["latency", "--recipe", "small"], "--recipe is for boards of trained networks"),
        (["cifar10", "--recipe", "small", "--reported"], "leave out --reported"),
    ):
        code, out, err = table(*arguments)
        assert (code, out) == (2, "")
        assert message in err


@pytest.mark.parametrize("form", ["html", "markdown", "latex", "text", "csv"])
def test_what_a_record_says_stays_text(lines, form):
    lines[0].recipe = lines[0].backbone = HOSTILE
    lines[0].notes = [HOSTILE]
    shown = BoardTable(BOARD).render(lines, form)
    if form in ("html", "markdown"):
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown
    if form == "markdown":
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in shown.splitlines() if row.startswith("|")}
        assert len(widths) == 1, "a bar in a name opens no new column"
    if form == "csv":
        assert pd.read_csv(io.StringIO(shown))["backbone"][0] == HOSTILE


def test_latex_compiles_with_booktabs(lines, tmp_path):
    """A real compilation where a TeX is found, with a hostile name."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex on this machine")
    lines[0].backbone = HOSTILE
    lines[0].notes = [HOSTILE]
    lines[0].verdicts["top1"], lines[1].verdicts["top1"] = "best", "tie"
    body = BoardTable(BOARD).render(lines + printed(BOARD), "latex")
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n\\tiny\n" + body + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        env={**os.environ, "TEXMFVAR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_latex_is_one_tabular_of_equal_rows(lines):
    body = BoardTable(BOARD).render(lines + printed(BOARD), "latex")
    parts = body.split("\\paragraph")[1:]
    for part, shown in zip(parts, (printed(BOARD), lines), strict=True):  # real data and drawn data
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", part).group(1))
        rows = [r for r in part.split("\\toprule")[1].split("\\bottomrule")[0].splitlines() if r.endswith(r"\\")]
        assert len(rows) == 1 + len(shown)
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_kinds_of_data_never_share_a_table(lines, form):
    """Drawn lines stand below the papers', under a heading of their own; the papers' beside real data alone."""
    shown = BoardTable(BOARD).render(lines + printed(BOARD), form)
    real, drawn = re.split("Drawn data", shown)
    assert "Real data" in real
    name = r"resnet18\_w8" if form == "latex" else "resnet18_w8"
    assert name in drawn
    assert name not in real
    assert "table 10" in real
    assert "table 10" not in drawn


def test_a_csv_names_the_kind_of_data_real_first(lines):
    made = pd.read_csv(
        io.StringIO(
            BoardTable(BOARD).render(BoardTable(BOARD).lines([r for x in lines for r in x.records], True), "csv")
        )
    )
    assert list(dict.fromkeys(made["data"])) == ["real", "drawn"]
    assert set(made.loc[made["data"] == "drawn", "source"]) == {"measured"}


def test_a_board_without_rows_shows_the_papers(tmp_path, capsys):
    assert cli.main(["table", "imagenet", "--records", str(tmp_path)]) == 0
    assert "DCP-NAS-L" in capsys.readouterr().out
    assert cli.main(["table", "imagenet", "--records", str(tmp_path), "--format", "csv"]) == 0
    assert "dcp-nas table 11" in capsys.readouterr().out
    assert cli.main(["table", "imagenet", "--records", str(tmp_path), "--no-reported"]) == 2
    assert "`onebit bench imagenet` makes them" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 80, 120, 1000])
def test_text_folds_to_the_terminal(lines, width):
    wide = BoardTable(BOARD).render(lines, "text")
    shown = BoardTable(BOARD).render(lines, "text", width)
    # A name and one number have to fit; narrower than that nothing helps.
    assert max(map(len, shown.splitlines())) <= max(width, 54)
    for header in ("Err. %", "Mem. Mbit (strict)", "Search method", "Source"):
        assert header in shown
    assert (shown.count("resnet18_w8_reactnet") > wide.count("resnet18_w8_reactnet")) == (
        width < max(map(len, wide.splitlines()))
    )


def test_one_seed_has_no_deviation(sweep):
    list(bench(sweep))
    for backbone in sweep.backbones:
        sweep.record_path(backbone, 1).unlink()
    lines = BoardTable(BOARD).lines(Record.load_all(sweep.records, "cifar10"))
    assert BoardTable(BOARD).frame(lines)["top1_std"].isna().all()
    assert "±" not in BoardTable(BOARD).render(lines, "text")


@pytest.mark.parametrize(("task", "board"), [("classification", "cifar10"), ("detection", "voc")])
def test_the_papers_epochs_are_those_of_its_recipe(task, board):
    cfg = Config.fromfile(DOCS.parent / task / "configs/recipes/paper.py")
    assert cfg.train_cfg.max_epochs == ALL[board].printed.epochs


def test_cp_nas_table_3_stands_under_its_own_convention():
    found = [line for line in further(BOARD) if line.printed == ("cp-nas", "1")]
    lines = {line.backbone: line for line in found}
    assert len(lines) == len(found) == 11
    small = lines["CP-NAS (Small)"]
    assert small.source == "cp-nas tables 1, 3"
    assert small.summary("top1").mean == pytest.approx(0.935)
    assert (small.params, small.search_cost_gpu_days) == (2.9e6, 0.1)
    assert (small.weight_bits, small.activation_bits) == (1, 1)
    assert (small.memory_bits, small.ops) == ({"cp-nas": 3.32e6}, {"cp-nas": 12.89e6})
    assert lines["DARTS"].memory_bits == {}
    numbers = reported.load("cp-nas", "3")
    for column, costs in (("memory", "memory_bits"), ("flops", "ops")):
        values = sorted(v for line in lines.values() for v in getattr(line, costs).values())
        printed_values = numbers[numbers["column"] == column]["value"] * 1e6
        assert values == pytest.approx(sorted(printed_values))
    text = BoardTable(BOARD).render(BoardTable(BOARD).lines([], reported=True), "text")
    assert "Mem. Mbit (cp-nas)" in text
    assert re.search(r"CP-NAS \(Small\).* 3\.32 .*12\.89 ", text)
    assert re.search(r"^DCP-NAS-S +6\.13 +- +- +2\.9 +- ", text, re.MULTILINE)
    assert not any(line.memory_bits for line in further(ALL["imagenet"]))


def test_what_authors_print_beside_their_code_stands_on_the_boards():
    lines = {(line.backbone, line.weight_bits, line.activation_bits): line for line in further(BOARD)}
    recu = lines["ResNet-20 (ReCU)", 1, 1]
    assert (recu.summary("top1").mean, recu.epochs, recu.search_method) == (pytest.approx(0.875), 600, "Manual")
    assert lines["ResNet-20 (IR-Net)", 1, 32].summary("top1").mean == pytest.approx(0.908)
    (slip,) = [line.notes for key, line in lines.items() if key[0] == "ResNet-18 (AdaBin)"]
    assert slip == ["printed so, though the smaller ResNet-20 of the same table has 88.1"]
    by_name = {line.backbone: line for line in further(ALL["imagenet"])}
    assert by_name["BNext-L"].summary("top1").mean == pytest.approx(0.806)
    assert by_name["QuickNetLarge"].summary("top5").mean == pytest.approx(0.87)
    (ida,) = further(ALL["voc"])
    assert (ida.backbone, ida.binarizer, ida.summary("map_area").mean) == (
        "R101-BiR18",
        "IDa-Det",
        pytest.approx(0.769),
    )
    text = BoardTable(BOARD).render(BoardTable(BOARD).lines([], reported=True), "text")
    assert re.search(r"^ResNet-20 \(ReCU\) +12\.50 .* 1/1 .* 600 +recu table 1", text, re.MULTILINE)
    assert "lines of ir-net, rbnn, recu, adabin, sd-bnn, ir2net, ab-bnn: as printed by their authors" in text


def test_columns_of_a_rule_that_no_line_has_are_left_out(lines):
    assert "(cp-nas)" not in BoardTable(BOARD).render(lines, "text")


def test_winners_are_judged_within_one_recipe():
    """A longer training is no better backbone: lines of two recipes are not compared."""
    made = [
        Line(
            "cifar10",
            name,
            "none",
            32,
            32,
            "measured",
            {m: {s: v + s * v / 1000 for s in range(3)} for m in BOARD.metrics},
            recipe=recipe,
        )
        for name, recipe, v in (("a", "short", 0.5), ("b", "short", 0.4), ("c", "long", 0.9), ("d", "long", 0.8))
    ]
    judge(BOARD, made)
    assert [line.verdicts["top1"] for line in made] == ["best", "worse", "best", "worse"]


def test_failed_seeds_count_in_no_mean(sweep):
    """Not in that of the untrained network either, whatever a failed row says of it."""
    list(bench(sweep))
    records = [r for r in Record.load_all(sweep.records, "cifar10") if r.backbone == sweep.backbones[0]]
    assert len(records) == 2
    failed = dict(status="failed", error="WorkError: no space", untrained={"top1": 0.9, "top5": 0.9})
    (alone,) = measured(BOARD, records[:1])
    (line,) = measured(BOARD, [records[0], records[1].model_copy(update=failed)])
    assert (line.seeds, line.failed) == (1, 1)
    assert line.untrained == alone.untrained
    assert line.summary("top1").mean == alone.summary("top1").mean
