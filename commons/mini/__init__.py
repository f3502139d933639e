"""The mini datasets: procedural stand-ins for real ones, in their on-disk formats.

A dataset's field ``draw`` names the function that draws it into a folder.
:func:`write` puts complete datasets below a data root and leaves complete ones alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from onebit.commons import guards
from onebit.commons.datasets import DATASETS, resolve_code
from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import disk_error_message, sha256_file

#: Lies inside every mini dataset and says what a complete one contains.
MANIFEST = "manifest.json"


def write(folder: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, bool]]:
    """Draw mini datasets into ``folder/<name>``.

    A dataset appears whole or not at all: it is drawn into a hidden sibling folder that is renamed
    at the end. One that is already complete (its files match the checksum in its manifest, and the
    generator is the one that drew it) is kept; one that is damaged or outdated is drawn again.

    Args:
        folder: becomes a data root; created where missing.
        names: datasets to draw, default all.

    Returns:
        an iterator of (name, whether it was drawn now), which draws as it is consumed.

    Raises:
        InputError: an unknown name (at once), or ``folder/<name>`` holds something else.
        WorkError: the disk is full or the folder cannot be written.
    """
    choices = [d.name for d in DATASETS.values() if d.draw]
    names = list(choices if names is None else names)
    for name in names:
        guards.known("mini dataset", name, choices)
    return ((name, _write_one(Path(folder), name)) for name in names)


def draw(name: str, folder: Path) -> None:
    """Draw a mini dataset into ``folder`` itself, whatever is there."""
    resolve_code(DATASETS[name].draw)(folder)


def _write_one(folder: Path, name: str) -> bool:
    target = folder / name
    generator = _generator_hash(name)
    try:
        if target.exists() and _is_complete(target, name, generator):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            draw(name, temporary)
            manifest = {"dataset": name, "generator": generator, "checksum": DATASETS[name].checksum_of(temporary)}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # mkdtemp makes folders only their owner can enter
            _replace_folder(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise WorkError(disk_error_message(error, target)) from error
    return True


def _is_complete(target: Path, name: str, generator: str) -> bool:
    """Whether ``target`` is this dataset, undamaged and drawn by this generator."""
    if target.is_dir() and not any(target.iterdir()):
        return False
    try:
        manifest = json.loads((target / MANIFEST).read_text())
        ours = manifest["dataset"] == name
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise InputError(
            f"{target} exists but has no {MANIFEST} of {name}, so it was not drawn by this command: "
            f"move it away or choose another folder"
        )
    if manifest.get("generator") != generator:
        return False
    with contextlib.suppress(InputError):  # a damaged archive
        return manifest.get("checksum") == DATASETS[name].checksum_of(target)
    return False


def _replace_folder(new: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``; a folder cannot be renamed onto a filled one."""
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / "old"
        os.replace(target, old)
    os.replace(new, target)
    if old:
        shutil.rmtree(old.parent, ignore_errors=True)


def _generator_hash(name: str) -> str:
    """Changes when the source of any generator does that lies beside this one's."""
    digest = hashlib.sha256()
    for path in sorted(Path(inspect.getfile(resolve_code(DATASETS[name].draw))).parent.glob("*.py")):
        digest.update(f"{path.name}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()
