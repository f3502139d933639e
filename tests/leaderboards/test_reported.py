"""The papers' numbers: schema, spot values read off the papers, and what their own text repeats."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onebit.commons.errors import InputError
from onebit.leaderboards import reported
from tests.leaderboards.second_reading import SECOND_READING

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
ROWS = {
    ("dcp-nas", "1"): 24,
    ("dcp-nas", "3"): 8,
    ("dcp-nas", "4"): 21,
    ("dcp-nas", "5"): 12,
    ("dcp-nas", "6"): 16,
    ("dcp-nas", "7"): 36,
    ("dcp-nas", "8"): 48,
    ("dcp-nas", "9"): 10,
    ("dcp-nas", "10"): 82,
    ("dcp-nas", "11"): 223,
    ("dcp-nas", "12"): 120,
    ("dcp-nas", "13"): 55,
    ("dcp-nas", "14"): 56,
    ("dcp-nas", "15"): 16,
    ("cp-nas", "1"): 52,
    ("cp-nas", "2"): 61,
    ("cp-nas", "3"): 24,
    ("bnas", "2"): 139,
    ("bnas", "3"): 10,
    ("bnas", "4"): 78,
    ("bnas", "5"): 74,
    ("abanditnas", "4.1"): 20,
    ("ir-net", "1"): 12,
    ("ir-net", "2"): 16,
    ("rbnn", "1"): 16,
    ("rbnn", "2"): 25,
    ("recu", "1"): 24,
    ("recu", "2"): 20,
    ("adabin", "1"): 9,
    ("adabin", "2"): 16,
    ("sd-bnn", "1"): 9,
    ("sd-bnn", "2"): 8,
    ("ir2net", "1"): 9,
    ("ir2net", "2"): 16,
    ("ab-bnn", "1"): 7,
    ("bnext", "1"): 4,
    ("reactnet", "1"): 2,
    ("rbonn", "1"): 2,
    ("rebnn", "1"): 2,
    ("larq-zoo", "1"): 6,
    ("larq-zoo", "2"): 22,
    ("ida-det", "1"): 1,
}

D, C, B, A = "dcp-nas", "cp-nas", "bnas", "abanditnas"
SPOTS = [
    (D, 1, "ResNet-34", "top1_1bit", 69.0),
    (D, 1, "CP-NAS", "top1_32bit", 68.0),
    (D, 1, "DCP-NAS", "gap", 4.0),
    (D, 1, "BNAS2", "gap", -4.4),
    (D, 3, "DCP-NAS-L (without tangent direction or reconstruction error)", "top1", 66.7),
    (D, 3, "DCP-NAS-L (reconstruction error only)", "top5", 85.1),
    (D, 3, "DCP-NAS-L (tangent direction and reconstruction error)", "top5", 89.2),
    (D, 4, "PNAS", "search_cost", 225),
    (D, 4, "Random Search", "top1", 51.3),
    (D, 4, "DCP-NAS-L (T.P. + D.O.)", "top1", 72.6),
    (D, 4, "DCP-NAS-L (T.P.)", "search_cost", 27.9),
    (D, 5, "DCP-NAS-S (cosine similarity)", "top1", 62.5),
    (D, 5, "DCP-NAS-S (L1-norm)", "memory", 4.3),
    (D, 5, "DCP-NAS-S (F-norm)", "top5", 84.5),
    (D, 6, "DARTS", "memory", 156.8),
    (D, 6, "DARTS + D.O.", "top1", 73.8),
    (D, 6, "PC-DARTS + D.O.", "top5", 93.9),
    (D, 8, "DCP-NAS-S (preprocessing activations binarized)", "memory", 3.5),
    (D, 8, "CP-NAS-L (first separable-conv activations binarized)", "ops", 316),
    (D, 8, "DCP-NAS-M", "top5", 88.4),
    (D, 9, "DCP-NAS-S (cutout and gradient clipping)", "test_error", 6.13),
    (D, 9, "DCP-NAS-S (no cutout or gradient clipping)", "test_error", 6.87),
    (D, 9, "DCP-NAS-S (label smoothing and auxiliary loss)", "top1", 63.0),
    (D, 10, "BATS (Medium)", "memory", 5.4),
    (D, 10, "BNAS2v2-B", "test_error", 6.24),
    (D, 10, "DCP-NAS-L", "test_error", 4.22),
    (D, 11, "ResNet-18", "ops", 1819),
    (D, 11, "ResNet-18 (ReActNet)", "memory", 11.2),
    (D, 11, "EBN (improved scheme + EBConv)", "top5", 90.1),
    (D, 11, "DCP-NAS-S (improved scheme BNAS2v2)", "top1", 66.9),
    (D, 11, "DCP-NAS-M (improved scheme + EBConv)", "top1", 72.7),
    (D, 11, "DCP-NAS-L", "gpu_mem_max", 13.1),
    (D, 11, "NASBV5", "ops", 352),
    (D, 12, "ResNet-18 (real-valued)", "weight_bits", 32),
    (D, 12, "ResNet-50 (BiRe-ID)", "activation_bits", 1),
    (D, 12, "DCP-NAS-L", "weight_bits", 1),
    (D, 13, "ResNet-18 (real-valued)", "memory", 112.88),
    (D, 13, "ResNet-34 (DoReFa-Net)", "weight_bits", 4),
    (D, 13, "DCP-NAS-M", "map", 74.2),
    (D, 13, "DCP-NAS-L", "ops", 15.29),
    (D, 14, "ResNet-18 (FQN)", "ap75", 29.3),
    (D, 14, "ResNet-18 (LWS-Det)", "ap_l", 38.3),
    (D, 14, "DCP-NAS-M", "ap_s", 17.4),
    (D, 15, "ResNet-18", "latency", 255.7),
    (D, 15, "ResNet-18 (ReActNet)", "acceleration", 3.8),
    (D, 15, "DCP-NAS-M", "memory_saving", 51.8),
    (C, 1, "WRN-22 (PCNN)", "test_error", 5.69),
    (C, 1, "BNAS (reimplemented with beta_P = 0)", "params", 4.5),
    (C, 1, "CP-NAS (Large)", "params", 10.6),
    (C, 2, "PC-DARTS", "search_cost", 3.8),
    (C, 2, "ResNet-18 (BONN)", "top5", 81.5),
    (C, 2, "BNAS (PCNN)", "top1", 71.3),
    (C, 3, "WRN-22", "flops", 647.70),
    (C, 3, "CP-NAS (Medium)", "memory", 4.85),
    (C, 3, "WRN-22 (BONN)", "speedup", 28.03),
    (B, 2, "AmoebaNet-A", "search_cost", 3150),
    (B, 2, "BNAS (XNOR, larger)", "test_error", 4.88),
    (B, 2, "DARTS (first order)", "params", 3.1),
    (B, 3, "BNAS (L = 3)", "accuracy", 95.8),
    (B, 3, "BNAS (L = 7)", "search_cost", 0.1109),
    (B, 3, "BNAS (L = 11)", "accuracy", 96.03),
    (B, 4, "MobileNetV1", "params", 4.2),
    (B, 4, "ResNet-18 (Bi-Real Net)", "top5", 79.5),
    (B, 4, "AmoebaNet-C", "top1", 75.7),
    (B, 5, "ResNet-100", "accuracy_agedb", 93.99),
    (B, 5, "ResNet-34 (PCNN)", "accuracy_cfp", 80.59),
    (B, 5, "ResNet-50 (XNOR)", "params", 45.46),
    (A, 4.1, "ABanditNAS (7 operations)", "accuracy", 97.13),
    (A, 4.1, "ABanditNAS (10 operations)", "params", 2.7),
    (A, 4.1, "ABanditNAS (11 operations)", "search_cost", 0.16),
    ("rbnn", 1, "ResNet-20 with Bi-Real shortcuts (RBNN)", "top1", 87.8),
    ("recu", 1, "ResNet-20 (ReCU)", "epochs", 600),
    ("adabin", 2, "ResNet-18 (AdaBin, two steps)", "top5", 86.5),
    ("bnext", 1, "BNext-L", "top1", 80.6),
    ("larq-zoo", 2, "MeliusNet22", "top1", 62.4),
]

GROUPED_SPOTS = [
    (D, 7, "normal search space", "Medium", "top1", 69.0),
    (D, 7, "without pooling", "Medium", "top5", 85.3),
    (D, 7, "without pooling and skip connection", "Large", "memory", 7.4),
    (D, 9, "ImageNet", "DCP-NAS-S (auxiliary loss only)", "top5", 84.2),
    (D, 10, "1/32", "WRN-22", "memory", 4.3),
    (D, 11, "multi-bit", "BNAS1", "top1", 71.3),
    (D, 11, "medium", "BNAS1", "search_cost", 3.2),
    (D, 12, "Market-1501", "DCP-NAS-S", "map", 68.0),
    (D, 12, "DukeMTMC-reID", "ResNet-34 (Bi-Real Net)", "rank1", 69.1),
    (D, 12, "CUHK03", "ResNet-18 (XNOR-Net)", "map", 14.0),
    (D, 12, "CUHK03", "DCP-NAS-L", "rank1", 57.6),
    (C, 2, "1/1", "ResNet-18 (PCNN)", "top1", 57.5),
    (B, 2, "1/32", "PC-DARTS", "search_cost", 0.18),
    (B, 2, "1/1", "PC-DARTS", "test_error", 8.94),
    (B, 5, "1/32", "BNAS", "params", 10.224),
    (B, 5, "1/1", "BNAS", "accuracy_agedb", 83.6),
    ("ir-net", 1, "1/32", "ResNet-20 (IR-Net)", "accuracy", 90.8),
    ("ab-bnn", 1, "CIFAR10", "ReActNet-18 (A&B BNN)", "top1", 91.94),
]


def one(paper, table, row, column, group=None):
    numbers = reported.load(paper, table)
    found = numbers[(numbers["row"] == row) & (numbers["column"] == column)]
    if group is not None:
        found = found[found["group"] == group]
    assert len(found) == 1
    return found["value"].item()


@pytest.fixture(scope="module")
def numbers():
    return reported.load()


@pytest.mark.parametrize("key", ROWS, ids=" ".join)
def test_no_number_is_lost(key):
    assert len(reported.load(*key)) == ROWS[key]


def test_every_table_is_counted_here(numbers):
    assert list(numbers.groupby(["paper", "table"], sort=False).size().index) == list(ROWS)


@pytest.mark.parametrize(("paper", "table", "row", "column", "value"), SPOTS)
def test_spot_values(paper, table, row, column, value):
    assert one(paper, table, row, column) == value


@pytest.mark.parametrize(("paper", "table", "group", "row", "column", "value"), GROUPED_SPOTS)
def test_spot_values_told_apart_by_their_group(paper, table, group, row, column, value):
    assert one(paper, table, row, column, group) == value


def test_every_number_was_read_twice(numbers):
    assert list(SECOND_READING) == list(ROWS)
    read = [value for table in SECOND_READING.values() for row in table[1:] for value in row]
    assert len([value for value in read if value is not None]) == len(numbers) == sum(ROWS.values())


@pytest.mark.parametrize("key", ROWS, ids=" ".join)
def test_a_second_reading_of_the_papers_gives_the_same_numbers(key):
    """Typed afresh from the papers' text, row by row."""
    columns, *rows = SECOND_READING[key]
    by_dataset = key == ("dcp-nas", "12")  # one printed row holds three datasets
    typed = {}
    for line in reported.load(*key).itertuples():
        row = line.row if by_dataset else (line.row, line.group)
        column = f"{line.group} {line.column}".strip() if by_dataset else line.column
        typed.setdefault(row, {})[column] = line.value
    again = [{column: value for column, value in zip(columns, row, strict=True) if value is not None} for row in rows]
    assert list(typed.values()) == again


