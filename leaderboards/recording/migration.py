"""Records of earlier schema versions, brought up to date when they are read.

A file on disk keeps the version, and the digest, it was written with: the digest is checked on what
the file says, before anything here is applied. Every step takes the content of one version to the
next one, so a new version adds one function.
"""

from __future__ import annotations

from typing import Any

from onebit.commons.errors import InputError

SCHEMA_VERSION = 3


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew no imported rows, kept no predictions and did not name the cell."""
    return _added(content, origin="trained", predictions=None, cell=None)


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 hashed the file of a checkpoint, which differs between runs that give the same weights."""
    return _added(content, checkpoint_hash="file")


def _added(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    if early := sorted(fields.keys() & content.keys()):
        raise ValueError(f"version {content['schema_version']} has no {', '.join(early)}")
    return {**content, **fields}


_STEPS = {1: _from_1, 2: _from_2}


def require_known(content: dict[str, Any]) -> None:
    """Check that ``content`` is of a version that can be read.

    Raises:
        ValueError: it names no version.
        InputError: a version that was never released, or one that is newer than this code.
    """
    version = content.get("schema_version")
    if type(version) is not int:
        raise ValueError(f"expected a whole number as schema_version, found {version!r}")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"schema_version {version} is newer than the versions 1 to {SCHEMA_VERSION} that this "
            f"onebit-bench reads: update it"
        )
    if version < 1:
        raise InputError(f"there is no schema_version {version}: they start at 1")


def migrate(content: dict[str, Any]) -> dict[str, Any]:
    """Bring the content of a record, less its digest, to :data:`SCHEMA_VERSION`.

    Raises:
        ValueError: it holds what its version did not have.
    """
    for version in range(content["schema_version"], SCHEMA_VERSION):
        content = {**_STEPS[version](content), "schema_version": version + 1}
    return content
