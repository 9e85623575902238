"""Frames that a talking benchmark made, kept in its run folder, and the networks that measure them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from avatar.mouth import MouthReader
from avatar.pipeline import TalkingClip
from avatar.syncnet import SyncNet
from diffusion.backbone import Backbone
from diffusion.files import save_tensors
from diffusion.finite import non_finite_name
from experiments.errors import UserError, one_line
from experiments.run.files import sha256_of_file
from experiments.run.run import Run
from experiments.speaking import MOUTH, SYNC, adapters_file
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
    """All frames [F, 3, S, S] uint8, and the seconds it took to make them: made now, or read back from ``file``."""
    if not file.is_file():
        began = time.monotonic()
        frames = torch.cat(list(make()))
        spent = torch.tensor(time.monotonic() - began, dtype=torch.float64)
        save_tensors(file, {"frames": frames, "seconds": spent})
    found = load_file(file)
    return found["frames"], float(found["seconds"])


def until(clips: Iterator[TalkingClip], last: int) -> Iterator[Tensor]:
    """The pictures of ``clips`` as uint8, as far as the clip that holds frame ``last`` - 1."""
    for clip in clips:
        yield to_uint8(clip.images).cpu()
        if clip.start + len(clip.images) >= last:
            return


def load_measures(backbone: Backbone, folder: str | None) -> tuple[MouthReader, SyncNet | None]:
    """The reader of mouths and, if it is there, the miniature SyncNet; ``folder`` None for those beside the backbone.

    Raises:
        UserError: there is no reader of mouths.
    """
    where = Path(folder) if folder else (Path(str(backbone.folder)) / MOUTH).parent
    mouth, sync = where / Path(MOUTH).name, where / Path(SYNC).name
    if not mouth.is_file():
        raise UserError(
            f"{mouth} is not there, and without it no mouth can be read; name a folder that has it with "
            "measures=FOLDER, or train it: galatea experiment=train/tiny_mouth"
        )
    reader, net = MouthReader(), SyncNet() if sync.is_file() else None
    _fill(reader, mouth)
    if net is not None:
        _fill(net, sync)
    return reader, net


def _fill(network: nn.Module, file: Path) -> None:
    try:
        tensors = {name: value.float() for name, value in load_file(file).items()}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{file} is damaged, or no {type(network).__name__} ({one_line(error, 120)}); fetch or train it again"
        ) from None
    damaged = non_finite_name(tensors)
    if damaged is not None:
        raise UserError(f"{file}: tensor {damaged} holds NaN or infinity; fetch or train it again")
    network.eval().requires_grad_(False)