def test_schema(numbers):
    assert tuple(numbers.columns) == reported.COLUMNS
    assert numbers["value"].dtype == np.float64
    assert np.isfinite(numbers["value"]).all()
    assert set(numbers["unit"]) == set(reported.UNITS)
    assert set(numbers["paper"]) == set(reported.CITATIONS)
    assert not numbers.duplicated(["paper", "table", "row", "column", "group"]).any()
    assert numbers["column"].str.fullmatch(r"[a-z][a-z0-9_]*").all()
    assert numbers[["row", "group", "note", "copy"]].map(str.isascii).all(axis=None)
    assert (numbers["row"] == numbers["row"].str.strip()).all()
    assert numbers["row"].ne("").all()


def test_values_fit_their_units(numbers):
    percent = numbers[(numbers["unit"] == "percent") & (numbers["column"] != "gap")]
    assert percent["value"].between(0, 100).all()
    assert set(numbers[numbers["unit"] == "bits"]["value"]) == {1, 4, 32}
    others = numbers[numbers["column"] != "gap"]
    assert others["value"].gt(0).all()
    assert (numbers.groupby(["table", "paper", "column"])["unit"].nunique() == 1).all()


def test_files_hold_the_digits_as_printed():
    found = {}
    for path in reported.FOLDER.glob("*.csv"):
        with open(path, newline="", encoding="ascii") as lines:
            for line in csv.DictReader(lines):
                key = (line["paper"], line["table"], line["row"], line["column"], line["group"])
                found[key] = line["value"]
                assert path.stem == f"{key[0].replace('-', '_')}_table{key[1].replace('.', '_')}"
    assert found[D, "1", "DCP-NAS", "gap", "auxiliary BNAS"] == "+4.0"
    assert found[D, "10", "CP-NAS-S", "test_error", "1/1"] == "6.50"
    assert found[C, "3", "WRN-22", "flops", "CIFAR-10"] == "647.70"
    assert found[B, "2", "Network in [48]", "params", "1/32"] == "4.30"


