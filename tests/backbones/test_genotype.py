import collections
import copy
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebit import backbones
from onebit.backbones import Genotype
from onebit.backbones.cells.genotype import OPERATIONS, POSSIBLE_EDGES
from onebit.commons.errors import InputError, WorkError


def edges(number, size):
    sources = st.lists(st.integers(0, number - 1), min_size=size, max_size=size, unique=True)
    return sources.flatmap(
        lambda chosen: st.tuples(*(st.tuples(st.sampled_from(OPERATIONS), st.just(s)) for s in chosen))
    )


top2_cells = st.tuples(*(edges(number, 2) for number in (2, 3, 4, 5)))
all14_cells = st.tuples(*(edges(number, number) for number in (2, 3, 4, 5)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
provenances = st.dictionaries(st.text(), json_values, max_size=3)
genotypes = st.one_of(
    st.builds(Genotype, top2_cells, top2_cells, provenances), st.builds(Genotype, all14_cells, all14_cells, provenances)
)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

GOOD = backbones.cells.load_cell("dcp_nas_imagenet")


@relaxed
@given(genotypes)
def test_round_trip(tmp_path, genotype):
    path = genotype.save(tmp_path / "cell.json")
    loaded = Genotype.load(path)
    assert loaded == genotype
    assert loaded.hash == genotype.hash
    assert loaded.provenance == genotype.provenance
    assert json.loads(path.read_text()) == genotype.to_dict()
    assert sum(map(len, genotype.normal)) == (8 if genotype.derivation == "top2" else POSSIBLE_EDGES)


@given(genotypes, st.randoms())
def test_order_of_edges_and_provenance_mean_nothing(genotype, random):
    content = genotype.to_dict()
    for cell in ("normal", "reduce"):
        for node in content[cell]:
            random.shuffle(node)
    content["provenance"] = {"source": "elsewhere"}
    other = Genotype.from_dict(content)
    assert other == genotype
    assert hash(other) == hash(genotype)
    assert other.hash == genotype.hash


@given(genotypes, st.sampled_from(("normal", "reduce")), st.integers(0, 3), st.data())
def test_another_structure_has_another_hash(genotype, cell, node, data):
    content = genotype.to_dict()
    edge = data.draw(st.sampled_from(content[cell][node]))
    edge[0] = data.draw(st.sampled_from([name for name in OPERATIONS if name != edge[0]]))
    other = Genotype.from_dict(content)
    assert other != genotype
    assert other.hash != genotype.hash


def places(content, path=()):
    """The paths of all values in nested lists and dicts."""
    yield path
    items = enumerate(content) if isinstance(content, list) else ()
    items = content.items() if isinstance(content, dict) else items
    for key, value in items:
        yield from places(value, (*path, key))


@relaxed
@given(st.data())
def test_mutated_json_is_refused_with_one_clear_error(tmp_path, data):
    """Any value replaced or removed gives a genotype or an InputError that names the file."""
    content = copy.deepcopy(GOOD.to_dict())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([place for place in places(content) if place]))
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()):
            parent[path[-1]] = data.draw(json_values)
        else:
            del parent[path[-1]]
    file = tmp_path / "cell.json"
    file.write_text(json.dumps(content))
    try:
        genotype = Genotype.load(file)
    except InputError as error:
        message = str(error)
    else:
        assert Genotype.from_dict(genotype.to_dict()) == genotype
        return
    assert str(file) in message
    assert "\n" not in message


@relaxed
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path, content):
    file = tmp_path / "cell.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"cell\.json"):
        Genotype.load(file)


def changed(cell, node, edges):
    content = GOOD.to_dict()
    content[cell][node] = edges
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            changed("normal", 0, [["conv", 0], ["none", 1]]),
            "normal cell, node 2, edge 0: operation 'conv': expected one of none",
        ),
        (
            changed("reduce", 1, [["none", 0], ["none", 3]]),
            "reduce cell, node 3, edge 1: source node 3: expected a whole number from 0 to 2",
        ),
        (changed("normal", 1, [["none", 0], ["none", -1]]), "source node -1: expected"),
        (changed("normal", 1, [["none", 0], ["none", True]]), "source node True: expected"),
        (changed("normal", 1, [["none", 0], ["none", 1.0]]), r"source node 1\.0: expected"),
        (changed("normal", 1, [["none", 1], ["skip_connect", 1]]), "more than one edge comes from node 1"),
        (changed("normal", 3, [["none", 1]]), "found 2, 2, 2, 1"),
        (changed("normal", 3, [["none"], ["none", 1]]), "edge 0: expected .operation, source node., found 1 entries"),
        (changed("normal", 3, "none"), "node 5: expected a list of edges, found str"),
        ({**GOOD.to_dict(), "normal": GOOD.to_dict()["normal"][:3]}, "expected a list of 4 nodes, found 3 entries"),
        ({**GOOD.to_dict(), "format": "other"}, "format 'other': expected one of onebit-genotype"),
        ({**GOOD.to_dict(), "version": 2}, "version 2: expected one of 1"),
        ({**GOOD.to_dict(), "version": True}, "version True: expected"),
        ({**GOOD.to_dict(), "colour": 1}, "key 'colour': expected one of format"),
        ({**GOOD.to_dict(), "provenance": [1]}, "provenance: expected an object"),
        ({k: v for k, v in GOOD.to_dict().items() if k != "reduce"}, '"reduce" is missing'),
        ([], "expected a JSON object, found list"),
    ],
)
def test_error_says_what_and_where(content, message):
    with pytest.raises(InputError, match=message):
        Genotype.from_dict(content)


