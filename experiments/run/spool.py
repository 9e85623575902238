"""Files that users name, where a name need not be a file: a pipe, `<(...)` or /dev/stdin gives its bytes once only."""

from __future__ import annotations

import atexit
import shutil
import stat
import tempfile
from pathlib import Path

_spooled: dict[tuple[int, int], Path] = {}  # a pipe's device and number -> the copy of what came out of it


def spooled(path: str | Path) -> Path:
    """A path that can be opened as often as needed: `path` itself (~ expanded), or a copy of what a pipe holds.

    The copy has the pipe's own name, is made at the first call and removed when the process ends. A path that is
    missing, or may not be looked at, comes back as it is: whoever opens it says so.

    Raises:
        OSError: the pipe cannot be read, or there is no room for the copy.
    """
    found = Path(path).expanduser()
    try:
        facts = found.stat()
    except (OSError, ValueError):  # ValueError: a null character in the name
        return found
    if not stat.S_ISFIFO(facts.st_mode):
        return found
    pipe = facts.st_dev, facts.st_ino
    if pipe not in _spooled:
        folder = Path(tempfile.mkdtemp(prefix="galatea-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copy = folder / found.name
        with found.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        _spooled[pipe] = copy
    return _spooled[pipe]


def as_typed(message: str, path: str | Path) -> str:
    """An error message about `spooled(path)`, with the name that the user gave in it."""
    return message.replace(str(spooled(path)), str(Path(path).expanduser()))
