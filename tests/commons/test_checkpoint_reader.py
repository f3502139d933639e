"""Checkpoints of all kinds are read; what hostile ones do is in tests/security."""

import collections
import io
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.checkpoints import histories, plain
from onebit.commons.errors import InputError, WorkError

VALUES = dict(
    matrix=torch.arange(12.0).reshape(3, 4),
    transposed=torch.arange(6).reshape(2, 3).t(),
    part=torch.arange(10)[4:7],
    parameter=nn.Parameter(torch.ones(2)),
    half=torch.ones(3, dtype=torch.bfloat16),
    flags=torch.tensor([True, False]),
    **({"unsigned": torch.tensor(5, dtype=torch.uint16)} if hasattr(torch, "uint16") else {}),  # from torch 2.3 on
    empty=torch.zeros(0, 3),
    scalar=torch.tensor(7),
    numbers=[1, 10**20, -2.5, float("inf"), True, None],
    texts=("é", "", b"\xff\x00"),
    size=torch.Size([1, 2]),
    nested={"a": {1: {"b": [(), {}, {2}]}}},
)


def same(found, expected) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected.detach())
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize("new", [True, False])
def test_both_formats_of_torch(tmp_path, new):
    torch.save(VALUES, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    found = read_checkpoint(tmp_path / "a.pth")
    assert same(found, VALUES)
    assert not any(t.requires_grad for t in found.values() if isinstance(t, torch.Tensor))


def test_tensors_that_share_memory_still_do(tmp_path):
    torch.save(dict(all=VALUES["matrix"], row=VALUES["matrix"][1]), tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    found["all"].zero_()
    assert found["row"].tolist() == [0, 0, 0, 0]


def test_a_state_dict_keeps_the_versions_of_its_modules(tmp_path):
    state = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).state_dict()
    torch.save(state, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert same(found, state)
    assert found._metadata == state._metadata


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_other_programs_keep_beside_the_weights(tmp_path, protocol):
    kept = dict(
        rank1=np.float64(0.25),
        counts=np.arange(6).reshape(2, 3).T,
        flags=np.array([True, False]),
        swapped=np.arange(3, dtype=">i4"),
        milestones=collections.Counter([40, 40, 60]),
        device=torch.device("cuda:1"),
    )
    torch.save(kept, tmp_path / "a.pth", pickle_protocol=protocol)
    found = read_checkpoint(tmp_path / "a.pth")
    assert (found["rank1"], found["milestones"], found["device"]) == (0.25, {40: 2, 60: 1}, "cuda:1")
    assert found["counts"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert found["flags"].tolist() == [True, False]
    assert found["swapped"].tolist() == [0, 1, 2]


def hub() -> MessageHub:
    hub = MessageHub("test_checkpoint_reader")
    for step in range(3):
        hub.update_scalar("train/loss", step / 7)
    return hub


@pytest.mark.parametrize("ours", [True, False])
def test_the_history_of_losses(tmp_path, ours):
    """As mmengine writes it, which were our checkpoints before, and as ours are now."""
    state = hub().state_dict()
    torch.save(plain(state) if ours else state, tmp_path / "a.pth")
    if ours:
        torch.load(tmp_path / "a.pth", weights_only=True)
    found = histories(read_checkpoint(tmp_path / "a.pth")["log_scalars"])["train/loss"]
    assert [values.tolist() for values in found.data] == [[0, 1 / 7, 2 / 7], [1, 1, 1]]


def test_plain_values_only_are_written():
    with pytest.raises(WorkError, match=r"the checkpoint, meta, model holds a Linear: expected tensors, numbers"):
        plain({"meta": {"model": nn.Linear(1, 1)}})


def altered(path, change) -> None:
    """Write the archive anew, its parts changed by ``change(name, content)``."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))
    path.write_bytes(stream.getvalue())


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(tmp_path, new, keep):
    path = tmp_path / "a.pth"
    torch.save(VALUES, path, _use_new_zipfile_serialization=new)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=r"a\.pth is not a checkpoint that can be read without executing"):
        read_checkpoint(path)


def test_bytes_that_changed(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(torch.zeros(1000), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_checkpoint(path)


def test_numbers_in_another_order_of_bytes(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(torch.zeros(2), path)
    altered(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(InputError, match="its bytes are in another order"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path), "it is a TorchScript program"),
        (lambda path: torch.save(nn.Linear(1, 1), path), "it asks for torch.nn.modules.linear.Linear; save its state"),
        (lambda path: path.write_bytes(bytes(257) + b"ustar" + bytes(250)), "it is a tar archive, as torch wrote"),
        (lambda path: path.write_text("weights"), "it was not written by torch.save"),
        (lambda path: path.write_bytes(b""), "it was not written by torch.save"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, make, reason):
    make(tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"a\.pth is not a checkpoint that can be read .*: {reason}"):
        read_checkpoint(tmp_path / "a.pth")


def test_no_file(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="checkpoint not found"):
            read_checkpoint(path)