def test_binarization_of_a_row_agrees_with_its_group(numbers):
    bits = numbers[numbers["unit"] == "bits"]
    grouped = bits[bits["group"].str.contains("/")]
    assert len(grouped) > 100
    for _, line in grouped.iterrows():
        weights, activations = line["group"].split("/")
        assert line["value"] == float(weights if line["column"] == "weight_bits" else activations)


@pytest.mark.parametrize(
    ("table", "better", "worse", "column", "gain"),
    [
        (13, "DCP-NAS-S", "ResNet-18 (ReActNet)", "map", 3.2),
        (13, "DCP-NAS-M", "ResNet-18 (DoReFa-Net)", "map", 0.9),
        (13, "DCP-NAS-M", "ResNet-18 (ReActNet)", "map", 4.6),
        (13, "DCP-NAS-M", "ResNet-18 (LWS-Det)", "map", 1.0),
        (13, "DCP-NAS-L", "ResNet-34 (DoReFa-Net)", "map", 1.1),
        (13, "DCP-NAS-L", "ResNet-34 (ReActNet)", "map", 4.4),
        (13, "DCP-NAS-L", "ResNet-34 (LWS-Det)", "map", 0.9),
        (14, "DCP-NAS-S", "ResNet-18 (ReActNet)", "ap", 4.3),
        (14, "DCP-NAS-M", "ResNet-18 (ReActNet)", "ap", 6.2),
        (14, "DCP-NAS-M", "ResNet-18 (LWS-Det)", "ap", 0.4),
        (14, "DCP-NAS-L", "ResNet-18 (FQN)", "ap", 1.6),
        (11, "DCP-NAS-S", "BATS", "top1", 2.6),
        (11, "DCP-NAS-M", "BATS (2x wider)", "top1", 2.9),
        (11, "DCP-NAS-M", "BARS-E", "top1", 12.8),
        (11, "DCP-NAS-M", "NASBV4", "top1", 3.7),
        (11, "DCP-NAS-M", "EBN", "top1", 1.5),
        (11, "DCP-NAS-M", "EBNAS-L", "top1", 1.2),
        (10, "BATS (Small)", "DCP-NAS-S", "test_error", 0.17),
        (10, "BATS (Medium)", "DCP-NAS-M", "test_error", 0.26),
        (10, "BATS (Large)", "DCP-NAS-L", "test_error", 0.28),
        (8, "DCP-NAS-L", "DCP-NAS-L (first separable-conv activations binarized)", "top1", 2.3),
        (8, "DCP-NAS-L", "DCP-NAS-L (preprocessing activations binarized)", "top1", 2.9),
        (6, "DARTS + D.O.", "DARTS", "top1", 0.7),
        (6, "PC-DARTS + D.O.", "PC-DARTS", "top1", 0.8),
    ],
)
def test_gains_that_the_text_of_dcp_nas_states(table, better, worse, column, gain):
    difference = one(D, table, better, column) - one(D, table, worse, column)
    assert difference == pytest.approx(gain, abs=1e-9)


