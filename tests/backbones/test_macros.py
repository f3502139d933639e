"""Macro-architectures: what the papers state of each, and which cell a network really has."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones.cells.macros import MACROS
from onebit.backbones.cells.operations import Halve
from onebit.commons.errors import InputError

GENOTYPE = backbones.cells.load_cell("pc_darts_cifar")


@pytest.mark.parametrize(
    ("name", "cells", "channels"),
    [
        *(("dcp_nas_s", 10, 54), ("dcp_nas_m", 10, 72), ("dcp_nas_l", 10, 108)),
        *(("cp_nas_s", 10, 56), ("cp_nas_m", 10, 72), ("cp_nas_l", 10, 112)),
        *(("cp_nas_c102", 10, 102), ("bnas", 20, 36), ("bnas_c44", 20, 44), ("bnas_c48", 20, 48)),
        *(("bnas_imagenet", 14, 64), ("darts_v2", 20, 36), ("darts_v2_c48_l14", 14, 48)),
        *(("pc_darts_cifar", 20, 36), ("pc_darts_imagenet", 14, 48)),
    ],
)
def test_cells_and_widths_of_the_papers(name, cells, channels):
    assert name in backbones.list_backbones()
    with torch.device("meta"):
        network = backbones.create_backbone(name)
    assert len(network.cells) == cells
    multiple = 1 if name == "bnas_imagenet" else 4
    assert network.feature_channels == (channels, *(multiple * channels * k for k in (1, 2, 4)))


@pytest.mark.parametrize(
    ("name", "cell", "own"),
    [
        ("dcp_nas_c8", "dcp_nas_imagenet", True),
        ("cp_nas_s", "dcp_nas_imagenet", False),
        ("bnas_c8_l6", "dcp_nas_imagenet", False),
        ("bnas_imagenet_c8_l6_mcn", "dcp_nas_imagenet", False),
        ("darts_v2_c8_l6_mcn", "darts_v2", True),
        ("pc_darts_cifar_c8_l6", "pc_darts_cifar", True),
        ("pc_darts_imagenet_c8_l6", "pc_darts_imagenet", True),
    ],
)
def test_a_name_says_which_cell_it_stands_for(name, cell, own):
    described = backbones.describe(name)
    assert described["cell"] == cell
    assert described["genotype_hash"] == backbones.cells.load_cell(cell).hash
    macro = next(MACROS[key] for key in sorted(MACROS, key=len)[::-1] if name.startswith(key))
    assert macro.own_cell == own
    assert backbones.describe("resnet18_w8")["cell"] is None


def test_default_binarizer_is_that_of_the_paper():
    for name, binarizer, bits in [
        ("dcp_nas_c8", "mcn", (1, 1)),
        ("cp_nas_c8_l6", "mcn", (1, 1)),
        ("bnas_c8_l6", "bnasxnorw1a32", (1, 32)),
        ("bnas_c8_l6_bnaspcnn", "bnaspcnn", (1, 1)),
        ("darts_v2_c8_l6", "none", (32, 32)),
    ]:
        described = backbones.describe(name)
        assert described["binarizer"] == binarizer
        assert (described["weight_bits"], described["activation_bits"]) == bits


def test_any_cell_in_any_macro_architecture(tmp_path):
    path = GENOTYPE.save(tmp_path / "mine.json")
    by_cell = backbones.CellNet(macro="cp_nas", cell=path, channels=8, layers=3)
    by_arch = backbones.CellNet(arch=path, macro="cp_nas", channels=8, layers=3)
    by_name = backbones.create_backbone("cp_nas_c8_l3", cell="pc_darts_cifar")
    for network in (by_cell, by_arch, by_name):
        assert network.genotype == GENOTYPE
        assert network.cell_name == "pc_darts_cifar"  # the same cell, by whatever name
        assert network.feature_channels == (8, 32, 64, 128)
    other = backbones.Genotype(GENOTYPE.normal, GENOTYPE.normal)
    assert backbones.CellNet(macro="bnas", cell=other, channels=8, layers=3).cell_name == "given"
    network = backbones.CellNet(other.save(tmp_path / "own.json"), channels=8, layers=3)
    assert network.cell_name == "own.json"


def test_summed_nodes():
    torch.manual_seed(0)
    network = backbones.create_backbone("bnas_imagenet_c8_l3_mcn").eval()
    network(torch.randn(1, 3, 64, 64))
    assert network.feature_channels == (8, 8, 16, 32)
    cell, seen = network.cells[2], {}
    for index, node in enumerate(cell.nodes):
        for edge in node.values():
            edge.register_forward_hook(lambda m, args, out, index=index: seen.setdefault(index, []).append(out))
    out = cell(torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4))
    torch.testing.assert_close(out, sum(sum(edges) for edges in seen.values()))


@pytest.mark.parametrize("switch", ["binarize_preprocess", "binarize_depthwise"])
@pytest.mark.parametrize(("value", "bits"), [("none", (32, 32)), ("weights", (1, 32)), ("both", (1, 1))])
def test_switches_of_table_8(switch, value, bits):
    network = backbones.create_backbone("dcp_nas_c8_l3", **{switch: value})
    kinds = {"binarize_preprocess": [], "binarize_depthwise": []}
    for path, module in network.cells.named_modules():
        if isinstance(module, nn.Conv2d):
            found = getattr(module, "weight_bits", 32), getattr(module, "input_bits", 32)
            if "preprocess" in path:
                kinds["binarize_preprocess"].append(found)
            elif module.groups > 1:
                kinds["binarize_depthwise"].append(found)
            else:
                assert found == (1, 1), path
    other = ({*kinds} - {switch}).pop()
    assert set(kinds[switch]) == {bits}
    assert set(kinds[other]) == {(1, 32)}  # as DCP-NAS has it
    assert any(isinstance(m, Halve) for m in network.modules())


def test_bnas_binarizes_everything_on_cifar_and_less_on_imagenet():
    """BNAS, section 4.3: on ImageNet neither preprocessing nor depthwise convolutions are 1-bit."""
    bits = {}
    for name in ("bnas_c8_l3_bnasxnor", "bnas_imagenet_c8_l3_bnasxnor"):
        network = backbones.create_backbone(name)
        convs = [m for m in network.cells.modules() if isinstance(m, nn.Conv2d)]
        bits[name] = {(getattr(m, "weight_bits", 32), getattr(m, "input_bits", 32)) for m in convs}
    assert bits == {"bnas_c8_l3_bnasxnor": {(1, 1)}, "bnas_imagenet_c8_l3_bnasxnor": {(32, 32), (1, 1)}}


@pytest.mark.parametrize(
    "name",
    [
        *("dcp_nas", "cp_nas", "cp_nas_xl", "bnas_s", "bnas_c8_l", "darts_v2_real", "darts_v1"),
        *("bnas_imagenet_x", "cp_nas_s_nothing", "pc_darts"),
    ],
)
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.create_backbone(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(arch="cp_nas_s", macro="bnas"), "macro 'bnas': arch 'cp_nas_s' names its macro"),
        (dict(arch=GENOTYPE, cell=GENOTYPE), "is a cell already"),
        (dict(macro="nasnet"), "macro 'nasnet': expected one of dcp_nas"),
        (dict(cell="darts_v9"), "unknown cell 'darts_v9'; did you mean darts_v2"),
        (dict(node_combination="max"), "node_combination 'max': expected one of concatenate, sum"),
        (dict(binarize_preprocess="all"), "binarize_preprocess 'all': expected one of none"),
        (dict(binarize_depthwise=True), "binarize_depthwise True: expected one of none"),
        (dict(structure="nasnet"), "structure 'nasnet': expected one of onebit, darts"),
        (dict(drop_path_prob=1), "drop_path_prob 1: expected a number from 0 up, below 1"),
        (dict(drop_path_prob=-0.1), "drop_path_prob -0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        backbones.CellNet(**{"layers": 3, **arguments})


def test_cells_as_their_authors_released_them():
    """Written out once more, in the order of the releases."""

    def cell(text):
        letters = dict(s3="sep_conv_3x3", s5="sep_conv_5x5", d3="dil_conv_3x3", d5="dil_conv_5x5")
        letters |= dict(id="skip_connect", mp="max_pool_3x3", ap="avg_pool_3x3")
        edges = [(letters[edge[:2]], int(edge[2])) for edge in text.split()]
        return tuple(tuple(sorted(edges[i : i + 2], key=lambda e: e[1])) for i in (0, 2, 4, 6))

    for name, normal, reduction in [
        ("darts_v2", "s30 s31 s30 s31 s31 id0 id0 d32", "mp0 mp1 id2 mp1 mp0 id2 id2 mp1"),
        ("pc_darts_cifar", "s31 id0 s30 d31 s50 s31 ap0 d31", "s51 mp0 s51 s52 s30 s33 s31 s32"),
        ("pc_darts_imagenet", "id1 s30 s30 id1 s31 s33 s31 d54", "s30 id1 d52 mp1 s32 s31 s50 s33"),
    ]:
        genotype = backbones.cells.load_cell(name)
        assert (genotype.normal, genotype.reduce) == (cell(normal), cell(reduction))
        assert genotype.provenance["source"].startswith("published")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A cell of our own among those that ship."""
    for name in backbones.cells.list_cells():
        backbones.cells.load_cell(name).save(tmp_path / f"{name}.json")
    own = backbones.Genotype(GENOTYPE.normal, GENOTYPE.normal, {"method": "dcp-nas"})
    own.save(tmp_path / "dcp_nas_ours_small.json")
    own.save(tmp_path / "dcp_nas_ours.json")
    monkeypatch.setattr(backbones.cells, "FOLDER", tmp_path)
    backbones.cells.load_cell.cache_clear()
    yield own
    backbones.cells.load_cell.cache_clear()


