"""The networks that measure talking portraits: the reader of mouths, and the miniature SyncNet."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from avatar.mouth import MouthReader
from avatar.syncnet import SyncNet
from diffusion.backbone import Backbone
from diffusion.finite import non_finite_name
from experiments.errors import UserError, one_line
from experiments.speaking import MOUTH, SYNC


def load_measures(backbone: Backbone, folder: str | None) -> tuple[MouthReader, SyncNet | None]:
    """The reader of mouths and, if it is there, the miniature SyncNet; `folder` None for those beside the backbone.

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