@pytest.mark.parametrize(
    ("dataset", "size", "resnet", "over_real", "over_bireid"),
    [
        ("Market-1501", "S", 18, 3.7, 4.0),
        ("Market-1501", "M", 34, 2.6, 3.5),
        ("Market-1501", "L", 50, 0.3, 2.7),
        ("DukeMTMC-reID", "S", 18, 12.1, 13.1),
        ("DukeMTMC-reID", "M", 34, 9.7, 10.9),
        ("DukeMTMC-reID", "L", 50, 5.5, 7.4),
        # On CUHK03 the text gives the gain over the real-valued nets as the one over BiRe-ID.
        ("CUHK03", "S", 18, 15.8, None),
        ("CUHK03", "M", 34, 12.2, None),
        ("CUHK03", "L", 50, 10.6, None),
    ],
)
def test_re_id_gains_that_the_text_of_dcp_nas_states(dataset, size, resnet, over_real, over_bireid):
    ours = one(D, 12, f"DCP-NAS-{size}", "map", dataset)
    real = one(D, 12, f"ResNet-{resnet} (real-valued)", "map", dataset)
    bireid = one(D, 12, f"ResNet-{resnet} (BiRe-ID)", "map", dataset)
    assert ours - real == pytest.approx(over_real, abs=1e-9)
    if over_bireid is not None:
        assert ours - bireid == pytest.approx(over_bireid, abs=1e-9)