@pytest.mark.parametrize(
    ("suffix", "channels", "layers", "binarizer"),
    [
        ("", 54, 10, "mcn"),
        ("_c8_l6", 8, 6, "mcn"),
        ("_m_l3", 72, 3, "mcn"),
        ("_c8_l3_reactnet", 8, 3, "reactnet"),
        ("_c4_l3_real", 4, 3, "none"),
    ],
)
def test_a_cell_of_our_own_names_its_networks(shipped, tmp_path, suffix, channels, layers, binarizer):
    given = shipped.save(tmp_path / "folder" / "my_cell.json")
    for cell in ("dcp_nas_ours_small", given):
        name = f"{cell}{suffix}"
        with torch.device("meta"):
            network = backbones.create_backbone(name)
        assert (len(network.cells), network.feature_channels[0]) == (layers, channels)
        assert network.genotype == shipped
        assert backbones.describe(name)["binarizer"] == binarizer
        assert network.cell_name.startswith("dcp_nas_ours")  # the shipped cell that it equals


def test_a_cell_that_was_searched_here_has_its_supernet_s_size_unless_one_is_given(shipped, tmp_path):
    found = replace(shipped, provenance={"supernet": {"channels": 6, "cells": 4}})
    path = found.save(tmp_path / "cell.json")

    def size(name, **arguments):
        with torch.device("meta"):
            network = backbones.create_backbone(str(name), **arguments)
        return network.feature_channels[0], len(network.cells)

    assert size(path) == (6, 4)
    assert size(f"{path}_reactnet") == (6, 4)
    assert size(f"{path}_s") == (54, 10)
    assert size(path, layers=3) == (54, 3)
    assert size(path, macro="cp_nas") == size("cp_nas_s")
    wrong = replace(shipped, provenance={"supernet": {"channels": "many", "cells": 4}})
    with pytest.raises(InputError, match="channels 'many': expected a multiple of 2 from 2 to 1024"):
        size(wrong.save(tmp_path / "wrong.json"))


