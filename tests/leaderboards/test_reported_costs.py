"""Printed against computed: no number passed over, the document never stale."""

import re
from pathlib import Path

import pytest

from onebit.commons.errors import InputError
from onebit.leaderboards import reported
from onebit.leaderboards.reported import costs as reported_costs
from onebit.leaderboards.reported.costs import BEGIN, END, updated
from onebit.leaderboards.reported.networks import ANALYTIC, ENTRIES, Network, find

DOCUMENT = Path(__file__).parents[2] / "docs" / "cost.md"


@pytest.fixture(scope="module")
def lines():
    return reported_costs.table()


@pytest.mark.slow
def test_every_analytic_number_has_a_line(lines):
    numbers = reported.load()
    numbers = numbers[numbers["column"].isin(ANALYTIC)]
    assert len(numbers) == 244
    assert list(lines["printed"]) == list(numbers["value"])
    assert list(lines["row"]) == list(numbers["row"])
    units = {"M_params", "Mbit", "MB", "M_ops", "M_flops", "G_ops"}
    others = reported.load()
    others = others[~others["column"].isin(ANALYTIC)]
    assert not units & set(others["unit"])


@pytest.mark.slow
def test_every_line_has_a_number_or_says_in_words_why_not(lines):
    without = lines[lines["ours"].isna()]
    assert without["remark"].str.len().gt(20).all()
    assert lines[lines["network"] == ""]["remark"].str.startswith("not computed: ").all()
    fits_none = lines[(lines["network"] != "") & lines["ours"].isna()]
    assert fits_none["remark"].str.startswith("no convention fits").all()
    assert fits_none["strict"].notna().all()


def test_every_entry_is_needed():
    numbers = reported.load()
    numbers = numbers[numbers["column"].isin(ANALYTIC)]
    used = {
        id(find(number.paper, number.table, number.row, number.group, number.column)) for number in numbers.itertuples()
    }
    unused = [entry for entry in ENTRIES if id(entry) not in used]
    assert unused == []
    with pytest.raises(LookupError, match="no entry for dcp-nas Table 99"):
        find("dcp-nas", "99", "ResNet-18", "", "ops")


@pytest.mark.slow
def test_where_a_convention_fits_it_fits(lines):
    """All but the rows whose remark says what is wrong with them."""
    computed = lines[lines["ours"].notna()]
    fitting = computed[computed["remark"].isin(["", "as ResNet-18"])]
    assert len(fitting) > 70
    assert fitting["difference"].abs().max() < 4
    built = fitting[fitting["network"].str.startswith("`") & (fitting["column"] != "params")]
    assert built["difference"].abs().max() < 1.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paper", "table", "row", "column", "ours", "strict"),
    [
        ("dcp-nas", "11", "DCP-NAS-S", "memory", 4.190, 36.15),
        ("dcp-nas", "11", "DCP-NAS-L", "ops", 332.0, 1079.1),
        ("dcp-nas", "11", "ResNet-18 (ReActNet)", "ops", 163.99, 163.99),
        ("dcp-nas", "13", "ResNet-18 (real-valued)", "memory", 112.88, 113.51),
        ("dcp-nas", "13", "ResNet-18 (real-valued)", "ops", 96.394, 96.256),
        ("cp-nas", "3", "WRN-22 (BONN)", "flops", 17.03, 15.99),
        ("cp-nas", "3", "WRN-22", "flops", 647.70, 647.70),
    ],
)
def test_values(lines, paper, table, row, column, ours, strict):
    chosen = lines[
        (lines["paper"] == paper) & (lines["table"] == table) & (lines["row"] == row) & (lines["column"] == column)
    ]
    assert len(chosen) == 1
    line = chosen.iloc[0]
    assert line["ours"] == pytest.approx(ours, rel=1e-3)
    assert line["strict"] == pytest.approx(strict, rel=1e-3)
    assert line["difference"] == pytest.approx(100 * (line["ours"] / line["printed"] - 1))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "printed"), [("Small", 3.32), ("Medium", 4.85), ("Large", 11.51)])
def test_cp_nas_within_two_percent_given_its_parameter_counts(lines, size, printed):
    line = lines[(lines["row"] == f"CP-NAS ({size})") & (lines["column"] == "memory")].iloc[0]
    assert line["printed"] == printed
    assert abs(line["difference"]) < 2


@pytest.mark.slow
def test_the_document_is_what_the_command_writes(lines):
    document = DOCUMENT.read_text(encoding="utf-8")
    assert updated(document, reported_costs.markdown(lines)) == document


@pytest.mark.slow
def test_every_number_is_in_the_document(lines):
    """Each computed number stands in the first table; the second counts all others."""
    content = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    left_out = sum(map(int, re.findall(r"^\| [^|]+ \| (\d+) \| [^|]+ \|$", content, re.MULTILINE)))
    assert left_out == (lines["network"] == "").sum()
    for network, column, printed in zip(lines["network"], lines["column"], lines["printed"], strict=True):
        if network:
            start = re.escape(f"| {network} |")
            quantity = rf"{column.replace('_', ' ')}, [^|]*"
            assert re.search(rf"^{start}[^|]*\| {quantity}\| {printed:g} \|", content, re.MULTILINE)


def test_markers(tmp_path):
    assert updated(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb"
    for broken in ("", BEGIN, END, f"{END}{BEGIN}"):
        with pytest.raises(InputError, match="expected the lines"):
            updated(broken, "new")


@pytest.mark.slow
def test_command(lines, capsys, tmp_path):
    assert reported_costs.main(["--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(lines)
    assert reported_costs.main([]) == 0
    assert "printed in table" in capsys.readouterr().out
    assert reported_costs.main(["--update", str(tmp_path / "none.md")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "doc.md").write_text(f"{BEGIN}{END}")
    assert reported_costs.main(["--update", str(tmp_path / "doc.md")]) == 0
    assert reported_costs.markdown(lines) in (tmp_path / "doc.md").read_text()


def test_networks_name_themselves():
    network = Network("dcp_nas_s", classes=None, options=(("stem", "cifar"),))
    assert str(network) == "`dcp_nas_s`, stem=cifar, no classifier"
