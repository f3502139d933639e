"""The picture of costs adds up to the numbers beside it."""

import pytest
from PIL import Image

from onebit import backbones
from onebit.backbones.cost.drawing import cost_figure, draw_costs, group_sums
from onebit.commons.errors import InputError

NAMES = ("resnet18_w16", "resnet18_w16_reactnet", "dcp_nas_c8")


@pytest.fixture(scope="module")
def counted():
    return [
        (name, backbones.cost(name, (3, 32, 32), convention, classes=10))
        for name in NAMES
        for convention in ("strict", "dcp-nas")
    ]


def test_groups_add_up_to_the_totals(counted):
    for _, cost in counted:
        sums = group_sums(cost)
        assert sum(mbit for mbit, _ in sums.values()) == pytest.approx(cost.memory_bits / 1e6)
        assert sum(mops for _, mops in sums.values()) == pytest.approx(cost.ops / 1e6)
    cell = group_sums(counted[-1][1])
    assert {"stem", "preprocess", "depthwise", "pointwise", "norm", "activation", "classifier"} <= set(cell)
    assert group_sums(counted[2][1])["binarizer"][0] > 0


def test_bars_are_as_long_as_the_totals_and_labelled(counted):
    figure = cost_figure(counted)
    for axes, total in zip(figure.axes, ("memory_bits", "ops"), strict=True):
        ends = dict.fromkeys(range(len(counted)), 0.0)
        for bar in axes.patches:
            ends[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
        expected = [getattr(cost, total) / 1e6 for _, cost in counted]
        assert list(ends.values()) == pytest.approx(expected)
        assert len(axes.texts) == len(counted)
        assert axes.get_xlim()[1] > max(expected)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["resnet18_w16\nstrict", "resnet18_w16\ndcp-nas"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["stem", "preprocess"]
    assert len(legend) == len(set(legend))


def test_svg_and_png(counted, tmp_path):
    assert "dcp_nas_c8" in draw_costs(counted, tmp_path / "cost.svg").read_text()
    with Image.open(draw_costs(counted, tmp_path / "cost.png")) as picture:
        assert picture.width == 1800
    with pytest.raises(InputError, match=r"expected a name that ends in \.svg or \.png"):
        draw_costs(counted, tmp_path / "cost.jpg")
    with pytest.raises(InputError, match="at least one network"):
        draw_costs([], tmp_path / "none.svg")
    assert len(list(tmp_path.iterdir())) == 2
