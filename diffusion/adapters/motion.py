"""Temporal attention over the frames of a clip (AnimateDiff, arXiv 2307.04725), with EMO's motion frames and speed.

Every place of the feature map attends to itself in all frames, and in the last frames of the clip before
(motion frames), which are put in front of the clip's own and left out of the result. Frames are normalised one by
one, as in AnimateDiff and Hallo: GroupNorm sees one frame, never the statistics of the others. The output
projection starts at zero, so the untrained adapter changes nothing.

Shapes: B clips, F frames, M motion frames, N = h w places, C channels of the layer, S width of the speed embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.adapters.unet_hooks import attention_layers, layer_channels
from diffusion.attention import attend
from diffusion.limits import check_least


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionConfig:
    """The motion modules of a denoiser.

    heads: of each attention.
    attentions: temporal self-attentions of a module, one after another; AnimateDiff and Hallo have 2.
    ff_mult: hidden width of the feed-forward part in multiples of the layer's; 4 in AnimateDiff and Hallo.
    motion_frames: frames put in front; 4 in EMO, 2 in Hallo, 0 for none.
    max_frames: longest sequence, motion frames included; 32 in Hallo.
    """

    heads: int = 2
    attentions: int = 1
    ff_mult: int = 2
    motion_frames: int = 2
    max_frames: int = 32

    def __post_init__(self) -> None:
        check_least(self, 1, "heads", "attentions", "ff_mult")
        if not 0 <= self.motion_frames < self.max_frames:
            raise ValueError(
                f"motion_frames must be at least 0 and below max_frames={self.max_frames}, got {self.motion_frames}"
            )


class MotionModule(nn.Module):
    """Temporal transformer of one layer."""

    positions: torch.Tensor  # [max_frames, C]

    def __init__(self, channels: int, groups: int, config: MotionConfig, speed_width: int = 0):
        super().__init__()
        if channels % config.heads:
            raise ValueError(f"heads must divide the layer's {channels} channels, got {config.heads}")
        self.motion_frames, self.max_frames = config.motion_frames, config.max_frames
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.attentions = nn.ModuleList(
            Attention(channels, heads=config.heads, dim_head=channels // config.heads)
            for _ in range(config.attentions)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(config.attentions))
        self.ff = FeedForward(channels, mult=config.ff_mult)
        self.ff_norm = nn.LayerNorm(channels)
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)
        self.speed = nn.Linear(speed_width, channels, bias=False) if speed_width else None
        if self.speed is not None:
            nn.init.zeros_(self.speed.weight)  # speed comes last in training and starts where motion ended
        self.register_buffer("positions", sinusoids(config.max_frames, channels), persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_frames: int,
        motion: torch.Tensor | None = None,
        speed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One layer's pass.

        Args:
            hidden_states: [(B F), C, h, w].
            num_frames: F.
            motion: [B, M, N, C], what the ReferenceNet's layer of this name saw (norm1 outputs) for the last
                M frames of the clip before, oldest first. None: `motion_frames` maps of zeros, as EMO has it for the
                first clip.
            speed: [B, F, S] embedding; added to the clip's own frames. None adds nothing.

        Returns:
            [(B F), C, h, w]
        """
        rows, channels, height, width = hidden_states.shape
        if rows % num_frames:
            raise ValueError(f"num_frames is {num_frames}, but the batch has {rows} rows: not a whole number")
        batch = rows // num_frames
        places = height * width
        if motion is None:
            motion = hidden_states.new_zeros(batch, self.motion_frames, places, channels)
        past = motion.shape[1]
        if motion.shape != (batch, past, places, channels):
            raise ValueError(
                f"motion must be {[batch, 'M', places, channels]} here, got {list(motion.shape)}: take it from "
                "pictures of the clip's size and a ReferenceNet of the denoiser's architecture"
            )
        if past + num_frames > self.max_frames:
            raise ValueError(
                f"{past} motion frames and {num_frames} frames are more than max_frames={self.max_frames}; "
                "make shorter clips"
            )
        x = self._project(hidden_states.flatten(2))  # [(B F), N, C]
        if speed is not None:
            x = x + self._embed(speed, batch, num_frames).to(x)
        x = x.unflatten(0, (batch, num_frames))
        if past:
            before = self._project(motion.to(hidden_states).flatten(0, 1).transpose(1, 2))
            x = torch.cat([before.unflatten(0, (batch, past)), x], dim=1)
        x = self._attend(x.transpose(1, 2).flatten(0, 1), past)  # [(B N), F, C]
        x = self.proj_out(x).reshape(batch, places, num_frames, channels)
        return hidden_states + x.permute(0, 2, 3, 1).reshape(hidden_states.shape)

    def _project(self, frames: torch.Tensor) -> torch.Tensor:
        """[rows, C, N] -> [rows, N, C]; each row, that is each frame, is normalised by its own statistics."""
        return self.proj_in(self.norm(frames).transpose(1, 2))

    def _attend(self, x: torch.Tensor, past: int) -> torch.Tensor:
        """[(B N), M + F, C] -> [(B N), F, C]. The motion frames are dropped as soon as nobody reads them."""
        last = len(self.attentions) - 1
        for index, (attention, norm) in enumerate(zip(self.attentions, self.norms, strict=True)):
            assert isinstance(attention, Attention)
            context = norm(x) + self.positions[: x.shape[1]].to(x)
            queries = context
            if index == last:
                x, queries = x[:, past:], context[:, past:]
            x = x + attend(attention, queries, context)
        return x + self.ff(self.ff_norm(x))

    def _embed(self, speed: torch.Tensor, batch: int, num_frames: int) -> torch.Tensor:
        if self.speed is None:
            raise ValueError(
                "speed was given, but these motion modules were built without it (speed_width=0)"
            )
        if speed.shape != (batch, num_frames, self.speed.in_features):
            raise ValueError(
                f"speed must be {[batch, num_frames, self.speed.in_features]}, got {list(speed.shape)}"
            )
        return self.speed(speed.to(self.speed.weight)).flatten(0, 1)[:, None]


def motion_modules(
    unet: UNet2DConditionModel, config: MotionConfig, speed_width: int = 0
) -> dict[str, MotionModule]:
    """Name of each attention layer of `unet` -> its motion module.

    Public checkpoints of this family also hold modules after blocks without attention (down_blocks.3 and up_blocks.0
    of Stable Diffusion 1.5). Hallo never runs those five, so they are left out here.
    """
    groups = unet.config["norm_num_groups"]
    return {
        name: MotionModule(layer_channels(layer), groups, config, speed_width)
        for name, layer in attention_layers(unet).items()
    }


def sinusoids(length: int, channels: int) -> torch.Tensor:
    """Positions [length, channels]: sines in the even channels, cosines in the odd ones (arXiv 1706.03762)."""
    if channels % 2:
        raise ValueError(f"channels must be even, got {channels}")
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
