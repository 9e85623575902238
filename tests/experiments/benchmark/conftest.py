"""What the tests of the talking benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avatar.config import TINY
from avatar.model import TalkingModel
from avatar.mouth import MouthReader
from avatar.storage import save_adapters
from avatar.syncnet import SyncNet
from diffusion.backbone import load


@pytest.fixture
def talking(tmp_path: Path) -> Path:
    """Untrained adapters and measures."""
    folder = tmp_path / "talking"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_adapters(folder / "model.safetensors", TalkingModel(load("tiny").unet, TINY))
        for name, network in (("mouth", MouthReader()), ("sync", SyncNet())):
            save_file(network.state_dict(), folder / f"{name}.safetensors")
    return folder
