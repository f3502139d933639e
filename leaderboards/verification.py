"""What can be re-checked of a record without training again."""

from __future__ import annotations

from pathlib import Path

from commons.datasets import get_dataset
from commons.errors import InputError
from commons.files import sha256_file
from leaderboards.record import Record


def problems(record: Record, work_root: Path) -> list[str]:
    """What does not hold in ``record``, as sentences; empty when it is sound.

    The backbone must still mean what it meant, the dataset must belong to the board, and where the
    row's checkpoint lies in ``work_root`` it must be the one that was scored.
    """
    import backbones

    found = []
    try:
        if get_dataset(record.dataset).board != record.board:
            found.append(f"dataset {record.dataset} does not belong to board {record.board}")
        described = backbones.describe(record.backbone)
    except InputError as error:
        return [*found, str(error)]
    for key, value in described.items():
        if key == "cell" and record.cell is None:  # records of version 1 did not name it
            continue
        if getattr(record, key) != value:
            found.append(f"{key} is {getattr(record, key)!r}, but {record.backbone} has {value!r}")
    checkpoint = work_root / Path(record.file_name()).stem / record.details.get("checkpoint", "")
    if checkpoint.is_file() and sha256_file(checkpoint) != record.checkpoint_sha256:
        found.append(f"{checkpoint} is not the checkpoint that was scored (SHA-256 differs)")
    return found
