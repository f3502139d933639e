"""The table of trained cells: its file, its plan, its trainings."""

import copy
import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import onebit
from onebit.backbones import CellNet, Genotype, method_losses
from onebit.backbones.cells import list_cells, load_cell
from onebit.backbones.classifier import Classifier
from onebit.classification.cells_table import plan, table
from onebit.commons.errors import InputError

CONFIG = "0123456789ab"


def line(seed=0, cell=0, **changes):
    genotype = Genotype.random(cell)
    return {
        "genotype_hash": genotype.hash,
        "kind": "random",
        "name": f"random_{cell}",
        "seed": seed,
        "genotype": table.encode(genotype),
        "valid_1": 0.25,
        "valid_2": 0.5,
        "test": 0.375,
        "loss": 1.25,
        "params": 1000,
        "memory_bits": 5000,
        "ops_strict": 123.5,
        "seconds": 12.5,
        "config": CONFIG,
        "commit": "",
        **changes,
    }


def test_a_file_gives_back_what_was_written(tmp_path):
    lines = [line(cell=1), line(), line(seed=1)]
    table.write(tmp_path / "t.csv", lines, 2)
    read = onebit.CellsTable(tmp_path / "t.csv")
    assert sorted(read.lines, key=str) == sorted(lines, key=str)
    assert (len(read), read.epochs, read.config) == (3, 2, CONFIG)
    assert read.frame()["genotype_hash"].nunique() == 2
    assert read.genotypes()[lines[0]["genotype_hash"]] == Genotype.random(1)


@pytest.mark.parametrize("cell", [*list_cells(), *range(5)])
def test_every_cell_has_a_word(cell):
    genotype = Genotype.random(cell) if isinstance(cell, int) else load_cell(cell)
    assert table.decode(table.encode(genotype)) == genotype


