"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

NO_ROOM = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
"""The system's numbers for a full disk, a used-up quota and a limit on files, and what helps."""
_MARK = ".tmp"


@contextlib.contextmanager
def atomic_path(path: Path, *, need: int | None = None) -> Iterator[Path]:
    """A temporary path in the same folder, with the same suffix, that takes the place of `path` on success.

    need: bytes that will be written, if they are known beforehand.

    Raises:
        OSError: it could not be written; the error names `path` and, where there is too little room, how much of it
            was wanted. What was written is gone, and what was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{_MARK}{path.suffix}")
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    except OSError as error:
        if error.errno is None or str(error.filename) not in ("None", str(temporary)):
            raise  # of another file
        written = temporary.stat().st_size if temporary.exists() else 0
        temporary.unlink(missing_ok=True)
        raise write_error(
            error, path, f"over {written:,} bytes" if need is None else f"{need:,} bytes"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_error(error: OSError, path: Path, need: str) -> OSError:
    """`error` as one that names the file or folder that was being written and, if it is about room, how much was
    needed and how much there is once what was written is removed."""
    words = error.strerror or os.strerror(error.errno or 0)
    if error.errno in NO_ROOM:
        words += f" ({need} are needed, {shutil.disk_usage(path.parent).free:,} are free)"
    return OSError(error.errno, words, str(path))


def is_temporary(path: Path) -> bool:
    """Whether `atomic_path` made up this name. Found where nobody writes, it is what a killed process left."""
    return path.name.startswith(".") and _MARK in path.name


def fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path, need=len(data)) as temporary:
        temporary.write_bytes(data)
