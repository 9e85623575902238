"""Text, JSON and checksums of files. Files appear whole or not at all, see `files.atomic`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from files.atomic import write_bytes


def expand_home(path: str, name: str) -> str:
    """`path` with a leading `~` or `~user` as that home folder; ValueError, naming the setting, for one unknown."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = path.replace(os.sep, "/").partition("/")[0]
        raise ValueError(
            f"{name} is {path!r}, but {user} is no user's home folder here; write ./{user}... for a name that begins so"
        )
    return expanded


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. NaN has no place in JSON and raises ValueError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """Hexadecimal SHA-256 of UTF-8 text (unpaired surrogates, which a shell can pass, included)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
