"""The file of features: what goes in comes out, and nothing else is taken for it."""

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError, WorkError
from onebit.reid.features import Features, extract, load, relative_names, save


def images(count=3, labels=True):
    rng = np.random.default_rng(count)
    return Features(
        features=rng.normal(size=(count, 2)).astype(np.float32),
        names=tuple(f"query/ä {n}.jpg" for n in range(count)),
        pids=rng.integers(0, 9, count) if labels else None,
        cameras=rng.integers(0, 9, count) if labels else None,
    )


@pytest.mark.parametrize("labels", [True, False])
def test_what_goes_in_comes_out(tmp_path, labels):
    groups = dict(query=images(3, labels), gallery=images(5, labels))
    facts = {"epochs": 3, "loss": [0.1, 1 / 3]}
    path = save(tmp_path / "new" / "f.safetensors", groups, facts)
    loaded, found = load(path)
    assert found == facts
    assert sorted(loaded) == ["gallery", "query"]
    for group, expected in groups.items():
        assert loaded[group].features.dtype == np.float32
        assert np.array_equal(loaded[group].features, expected.features)
        assert loaded[group].names == expected.names
        for key in ("pids", "cameras"):
            ours, theirs = getattr(loaded[group], key), getattr(expected, key)
            assert (ours is None and theirs is None) or np.array_equal(ours, theirs)


def test_any_safetensors_reader_can_use_it(tmp_path):
    path = save(tmp_path / "f.safetensors", dict(images=images(3, False)), {})
    tensors = safetensors.numpy.load_file(path)
    assert np.array_equal(tensors["images.features"], images(3, False).features)


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path):
    path = save(tmp_path / "f.safetensors", dict(query=images(2)), {"epochs": 3})
    content = path.read_bytes()
    flipped = tmp_path / "flipped.safetensors"
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        flipped.write_bytes(changed)
        with pytest.raises(InputError, match=r"flipped\.safetensors"):
            load(flipped)


def test_every_truncation_is_noticed(tmp_path):
    path = save(tmp_path / "f.safetensors", dict(query=images(2)), {"epochs": 3})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"f\.safetensors"):
            load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(InputError, match=r"f\.safetensors"):
        load(path)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "f.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected a whole safetensors file"):
        load(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(InputError, match=r"features not found: .*f\.safetensors"):
        load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(InputError, match="found a file without a format"):
        load(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, {"format": "pt"})
    with pytest.raises(InputError, match="found pt in"):
        load(path)
    torch.save({"features": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="expected a whole safetensors file"):
        load(path)
    with pytest.raises(InputError, match="features not found"):
        load(tmp_path)


@pytest.mark.parametrize(
    "change", [dict(names=("a",)), dict(pids=np.zeros(7, int)), dict(features=np.zeros(3, np.float32))]
)
def test_tensors_that_do_not_belong_together(tmp_path, change):
    wrong = Features(**{**vars(images(3)), **change})
    path = save(tmp_path / "f.safetensors", dict(query=wrong), {})
    with pytest.raises(InputError, match=r"f\.safetensors are not laid out as features"):
        load(path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="could not write"):
        save(tmp_path / "file" / "f.safetensors", dict(query=images()), {})


def test_names_are_relative_with_forward_slashes(tmp_path):
    paths = [str(tmp_path / "query" / "a.jpg"), str(tmp_path / "b.jpg")]
    assert relative_names(paths, tmp_path) == ("query/a.jpg", "b.jpg")


class Mean(torch.nn.Module):
    """Features that tell left from right: mean of the left half, mean of the right one."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        left, right = x.chunk(2, dim=3)
        return self.scale * torch.stack([left.mean((1, 2, 3)), right.mean((1, 2, 3))], 1)


def batches(count=4):
    rng = torch.Generator().manual_seed(0)
    for n in range(count):
        yield {
            "img": torch.rand(2, 3, 4, 4, generator=rng),
            "pid": torch.tensor([n, n]),
            "camid": torch.tensor([0, 1]),
            "impath": ["a", "b"],
        }


def test_features_come_in_the_order_of_the_loader():
    loader = list(batches())
    model = Mean()
    found = extract(model, loader, "queries")
    expected = torch.cat([model(batch["img"]) for batch in loader]).detach().numpy()
    assert np.array_equal(found["features"], expected)
    assert found["pid"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found["camid"] == [0, 1] * 4
    assert found["impath"] == ["a", "b"] * 4
    assert not model.training


def test_the_mirror_image_is_added():
    found = extract(Mean(), list(batches()), "queries", flip=True)["features"]
    assert np.allclose(found[:, 0], found[:, 1])
    assert np.allclose(found[:, 0], extract(Mean(), list(batches()), "queries")["features"].sum(1))