def test_cells_of_different_derivation_are_refused():
    every = [[("none", source) for source in range(number)] for number in (2, 3, 4, 5)]
    assert Genotype(every, every).derivation == "all14"
    with pytest.raises(InputError, match="normal is top2, reduce is all14"):
        Genotype(GOOD.normal, every)


def test_provenance_that_json_cannot_hold_is_refused():
    with pytest.raises(InputError, match="provenance"):
        Genotype(GOOD.normal, GOOD.reduce, {"net": object()})
    with pytest.raises(InputError, match="provenance"):
        Genotype(GOOD.normal, GOOD.reduce, {"score": float("nan")})


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(InputError, match="no genotype file at"):
        Genotype.load(tmp_path / "missing.json")
    with pytest.raises(InputError, match=r"could not read|expected a file"):
        Genotype.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError):
        GOOD.save(tmp_path / "file" / "cell.json")


def test_immutable_and_copied_and_pickled():
    with pytest.raises(AttributeError):
        GOOD.normal = ()
    with pytest.raises(TypeError):
        GOOD.provenance["source"] = "elsewhere"
    for twin in (copy.deepcopy(GOOD), pickle.loads(pickle.dumps(GOOD))):
        assert twin == GOOD
        assert twin.provenance == GOOD.provenance


def test_hash_is_the_same_in_every_process():
    """The hash stands in records: this value may never change."""
    expected = "5429b42ab6e4ec8167da99afe65298f17fd0ee4bd99f158890e06a5d5d8b6386"
    code = "from onebit import backbones; print(backbones.cells.load_cell('dcp_nas_imagenet').hash)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == expected


def test_cells_that_ship():
    assert "dcp_nas_imagenet" in backbones.cells.list_cells()
    for name in backbones.cells.list_cells():
        provenance = backbones.cells.load_cell(name).provenance
        assert {"source", "method", "dataset"} <= set(provenance)
    with pytest.raises(InputError, match="did you mean dcp_nas_imagenet"):
        backbones.cells.load_cell("dcp_nas_imagnet")


def test_random_cells_are_uniform_and_those_that_ship_can_be_drawn_again():
    for seed in range(5):
        assert Genotype.random(seed) == backbones.cells.load_cell(f"random_{seed}")
    assert Genotype.random(0, "all14").derivation == "all14"
    cells = [Genotype.random(seed) for seed in range(1400)]
    last_node = [cell.reduce[-1] for cell in cells]
    used = collections.Counter(edge for node in last_node for edge, _ in node)
    assert set(used) == set(OPERATIONS) - {"none"}
    assert all(300 < count < 500 for count in used.values())  # 400, deviation 18
    pairs = collections.Counter((first[1], second[1]) for first, second in last_node)
    assert len(pairs) == 10
    assert all(90 < count < 190 for count in pairs.values())  # 140, deviation 11
    with pytest.raises(InputError, match="derivation 'top3': expected one of"):
        Genotype.random(0, "top3")


def test_published_cell():
    """DCP-NAS's ImageNet cell, edge by edge."""
    assert GOOD.normal == (
        (("max_pool_3x3", 0), ("sep_conv_5x5", 1)),
        (("skip_connect", 0), ("dil_conv_3x3", 2)),
        (("avg_pool_3x3", 1), ("sep_conv_3x3", 3)),
        (("avg_pool_3x3", 3), ("dil_conv_3x3", 4)),
    )
    assert GOOD.reduce == (
        (("max_pool_3x3", 0), ("sep_conv_3x3", 1)),
        (("sep_conv_3x3", 0), ("dil_conv_3x3", 1)),
        (("max_pool_3x3", 1), ("dil_conv_5x5", 2)),
        (("sep_conv_5x5", 1), ("dil_conv_5x5", 2)),
    )