def test_ratios_of_dcp_nas_table_15_follow_from_its_columns():
    for row in ("ResNet-18 (ReActNet)", "DCP-NAS-M"):
        for ratio, column in (("memory_saving", "memory"), ("acceleration", "latency")):
            computed = one(D, 15, "ResNet-18", column) / one(D, 15, row, column)
            assert one(D, 15, row, ratio) == pytest.approx(computed, abs=0.05)


def test_accuracies_that_the_texts_of_cp_nas_and_bnas_state():
    assert 100 - one(C, 1, "CP-NAS (Large)", "test_error") == pytest.approx(95.27)
    assert one(C, 2, "CP-NAS (real-valued activations in first separable convs)", "top1") == 64.3
    assert 100 - one(B, 2, "BNAS (larger)", "test_error") == pytest.approx(96.53)
    assert 100 - one(B, 2, "PC-DARTS", "test_error", "32/32") == pytest.approx(97.22)
    assert 100 - one(B, 2, "BNAS", "test_error", "1/32") == one(B, 3, "BNAS (L = 5)", "accuracy")
    exploration = one(B, 2, "BNAS", "test_error", "1/1") - one(B, 2, "BNAS (Eq. 10)", "test_error", "1/1")
    assert exploration == pytest.approx(1.58)
    lfw = [one(B, 5, "ResNet-18", "accuracy_lfw"), one(B, 5, "BNAS", "accuracy_lfw", "1/1")]
    assert lfw[0] - lfw[1] == pytest.approx(1.06)
    # 17.2 hours of search on CASIA-WebFace.
    assert one(B, 5, "BNAS", "search_cost", "1/32") * 24 == pytest.approx(17.2, abs=0.05)


def test_tables_that_repeat_each_other_agree(numbers):
    """DCP-NAS Tables 5, 7 and 8 end in nets that Table 11 lists too."""
    for size, name in (("S", "Small"), ("M", "Medium"), ("L", "Large")):
        for column in ("top1", "top5"):
            full = one(D, 11, f"DCP-NAS-{size}", column)
            assert one(D, 8, f"DCP-NAS-{size}", column) == full
            assert one(D, 7, name, column, "normal search space") == full
    for column in ("top1", "top5", "memory", "search_cost"):
        expected = one(D, 11, "DCP-NAS-S", column)
        assert one(D, 5, "DCP-NAS-S (F-norm)", column) == expected


def test_uncertain_cells_say_why(numbers):
    uncertain = numbers[numbers["note"].str.contains("uncertain")]
    assert uncertain["note"].str.match(r"(.*; )?uncertain: \w+").all()
    assert set(uncertain["paper"] + " " + uncertain["table"]) == {"dcp-nas 4", "dcp-nas 9", "dcp-nas 11", "dcp-nas 13"}


def test_loading_a_part(numbers):
    assert set(reported.load("bnas")["table"]) == {"2", "3", "4", "5"}
    assert set(reported.load(table="3")["paper"]) == {"dcp-nas", "cp-nas", "bnas"}
    whole = reported.load("dcp-nas", 11)
    assert whole.equals(reported.load("dcp-nas", "11"))
    assert list(whole.index) == list(range(len(whole)))


def test_unknown_paper_lists_those_there_are():
    with pytest.raises(InputError, match="'dcpnas'; did you mean dcp-nas"):
        reported.load("dcpnas")


def test_unknown_table_lists_those_there_are():
    with pytest.raises(InputError, match=r"'2'.*dcp-nas: 1, 3, 4, .*, 15$"):
        reported.load("dcp-nas", 2)
    with pytest.raises(InputError, match=r"abanditnas: 4\.1; .*ida-det: 1$"):
        reported.load(table="99")


def test_import_is_light():
    code = "import sys, onebit.leaderboards.reported; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_page_of_systems_knows_every_row_and_names_what_there_is():
    from onebit import list_backbones
    from onebit.classification.search.strategies import METHODS
    from onebit.commons.task import recipes

    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    systems, here = zip(*((line.split(" | ")[0], line.split(" | ")[1]) for line in lines), strict=True)
    starts = [name for cell in systems for name in re.findall(r"`([^`]+)`", cell)]
    numbers = reported.load()
    rows = set(numbers.loc[numbers["paper"].isin([D, C, B, A]), "row"])
    assert [row for row in rows if not row.startswith(tuple(starts))] == []
    assert [start for start in starts if not any(row.startswith(start) for row in rows)] == []
    known = {*list_backbones(), *METHODS, *recipes("classification")}
    named = {name for cell in here for name in re.findall(r"`([^`]+)`", cell)} - {*starts}
    assert named <= known
    assert set(METHODS) <= named
