"""`onebit compare` on records whose values are known by hand."""

import pytest

from onebit.leaderboards import cli
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.sweep import bench


@pytest.fixture
def compare(sweep, capsys):
    """Records of top-1 values, {backbone: {seed: value}}, and the command over them."""
    list(bench(sweep))
    base = next(Record.load_all(sweep.records, "cifar10"))

    def write(values, **changes):
        for backbone, seeds in values.items():
            for seed, value in seeds.items():
                fields = dict(backbone=backbone, seed=seed, metrics={"top1": value, "top5": 0.9})
                base.model_copy(update={**fields, **changes}).save(sweep.records)

    def run(*arguments):
        code = cli.main(["compare", "mini-cifar10", *arguments, "--records", str(sweep.records)])
        output = capsys.readouterr()
        return code, output.out + output.err

    run.write = write
    return run


def test_two_lines_that_differ_beyond_noise_and_two_that_do_not(compare):
    compare.write({"far": {0: 0.60, 1: 0.62, 2: 0.61}, "near": {0: 0.50, 1: 0.53, 2: 0.51}})
    compare.write({"other": {0: 0.52, 1: 0.51, 2: 0.51}})
    code, text = compare("far", "near", "--metric", "top1")
    assert code == 0
    assert "61.00 ± 1.00 (n = 3) against 51.33 ± 1.53 (n = 3) %" in text
    assert "difference +9.67 points" in text
    assert "LARGER than seed noise" in text
    assert "within seed noise" in compare("other", "near", "--metric", "top1")[1]


def test_one_network_against_a_set(compare):
    # Means over the two seeds that all have: 0.60 against 0.50, 0.51, 0.52, 0.53; s^2 = 5/3 e-4,
    # error = s sqrt(1 + 1/4) = 0.014434, t = 0.085 / 0.014434 = 5.889 at 3 degrees of freedom.
    compare.write({"ours": {0: 0.59, 1: 0.61}})
    compare.write({f"random_{i}": {0: 0.49 + i / 100, 1: 0.51 + i / 100, 2: 0.9} for i in range(4)})
    code, text = compare("ours", "random_*", "--metric", "top1")
    assert code == 0
    assert "ours against random_* (4 networks)" in text
    assert "60.00 against 51.50 ± 1.29 (50.00 to 53.00) %, means over seeds 0, 1" in text
    assert "difference +8.50 points, 95 % interval +3.91 to +13.09" in text
    assert "LARGER than what networks differ by (p = 0.010" in text
    assert "above 4 of 4" in text


def test_a_network_of_the_set_against_the_others(compare):
    compare.write({f"random_{i}": {0: 0.5 + i / 100} for i in range(4)})
    text = compare("random_3", "random_*", "--metric", "top1")[1]
    assert "random_3 against random_* (3 networks)" in text
    assert "above 3 of 3" in text


def test_too_few_networks_give_no_verdict(compare):
    compare.write({"ours": {0: 0.6}, "random_0": {0: 0.5}, "random_1": {0: 0.55}})
    text = compare("ours", "random_*", "--metric", "top1")[1]
    assert "not enough networks (1 and 2; one side needs 3)" in text
    assert "noise" not in text


def test_networks_without_a_seed_in_common(compare):
    compare.write({"ours": {0: 0.6}, "random_0": {0: 0.5}, "random_1": {1: 0.55}})
    assert "no seed that all of these networks have" in compare("ours", "random_*")[1]


def test_only_lines_of_one_recipe(compare):
    values = {"a": {0: 0.6, 1: 0.6, 2: 0.6}, "b": {0: 0.5, 1: 0.5, 2: 0.5}}
    compare.write(values)
    compare.write(values, recipe="small")
    assert compare("a", "b")[1].count("a against b") == 2
    assert compare("a", "b", "--recipe", "small")[1].count("a against b") == 1
    compare.write({"c": {0: 0.6}}, recipe="small")
    code, text = compare("c", "[ab]", "--recipe", "mini")
    assert code == 2
    assert "no records of 'c' on mini-cifar10, recipe mini; there are a, b" in text
    code, text = compare("c", "resnet18_w8*")
    assert code == 2
    assert "share dataset, recipe and options" in text
