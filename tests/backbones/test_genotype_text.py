"""The named tuple in which cells are published: read, written, and never run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebit import backbones
from onebit.backbones import Genotype
from onebit.backbones.cells.genotype import OPERATIONS
from onebit.commons.errors import InputError

GOOD = backbones.cells.load_cell("dcp_nas_imagenet")
#: The cell as its authors released it, edges in their order.
PUBLISHED = """
DCP_NAS = Genotype(
    normal=[('sep_conv_5x5', 1), ('max_pool_3x3', 0), ('dil_conv_3x3', 2), ('skip_connect', 0),
            ('sep_conv_3x3', 3), ('avg_pool_3x3', 1), ('dil_conv_3x3', 4), ('avg_pool_3x3', 3)],
    normal_concat=range(2, 6),
    reduce=[('max_pool_3x3', 0), ('sep_conv_3x3', 1), ('dil_conv_3x3', 1), ('sep_conv_3x3', 0),
            ('max_pool_3x3', 1), ('dil_conv_5x5', 2), ('dil_conv_5x5', 2), ('sep_conv_5x5', 1)],
    reduce_concat=range(2, 6))
"""


def nodes(sizes):
    def node(number, size):
        sources = st.lists(st.integers(0, number - 1), min_size=size, max_size=size, unique=True)
        return sources.flatmap(
            lambda chosen: st.tuples(*(st.tuples(st.sampled_from(OPERATIONS), st.just(source)) for source in chosen))
        )

    return st.tuples(*(node(number, size) for number, size in enumerate(sizes, 2)))


genotypes = st.one_of(*(st.builds(Genotype, nodes(sizes), nodes(sizes)) for sizes in ((2, 2, 2, 2), (2, 3, 4, 5))))


def edges(count):
    return [("none", 0), ("none", 1)] * (count // 2)


def text(**fields):
    defaults = dict(normal=edges(8), normal_concat="range(2, 6)", reduce=edges(8))
    fields = {**defaults, "reduce_concat": "range(2, 6)", **fields}
    return f"Genotype({', '.join(f'{key}={value}' for key, value in fields.items())})"


def test_the_published_cell_round_trips():
    read = Genotype.from_text(PUBLISHED)
    assert read == GOOD
    assert Genotype.from_text(read.to_text()) == GOOD
    assert read.provenance == {}


@given(genotypes)
def test_round_trip(genotype):
    read = Genotype.from_text(genotype.to_text(), {"source": "here"})
    assert read == genotype
    assert read.hash == genotype.hash
    assert read.provenance == {"source": "here"}


@given(genotypes)
def test_the_text_is_the_named_tuple_of_darts(genotype):
    """What other code evaluates it to: edges flat, node by node, and the output nodes."""
    fields = eval(genotype.to_text(), {"Genotype": dict, "range": range})
    assert list(fields) == ["normal", "normal_concat", "reduce", "reduce_concat"]
    assert fields["normal"] == [edge for node in genotype.normal for edge in node]
    assert fields["reduce"] == [edge for node in genotype.reduce for edge in node]
    assert list(fields["normal_concat"]) == list(fields["reduce_concat"]) == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "same",
    [
        text(),
        text(normal_concat="[2, 3, 4, 5]", reduce_concat="(2, 3, 4, 5)"),
        f"genotypes.Genotype({edges(8)}, range(2, 6), {edges(8)}, range(2, 6))",
        f"BEST: Genotype = {text()}".replace(": Genotype", ""),
        f"  {text()}  # with a remark",
    ],
)
def test_ways_to_write_the_same(same):
    node = (("none", 0), ("none", 1))
    assert Genotype.from_text(same) == Genotype([node] * 4, [node] * 4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "expected one call Genotype"),
        ("Genotype(", "not a named tuple in line 1"),
        ("Genotype\0()", "not a named tuple"),
        ("(" * 3000, "not a named tuple"),
        ("Genotype() or Genotype()", "expected one call"),
        (f"{text()}\n{text()}", "expected one call"),
        ("open('x')", "expected one call"),
        ("Genotype()", "'normal' is missing"),
        (text(depth=3), "unknown field 'depth'"),
        ("Genotype(**{})", r"unknown field \*\*"),
        ("Genotype([], normal=[])", "'normal' is given twice"),
        ("Genotype(1, 2, 3, 4, 5)", "5 fields"),
        (text(normal=edges(6)), "normal has 6 edges; expected 8"),
        (text(reduce="'none'"), "reduce is 'none'; expected a list of edges"),
        (text(normal="open('/etc/passwd')"), "normal is open.*expected plain values"),
        (text(normal="[('none', x)]"), "expected plain values"),
        (text(normal_concat="range(0, 10 ** 15)"), "expected plain values"),
        (text(normal_concat="range(1, 1000000000000000)"), "expected range"),
        (text(reduce_concat="range(2, 5)"), "expected range"),
        (text(reduce_concat="6"), "expected range"),
        (text(reduce_concat="range()"), "expected plain values"),
        (text(normal="[('conv', 0)] + []"), "expected plain values"),
        (text(normal=[("conv", 0), *edges(8)[1:]]), "node 2, edge 0: operation 'conv': expected one of none"),
        (text(normal=[("none", 2), *edges(8)[1:]]), "source node 2: expected a whole number from 0 to 1"),
        (text(normal=[3] * 8), "expected .operation, source node."),
        (text(normal=edges(14)), "more than one edge comes from node 0"),
        ("x" * 30_000, "too many"),
        (None, "expected text, found NoneType"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_error_says_what_is_wrong_and_where(bad, message):
    with pytest.raises(InputError, match=message) as caught:
        Genotype.from_text(bad, where="here.txt")
    assert str(caught.value).startswith("here.txt: ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=80) | st.builds(lambda inner: f"Genotype({inner})", st.text(max_size=40)))
def test_any_text_is_refused(any_text):
    with pytest.raises(InputError):
        Genotype.from_text(any_text)