@pytest.mark.parametrize("text", ["", "none", "none:0/none:0", "a|b/c|d", "sep_conv_3x3:x/skip_connect:0", "/" * 99])
def test_a_word_that_is_no_cell_is_refused(text):
    with pytest.raises(InputError):
        table.decode(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-1], "cut off"),
        (lambda text: text[: len(text) // 2] + "\n", "line 2: expected 15 values"),
        (lambda text: text.replace("genotype_hash", "hash", 1), "is no table of cells"),
        (lambda text: "", "is no table of cells"),
        (lambda text: text + text.splitlines()[-1] + "\n", "line 4: the same cell and seed as line 3"),
        (lambda text: text.replace(CONFIG, "ba9876543210", 1), "line 3: of another setting"),
        (lambda text: text.replace("0.25", "1.25"), "line 2: valid_1 1.25: expected a number from 0 to 1"),
        (lambda text: text.replace("0.375", "nan"), "line 2: test 'nan'"),
        (lambda text: text.replace("random,", "best,"), "line 2: kind 'best': expected one of shipped"),
        (lambda text: text.replace(Genotype.random(0).hash, "x" * 64), "line 2: genotype_hash"),
        (lambda text: text.replace("12.5", '"12.5'), "line 2: seconds"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, damage, message):
    path = table.write(tmp_path / "t.csv", [line(), line(seed=1)], 2)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError, match=message) as error:
        onebit.CellsTable(path)
    assert str(path) in str(error.value)


def test_the_table_that_ships_is_read_without_torch():
    code = "import sys, onebit; t = onebit.CellsTable(); print(len(t), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, torch_imported = done.stdout.split()
    assert int(count) > 0
    assert torch_imported == "False"


def accuracies():
    """Made up; no two are equal."""
    hashes = [Genotype.random(seed).hash for seed in plan.RANDOM_SEEDS]
    return {cell: i / len(hashes) for i, cell in enumerate(sorted(hashes))}


def test_the_plan_is_the_one_of_the_documentation():
    before, whole = list(plan.planned({})), list(plan.planned(accuracies()))
    assert whole[: len(before)] == before
    assert len({each.key for each in whole}) == len(whole)
    kinds = [each.kind for each in whole if each.seed == 0]
    assert (kinds.count("random"), kinds.count("mutation"), kinds.count("shipped")) == (200, 60, len(list_cells()))
    assert sum(each.seed == 2 for each in whole) == sum(each.seed == 1 for each in whole) == 40
    assert {each.genotype.hash for each in whole} >= {load_cell(name).hash for name in list_cells()}


def test_a_path_goes_node_by_node_from_a_good_cell_to_a_bad_one():
    found = accuracies()
    ranked = sorted(found, key=found.get)
    steps = [each for each in plan.planned(found) if each.kind == "mutation"]
    cells = {Genotype.random(seed).hash: Genotype.random(seed) for seed in plan.RANDOM_SEEDS}
    for path in range(plan.PATHS):
        own = [each.genotype for each in steps if each.name.startswith(f"path_{path}_")]
        good, bad = cells[ranked[-1 - path]], cells[ranked[path]]
        for number, (one, other) in enumerate(itertools.pairwise([good, *own]), 1):
            assert different(one, other) == 1
            assert different(good, other) == number
            assert different(other, bad) == different(good, bad) - number


def different(one, other):
    """Nodes of both cells whose edges differ."""
    return sum(
        a != b for pair in ((one.normal, other.normal), (one.reduce, other.reduce)) for a, b in zip(*pair, strict=True)
    )


def plain_network(genotype, channels=4):
    torch.manual_seed(0)
    backbone = CellNet(cell=genotype, channels=channels, layers=6, stem="cifar", out_indices=(3,))
    network = Classifier(backbone, 10).double()
    # A new network has channels that are constant, and what stands before a sign is then 0 but for rounding.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "size"), [(0, 8), (1, 9), (2, 16), ("cp_nas_ours_cifar10jpeg_small", 7)])
def test_the_quick_network_is_the_plain_one(cell, size):
    """Logits, gradients of every parameter, running statistics, and logits in evaluation, in float64."""
    from onebit.classification.cells_table.quick import QuickNetwork

    plain = plain_network(Genotype.random(cell) if isinstance(cell, int) else load_cell(cell))
    quick = QuickNetwork(copy.deepcopy(plain))
    torch.manual_seed(1)
    for _ in range(2):
        images, labels = torch.randn(6, 3, size, size).double(), torch.randint(0, 10, (6,))
        plain.train(), quick.network.train()
        plain.zero_grad()
        loss = F.cross_entropy(plain(images), labels)
        (loss + sum(method_losses(plain).values())).backward()
        torch.testing.assert_close(quick.step_gradients(images, labels), loss.detach())
        largest = max(p.grad.abs().max() for p in plain.parameters())
        for (name, own), other in zip(plain.named_parameters(), quick.network.parameters(), strict=True):
            torch.testing.assert_close(other.grad, own.grad, rtol=1e-7, atol=1e-11 * float(largest), msg=name)
        for (name, own), other in zip(plain.named_buffers(), quick.network.buffers(), strict=True):
            if own.is_floating_point():
                torch.testing.assert_close(other, own, rtol=1e-9, atol=1e-12, msg=name)
        plain.eval(), quick.network.eval()
        with torch.no_grad():
            torch.testing.assert_close(quick.logits(images), plain(images))
            for p, q in zip(plain.parameters(), quick.network.parameters(), strict=True):
                p -= 0.1 * p.grad
                q -= 0.1 * q.grad
    assert quick.parameters.grad.abs().sum() > 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digits_wherever_memory_lies(tmp_path):
    from onebit.classification.cells_table.training import get_setting, load_images, train
    from onebit.commons import mini

    list(mini.write(tmp_path, ["mini-cifar10"]))
    setting = get_setting("mini-cifar10")
    images = load_images(setting, tmp_path)
    found, held = [], []
    for size in (0, 1000, 33):
        held += [bytearray(size + 24 * i) for i in range(200)]
        torch.rand(size)  # what was drawn before counts for nothing
        result = train(Genotype.random(5), 1, setting, images)
        found.append((result.valid, result.test, result.loss))
    assert found[0] == found[1] == found[2]
    assert train(Genotype.random(5), 2, setting, images).loss != found[0][2]


@pytest.mark.parametrize("binarizer", ["xnor", None])
def test_a_network_without_a_quick_form_is_refused(binarizer):
    from onebit.classification.cells_table.quick import QuickNetwork

    backbone = CellNet(channels=4, layers=3, stem="cifar", out_indices=(3,), binarizer=binarizer)
    with pytest.raises(InputError, match="binarizer mcn"):
        QuickNetwork(Classifier(backbone, 10))


def test_settings_have_hashes_of_their_own():
    from dataclasses import replace

    from onebit.classification.cells_table.training import SETTINGS, get_setting

    setting = get_setting("cifar10-jpeg")
    others = [replace(setting, epochs=setting.epochs + 1), replace(setting, flip=False), *SETTINGS.values()]
    assert len({each.hash for each in others}) == len(others)
    with pytest.raises(InputError, match="unknown dataset of a table of cells 'cifar10'; did you mean"):
        get_setting("cifar10")
