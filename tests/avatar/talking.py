"""A talking model small enough to build in a moment, and conditions for it."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from avatar.conditions import Conditions
from avatar.config import Config
from avatar.identity import IdentityConfig
from avatar.locator import LocatorConfig
from avatar.model import TalkingModel
from avatar.speed import SpeedConfig
from diffusion.adapters.audio import AudioProjectionConfig
from diffusion.adapters.motion import MotionConfig
from tests.diffusion.models import make_unet

FRAMES, HEIGHT, WIDTH = 3, 8, 8


def small_config(**changes: Any) -> Config:
    settings: dict[str, Any] = {
        "identity": IdentityConfig(embedding=24, tokens=2),
        "locator": LocatorConfig(channels=(1, 4, 8)),
        "audio_projection": AudioProjectionConfig(features=6, hidden=16, tokens=3, width=20),
        "motion": MotionConfig(motion_frames=2, max_frames=12),
        "speed": SpeedConfig(width=8),
    }
    return Config(**{**settings, **changes})


def make_model(
    *, trained: bool = True, unet: UNet2DConditionModel | None = None, **changes: Any
) -> TalkingModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TalkingModel(make_unet(camera=False) if unet is None else unet, small_config(**changes))
    if trained:
        randomise(model)
    return model.eval()


def make_flat_unet() -> UNet2DConditionModel:
    """One resolution only: the fastest to train."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=4,
            block_out_channels=(16,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=4,
        )


def randomise(model: nn.Module) -> None:
    """As if trained: what starts at zero is not zero."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if not name.startswith("unet.") and not parameter.detach().any():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clips(batch: int = 2, frames: int = FRAMES, *, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return noise(batch, frames, 4, height, width)


def make_conditions(
    model: TalkingModel,
    batch: int = 2,
    frames: int = FRAMES,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    seed: int = 0,
) -> Conditions:
    """All conditions at once, as a pipeline makes them."""
    identity = noise(batch, 24, seed=seed + 1)
    uniform = torch.Generator().manual_seed(seed + 2)
    return Conditions(
        reference=model.encode_reference(noise(batch, 1, 4, height, width, seed=seed + 3), identity),
        identity=identity,
        location=model.encode_location(torch.rand(batch, 1, 1, 2 * height, 2 * width, generator=uniform)),
        audio=model.encode_audio(noise(batch, frames, 5, 2, 3, seed=seed + 4)),
        masks=model.encode_masks(torch.rand(batch, 3, 64, 64, generator=uniform), height, width),
        motion=model.encode_motion(noise(batch, 2, 4, height, width, seed=seed + 5), identity),
        speed=torch.full((batch, frames), 12.0),
        blink=torch.rand(batch, frames, generator=uniform),
    )
