"""Pictures of cells: everything is in them, and no text covers another."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from onebit import backbones
from onebit.backbones import Genotype
from onebit.backbones.cells.drawing import cell_figure, draw_cells
from onebit.backbones.cells.genotype import OPERATIONS, POSSIBLE_EDGES
from onebit.commons.errors import InputError, WorkError

PUBLISHED = backbones.cells.load_cell("dcp_nas_imagenet")


def derived(derivation, seed, **options):
    scores = np.random.default_rng(seed).random((2, POSSIBLE_EDGES, len(OPERATIONS)))
    return Genotype.derive(scores, derivation, keep_none=True, **options)


CELLS = [PUBLISHED, *(derived(kind, seed) for kind in ("top2", "all14") for seed in range(4))]


@pytest.mark.parametrize("genotype", CELLS)
def test_every_edge_has_a_label_and_no_text_covers_another(genotype):
    figure = cell_figure(genotype)
    figure.draw_without_rendering()
    for axes, cell in zip(figure.axes, (genotype.normal, genotype.reduce), strict=True):
        labels = [text for text in axes.texts if text.get_gid() == "edge"]
        operations = [operation for node in cell for operation, _ in node]
        assert sorted(label.get_text() for label in labels) == sorted(operations)
        nodes = [text for text in axes.texts if text.get_gid() == "node"]
        assert [node.get_text() for node in nodes] == ["$c_{k-2}$", "$c_{k-1}$", *"0123", "$c_k$"]
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        frame = axes.get_window_extent().padded(1)  # pixel
        for box in boxes:
            assert frame.contains(box.x0, box.y0)
            assert frame.contains(box.x1, box.y1)


@pytest.mark.parametrize("genotype", CELLS)
def test_every_arrow_ends_at_its_target_and_labels_lie_on_it(genotype):
    from onebit.backbones.cells.drawing import _NODE, _PITCH, _Layout

    for cell in (genotype.normal, genotype.reduce):
        keys = [(operation, target) for target, node in enumerate(cell) for operation, _ in node]
        edges = _Layout.of(cell).edges
        assert [edge.operation for edge in edges] == [operation for operation, _ in keys]
        ends = [edge.corners[-1] for edge in edges]
        assert len(set(ends)) == len(ends)
        for (_, target), edge in zip(keys, edges, strict=True):
            x, y = edge.corners[-1]
            assert abs(x - target * _PITCH) <= _NODE / 2 + 1e-9
            assert abs(y) <= _NODE / 2 + 1e-9
            (x0, y0), (x1, y1) = next(
                part for part in zip(edge.corners, edge.corners[1:], strict=False) if part[0][1] == part[1][1]
            )
            assert x0 < edge.label[0] < x1
            assert edge.label[1] == y0 == y1


def test_svg_and_png(tmp_path):
    svg = draw_cells(PUBLISHED, tmp_path / "cell.svg").read_text()
    for word in ("normal cell", "reduction cell", "sep_conv_5x5", "DCP-NAS"):
        assert word in svg
    again = draw_cells(PUBLISHED, tmp_path / "again.svg").read_text()
    assert again == svg
    with Image.open(draw_cells(derived("all14", 0), tmp_path / "cell.PNG")) as picture:
        picture.load()
        assert picture.width > 1000
        assert len(set(picture.convert("RGB").getdata())) > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.svg", "cell.PNG", "cell.svg"]


def test_provenance_of_any_kind_is_no_trouble(tmp_path):
    odd = {"source": "costs $5 and\n" + "x" * 500, "method": 3, "dataset": "a_b^{$"}
    assert draw_cells(derived("top2", 0, provenance=odd), tmp_path / "cell.png").exists()


def test_wrong_name_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"expected a name that ends in \.svg or \.png"):
        draw_cells(PUBLISHED, tmp_path / "cell.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError):
        draw_cells(PUBLISHED, tmp_path / "file" / "cell.svg")
