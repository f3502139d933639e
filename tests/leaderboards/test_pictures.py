"""Pictures: the front by hand, what is drawn, that names do not lie upon each other."""

import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.collections import PathCollection
from PIL import Image

from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.sweep import bench
from onebit.leaderboards.showing import labels, pictures
from onebit.leaderboards.showing.line import Line
from onebit.leaderboards.showing.lines import measured, printed
from onebit.leaderboards.showing.pictures import Point, pareto_front

BOARD = ALL["cifar10"]


def line(name, top1, ops, memory=1e6, seeds=None, bits=(1, 1)):
    values = seeds or {0: top1}
    costs = {"strict": ops, "dcp-nas": ops / 10}
    return Line(
        "mini-cifar10",
        name,
        "none",
        *bits,
        "measured",
        {"top1": values},
        memory_bits=dict.fromkeys(costs, memory),
        ops=costs,
        records=[object()],
    )


def front_of(*xy):
    made = [Point(None, x, y, None, f"{x},{y}") for x, y in xy]
    return [(p.x, p.y) for p in pareto_front(made)]


def test_front_by_hand():
    assert front_of((1, 10), (2, 9), (3, 12), (4, 12), (5, 11)) == [(1, 10), (3, 12)]
    assert front_of((2, 5), (1, 5), (1, 4)) == [(1, 5)], "cheaper and as good wins"
    assert front_of((1, 5), (1, 7)) == [(1, 7)], "as cheap and better wins"
    assert front_of() == []


def test_no_point_beats_one_of_the_front():
    made = [Point(None, (7 * i) % 31 + 1, (11 * i) % 17, None, "") for i in range(60)]
    front = pareto_front(made)
    for point in front:
        assert not any((q.x <= point.x and q.y > point.y) or (q.x < point.x and q.y >= point.y) for q in made)
    for point in made:
        assert any(q.x <= point.x and q.y >= point.y for q in front)


def test_conventions_are_never_mixed():
    lines = [line("ours", 0.9, 50e6), *printed(ALL["imagenet"])]
    strict = pictures.points(ALL["imagenet"], lines, "ops", "strict", "top1")
    assert [(p.label, p.x) for p in strict] == [("ours", 50.0)], "a printed cost is not strict"
    paper = pictures.points(ALL["imagenet"], lines, "ops", "paper", "top1")
    assert {p.label: p.x for p in paper}["DCP-NAS-S"] == 100
    assert paper[0].x == 5.0


def test_error_bars_over_seeds_and_none_for_one():
    several = line("a", 0, 1e6, seeds={0: 0.50, 1: 0.52})
    point, single = pictures.points(BOARD, [several, line("b", 0.4, 1e6)], "ops", "strict", "top1")
    assert point.error == pytest.approx(1.41421356)
    assert single.error is None


@pytest.mark.parametrize("board", [b for b in ALL.values() if b.printed], ids=lambda b: b.name)
def test_names_do_not_overlap_nor_leave_the_axes(board, monkeypatch):
    """On the papers' own crowded tables, with the renderer's boxes of what was really drawn."""
    x = "memory" if board.name == "cifar10" else "ops"
    try:
        figure = pictures.draw(board, printed(board), x, "paper")
    except InputError:
        assert board.printed.table in ("12", "14", "5", "1"), "these tables print no cost"
        return
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [t.get_window_extent() for t in axes.texts]
    texts = [t.get_text() for t in axes.texts]
    assert len(texts) == len(set(texts))
    assert len(texts) >= 0.8 * len(pictures.points(board, printed(board), x, "paper", next(iter(board.metrics))))
    for (a, first), (b, second) in itertools.combinations(zip(boxes, texts, strict=True), 2):
        # The extent of an annotation includes its leader line; its text alone is what must not touch.
        a_text, b_text = (_text_box(axes, name) for name in (first, second))
        assert not a_text.overlaps(b_text), (first, second, a, b)
    inside = axes.get_window_extent()
    for name in texts:
        box = _text_box(axes, name)
        assert inside.x0 - 1 <= box.x0
        assert box.x1 <= inside.x1 + 1


def _text_box(axes, name):
    from matplotlib.text import Text

    text = next(t for t in axes.texts if t.get_text() == name)
    return Text.get_window_extent(text)


def test_an_imported_line_whose_bits_are_not_known_is_drawn():
    figure = pictures.draw(BOARD, [line("theirs", 0.5, 1e6, bits=(None, None))])
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["measured W/A not known"]


def test_a_crowd_leaves_names_out_rather_than_upon_each_other():
    crowd = [line(f"a_rather_long_name_{i}", 0.5 + 1e-4 * i, 1e6 + 10 * i) for i in range(60)]
    figure = pictures.draw(BOARD, crowd)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert 0 < len(axes.texts) < 60
    boxes = [_text_box(axes, t.get_text()) for t in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_points_of_one_look_are_drawn_together():
    """An artist for each of 400 points takes seconds."""
    lines = [line(f"n{i}", 0, 1e6 + i, seeds={0: 0.1, 1: 0.2}, bits=b) for i in range(20) for b in ((1, 1), (32, 32))]
    (axes,) = pictures.draw(BOARD, lines, links=lambda p: f"#{p.label}").axes
    marked = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert [len(c.get_offsets()) for c in marked] == [20, 20]
    assert len({url for c in marked for url in c.get_urls()}) == 40
    assert len(axes.containers) == 2, "error bars"


def test_a_label_without_leader_is_nearest_to_its_own_point():
    assert labels._ambiguous((0, 0), (10, -5, 50, 5), [(60, 0)])
    assert not labels._ambiguous((0, 0), (10, -5, 50, 5), [(90, 0)])


def test_svg_is_well_formed_repeatable_and_keeps_names_as_text():
    lines = [line("<script>$x$&", 0.9, 2e6), line("b", 0.5, 1e6)]
    first, second = (pictures.image(pictures.draw(BOARD, lines), "svg") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>$x$&" in texts, "neither markup nor mathematics"
    assert b"<script>" not in first


def test_plot_command(capsys, tmp_path, sweep):
    list(bench(sweep))
    out = tmp_path / "p.png"
    common = ["--records", str(sweep.records)]
    assert cli.main(["plot", "mini-cifar10", "--out", str(out), *common]) == 0
    with Image.open(out) as picture:
        assert picture.width >= 1000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    svg = tmp_path / "p.svg"
    arguments = ["plot", "cifar10", "--x", "memory", "--convention", "paper", "--out", str(svg)]
    assert cli.main([*arguments, *common]) == 0
    assert "as printed in dcp-nas table 10" in svg.read_text()
    for arguments, message in (
        (["plot", "mini-cifar10", "--out", "x.pdf"], ".svg or .png"),
        (["plot", "mini-cifar10", "--out", "x.png", "--metric", "AP"], "no metric"),
        (["plot", "mini-voc", "--out", "x.png"], "no records of mini-voc"),
        (["plot", "mini-cifar10", "--out", "x.png", "--recipe", "long"], "no records of mini-cifar10"),
        (["plot", "imagenet", "--out", "x.png"], "--convention paper"),
    ):
        capsys.readouterr()
        assert cli.main([*arguments, *common]) == 2
        assert message in capsys.readouterr().err


def test_lines_of_one_name_are_told_apart(sweep, stub_runner):
    list(bench(sweep))
    record = next(Record.load_all(sweep.records, "cifar10"))
    other = record.model_copy(update=dict(recipe="small"))
    found = pictures.points(BOARD, measured(BOARD, [record, other]), "ops", "strict", "top1")
    assert {p.label for p in found} == {"resnet18_w8 mini", "resnet18_w8 small"}
