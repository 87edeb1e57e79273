"""Writing files so that a reader never sees half of one."""

import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mobilenets.errors import UserError

LONGEST_NAME = 255  # bytes of a file's name, on every usual file system
_LONGEST_SUFFIX = 32  # bytes; what is longer is no format that a writer knows


@contextmanager
def writing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it over ``path`` when the block ends well.

    The temporary file keeps the suffix of ``path`` (writers choose their format by it) and is removed when the
    block raises, so ``path`` holds either its old content or all of its new one.

    Raises:
        UserError: the directory cannot be written, the disk is full, or ``path`` names no file or something else.
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise UserError(f"{path}: is a directory; name a file")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is a device or a pipe, which would be replaced by a file; choose another place")
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # An error of the disk that was held back shows itself here at the latest, not after the rename.
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with suppress(OSError):  # where its directory could not even be made
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name that nothing else has, with the suffix of ``path``; a short one, since that of ``path`` may be the longest
    that is allowed.
    """
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    return path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part{suffix}")


def expanded(path: Path | str) -> Path:
    """``path`` with the user's directory for ``~``; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def explain(error: OSError, path: Path) -> UserError:
    """Turns a failure of the operating system to write ``path`` into one line with a way out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path}: no space left on the disk; free some and run the same command again")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return UserError(f"{path}: cannot be written ({error.strerror.lower()}); choose another place")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{path}: a file stands where a directory is needed; choose another place")
    return UserError(f"{path}: cannot be written ({error.strerror or error})")


def write_text(path: Path | str, text: str) -> None:
    """Writes ``text`` as UTF-8, whole or not at all; what UTF-8 cannot hold becomes ``?``."""
    with writing(path) as temporary:
        # A folder's name on Linux is any bytes, and so may a class's be.
        temporary.write_bytes(text.encode("utf-8", errors="replace"))


def write_json(path: Path | str, value: Any) -> None:
    """Writes ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_arrays(path: Path | str, arrays: dict[str, Any]) -> None:
    """Writes named arrays as ``.npz``, whole or not at all."""
    import numpy as np

    with writing(path) as temporary:
        # Packed in memory first: zipfile, closing a file on a full disk, would hide the disk's own error.
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        temporary.write_bytes(buffer.getbuffer())


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
