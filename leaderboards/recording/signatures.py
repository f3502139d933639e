"""Signatures of records: a maintainer's SSH key over a record's digest, in a file beside the record.

OpenSSH's ``ssh-keygen -Y`` makes and checks them: it is wherever git is used, maintainers have such keys
already (those that sign their commits, hardware keys included), and who may sign is a text file,
``allowed_signers``, in which a key has a name and may have an end. The list is never taken from a folder of
records: who sends records could send a list with them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import read_small, write_atomic
from onebit.leaderboards.recording.run_file import RunFile

#: A signature made for anything else (a commit, a letter) is none of a record.
NAMESPACE = "onebit-record"
SUFFIX = ".sig"
#: Names of the list of maintainers' keys: the environment's, or the one beside the code.
SIGNERS_VARIABLE = "ONEBIT_SIGNERS"
_SHIPPED = Path(__file__).resolve().parents[1] / "allowed_signers"
#: Bytes; a signature has a few hundred.
_LARGEST = 2**14


def signers_file() -> Path:
    """Who may sign: ``$ONEBIT_SIGNERS``, else ``leaderboards/allowed_signers`` of this installation."""
    return Path(os.environ.get(SIGNERS_VARIABLE) or _SHIPPED)


def sign(record: RunFile, key: Path) -> Path:
    """Sign a record that was read from its file.

    Args:
        key: a private key, or a public one whose private half an SSH agent holds. ssh-keygen asks for a
            passphrase itself.

    Returns:
        the signature's file, ``<record>.json.sig``.

    Raises:
        InputError: no such key, or one that cannot sign.
        WorkError: there is no ssh-keygen.
    """
    if not key.is_file():
        raise InputError(f"key not found: {key}")
    done = _ssh_keygen("sign", "-f", key, "-n", NAMESPACE, text=_statement(record))
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise InputError(f"{key} cannot sign: {_reason(done)}")
    return write_atomic(sidecar(record.path), done.stdout)


def signer(record: RunFile) -> str | None:
    """The name in :func:`signers_file` of who signed ``record``; None where no signature lies beside it.

    Raises:
        InputError: there is one that does not hold: of another content, or of a key that is not in the list.
        WorkError: there is one, but no ssh-keygen.
    """
    path = record.path and sidecar(record.path)
    if path is None or not os.path.lexists(path):
        return None
    try:
        content = read_small(path, _LARGEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder) / "signature"
        signature.write_bytes(content)
        listed = ("-f", signers_file(), "-s", signature)
        found = _ssh_keygen("find-principals", *listed)
        for name in found.stdout.decode(errors="replace").replace(",", " ").split():
            options = ("-I", name, "-n", NAMESPACE)
            if _ssh_keygen("verify", *listed, *options, text=_statement(record)).returncode == 0:
                return "".join(c for c in name if c.isprintable())[:80]
    reason = "it is of another content" if found.stdout.strip() else f"its key is not in {signers_file()}"
    raise InputError(f"the signature {path} does not hold: {reason}")


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _statement(record: RunFile) -> bytes:
    return f"onebit record {record.sealed}\n".encode()


def _ssh_keygen(action: str, *arguments: object, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["ssh-keygen", "-Y", action, *map(str, arguments)], input=text, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise WorkError("signatures need OpenSSH: there is no ssh-keygen on PATH") from error


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    return " ".join(done.stderr.decode(errors="replace").split())[:200] or f"ssh-keygen ended with {done.returncode}"
