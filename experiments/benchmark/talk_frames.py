"""Frames that a talking benchmark made, kept in its run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from avatar.pipeline import TalkingClip
from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from experiments.run.files import sha256_of_file
from experiments.run.run import Run
from experiments.speaking import adapters_file
from video.pixels import to_uint8

_MADE = "checkpoints/made"


def made_folder(run: Run, backbone: Backbone, talking: str | None) -> tuple[Path, str]:
    """Where frames are kept, and the SHA-256 of the adapters that make them.

    The folder goes by the adapters' weights: a file of them that was trained further keeps its name.
    """
    adapters = sha256_of_file(adapters_file(backbone, talking))
    folder = run.folder / _MADE / adapters[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder, adapters


def kept(file: Path, make: Callable[[], Iterator[Tensor]]) -> tuple[Tensor, float]:
    """All frames [F, 3, S, S] uint8, and the seconds it took to make them: made now, or read back from `file`."""
    if not file.is_file():
        began = time.monotonic()
        frames = torch.cat(list(make()))
        spent = torch.tensor(time.monotonic() - began, dtype=torch.float64)
        save_tensors(file, {"frames": frames, "seconds": spent})
    found = load_file(file)
    return found["frames"], float(found["seconds"])


def until(clips: Iterator[TalkingClip], last: int) -> Iterator[Tensor]:
    """The pictures of `clips` as uint8, as far as the clip that holds frame `last` - 1."""
    for clip in clips:
        yield to_uint8(clip.images).cpu()
        if clip.start + len(clip.images) >= last:
            return