def test_a_cell_that_was_searched_here_has_its_supernet_s_binarizer_unless_one_is_given(shipped, tmp_path):
    def binarizer(name, **arguments):
        return backbones.describe(str(name), layers=3, **arguments)["binarizer"]

    def cell(of):
        found = replace(shipped, provenance={"supernet": {"channels": 6, "cells": 4, "binarizer": of}})
        return found.save(tmp_path / "cell.json")

    path = cell("xnor")
    assert binarizer(path) == binarizer(f"{path}_c8") == "xnor"
    assert binarizer(f"{path}_c8_mcn") == "mcn"
    assert binarizer(f"{path}_real") == "none"
    assert binarizer("dcp_nas_s", cell=str(path)) == binarizer(path, macro="cp_nas") == "mcn"  # a given name's
    assert binarizer(cell(None)) == "none"
    own = replace(shipped, provenance={"supernet": {"binarizer": None, "structure": "darts"}})
    path = own.save(tmp_path / "darts.json")
    with torch.device("meta"):
        found = [backbones.create_backbone(f"{path}_c8_l3{suffix}") for suffix in ("", "_real", "_mcn")]
    kinds = [type(network.cells[0].preprocess_newer).__name__ for network in found]
    assert kinds == ["ReLUConvBN", "ReLUConvBN", "Preprocess"]
    with pytest.raises(InputError, match="unknown binarizer 'zzz'"):
        binarizer(cell("zzz"))
    with pytest.raises(InputError, match="binarizer 3: expected a name, or null for real-valued"):
        binarizer(cell(3))


def test_our_cells_are_listed_and_published_ones_keep_their_names(shipped):
    names = backbones.list_backbones("*ours*")
    assert "dcp_nas_ours_small_c8_l6" in names
    assert "dcp_nas_ours_small_s" in names
    assert len(names) == len(set(names))
    for name in ("dcp_nas_imagenet_c8", "dcp_nas_ours_small_c0", "dcp_nas_ours_c8_nothing"):
        with pytest.raises(InputError, match="unknown backbone"):
            backbones.create_backbone(name)


def test_a_wrong_cell_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "cell.json").write_text('{"format": "onebit-genotype", "version": 1}')
    for name in ("cell.json", "cell.json_c8_l6"):
        with pytest.raises(InputError, match=r'cell\.json: the key "normal" is missing'):
            backbones.create_backbone(str(tmp_path / name))
    with pytest.raises(InputError, match="no genotype file at"):
        backbones.create_backbone(str(tmp_path / "none.json_c8"))
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.create_backbone(str(tmp_path / "cell.json_c8_x9"))
