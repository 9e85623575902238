"""Where libraries keep what they compile and download: elsewhere, where the usual place cannot be written.

In containers and on clusters HOME may be missing or read-only; Warp and Numba would fail in the middle of a run.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from experiments.errors import UserError

# The variable that moves a library's cache, and the cache's name in the user's cache folder.
_CACHES = {
    "WARP_CACHE_PATH": "warp",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
    "HF_HOME": "huggingface",
}


def prepare() -> None:
    """Move the caches that cannot be written to a temporary folder, for this process and its children, and say so.

    Models that were downloaded are left where they are: they can be read from a folder that cannot be written.

    Raises:
        UserError: there is no temporary folder either.
    """
    usual = _user_caches()
    places = {variable: Path(os.environ.get(variable) or usual / name) for variable, name in _CACHES.items()}
    refused = {
        variable: place
        for variable, place in places.items()
        if not _is_writable(place) and not (variable == "HF_HOME" and place.is_dir())
    }
    if not refused:
        return
    instead = _temporary(next(iter(refused.values())))
    for variable in refused:
        os.environ[variable] = str(instead / _CACHES[variable])
    print(
        f"galatea: caches cannot be written in {', '.join(dict.fromkeys(str(p.parent) for p in refused.values()))}; "
        f"{instead} is used (XDG_CACHE_HOME=FOLDER chooses another)",
        file=sys.stderr,
    )


def _user_caches() -> Path:
    """The user's cache folder, as the libraries find it."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home())
    if sys.platform == "darwin":
        return Path(os.path.expanduser("~/Library/Caches"))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))


def _is_writable(place: Path) -> bool:
    """Whether a folder can be written, or made. A user without a home has '~/.cache', which is relative, and none."""
    if not place.is_absolute():
        return False
    existing = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _temporary(refused: Path) -> Path:
    """A cache folder of this user's own: compiled code of somebody else must not be run."""
    try:
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"galatea-cache-{user}"
        with contextlib.suppress(FileExistsError):  # no folder: somebody else's, in all likelihood
            folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and not found.st_mode & 0o022:
            return folder
    except OSError as error:
        raise UserError(
            f"neither {refused} nor a temporary folder can be written ({error.strerror}); name a folder for caches: "
            "XDG_CACHE_HOME=FOLDER"
        ) from None
    return Path(tempfile.mkdtemp(prefix="galatea-cache-"))
