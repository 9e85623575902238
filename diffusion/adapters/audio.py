"""Audio attention (EMO, arXiv 2402.17485, section 3.2; Hallo, arXiv 2406.08801, section 3.2).

After each spatial attention of the denoiser, every frame reads the tokens of its own moment of sound:

    x + sum over branches k of  weight_k * zero_conv_k(attention_k(norm(x), sound) * mask_k)

Hallo has three branches (pose, face, lip), each seeing its region of the picture; EMO has one for all of it.
The convolutions start at zero, so the untrained adapter changes nothing.

Shapes: B clips, F frames, N = h w places, C channels of the layer, I inner width, W frames of a window,
T tokens of a frame, A their width, K branches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.adapters.unet_hooks import attention_layers, layer_channels
from diffusion.attention import attend
from diffusion.limits import check_least

# (h, w) -> [B, F or 1, K, h w]: how much each place of a feature map listens to each branch
MaskPyramid = Mapping[tuple[int, int], torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig:
    """The audio modules of a denoiser.

    branches: one name per branch; ("pose", "face", "lip") is Hallo's, a single one is EMO's.
    heads: of each attention.
    transformer: Hallo's full block (1x1 projections, self-attention, feed-forward around the branches) instead of
        the branches alone.
    width: "layer" makes the inner width that of the layer; "input" Hallo's, the width coming into the UNet's
        block. Only a transformer can have another width than its layer.
    """

    branches: tuple[str, ...] = ("pose", "face", "lip")
    heads: int = 2
    transformer: bool = False
    width: Literal["layer", "input"] = "layer"

    def __post_init__(self) -> None:
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(f"branches must be one or more different names, got {tuple(self.branches)}")
        if any(not name.isidentifier() for name in self.branches):
            raise ValueError(f"branches must be plain names such as 'lip', got {tuple(self.branches)}")
        check_least(self, 1, "heads")
        if self.width not in ("layer", "input"):
            raise ValueError(f"width must be 'layer' or 'input', got {self.width!r}")
        if self.width == "input" and not self.transformer:
            raise ValueError("width='input' needs transformer=True; use width='layer'")


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioProjectionConfig:
    """From the features of a window of sound to tokens.

    window: frames of a window, odd; 5 is two on either side.
    features: numbers per frame, all axes multiplied: Hallo has 12 layers of 768; log-mel has bins times hops.
    hidden, tokens, width: width of the two hidden layers, number of tokens of a frame, and their width.
    """

    window: int = 5
    features: int = 320
    hidden: int = 256
    tokens: int = 8
    width: int = 128

    def __post_init__(self) -> None:
        check_least(self, 1, "window", "features", "hidden", "tokens", "width")
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, so that it has a middle frame, got {self.window}")


class AudioProjection(nn.Module):
    """Windows of sound features [B, F, W, ...] -> tokens [B, F, T, A]: three linear layers, ReLU, LayerNorm."""

    def __init__(self, config: AudioProjectionConfig):
        super().__init__()
        self.config = config
        self.proj1 = nn.Linear(config.window * config.features, config.hidden)
        self.proj2 = nn.Linear(config.hidden, config.hidden)
        self.proj3 = nn.Linear(config.hidden, config.tokens * config.width)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        window, features = self.config.window, self.config.features
        if windows.ndim < 4 or windows.shape[2] != window or math.prod(windows.shape[3:]) != features:
            raise ValueError(
                f"windows must be [B, F, {window}, ...] with {features} features per frame, "
                f"got {list(windows.shape)}"
            )
        flat = windows.flatten(2)
        tokens = self.proj3(F.relu(self.proj2(F.relu(self.proj1(flat)))))
        return self.norm(tokens.unflatten(-1, (self.config.tokens, self.config.width)))


class AudioModule(nn.Module):
    """The branches of one layer, with Hallo's transformer block around them if the config says so."""

    def __init__(self, channels: int, inner: int, audio_width: int, groups: int, config: AudioConfig):
        super().__init__()
        if inner % config.heads:
            raise ValueError(f"heads must divide the inner width {inner}, got {config.heads}")
        self.names = tuple(config.branches)
        self.transformer = config.transformer
        self.norm2 = nn.LayerNorm(inner)
        self.attn2 = nn.ModuleDict(
            {name: _attention(inner, config.heads, audio_width) for name in self.names}
        )
        # Without the transformer's own output a bias would leak out of the branch's mask.
        self.zero_conv = nn.ModuleDict(
            {name: nn.Conv2d(inner, inner, 1, bias=self.transformer) for name in self.names}
        )
        for module in self.zero_conv.values():
            _zero(module)
        if self.transformer:
            self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
            self.proj_in = nn.Conv2d(channels, inner, 1)
            self.norm1 = nn.LayerNorm(inner)
            self.attn1 = _attention(inner, config.heads)
            self.norm3 = nn.LayerNorm(inner)
            self.ff = FeedForward(inner)
            self.proj_out = nn.Conv2d(inner, channels, 1)
            _zero(self.proj_out)

    def forward(
        self,
        hidden_states: torch.Tensor,
        tokens: torch.Tensor,
        masks: torch.Tensor | None = None,
        weights: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """One layer's pass.

        Args:
            hidden_states: [(B F), C, h, w].
            tokens: [B, F, T, A].
            masks: [B, F or 1, K, h w] in [0, 1]; None lets every branch see everything.
            weights: K factors, 1 by default; a branch of weight 0 is not computed.
        """
        height, width = hidden_states.shape[-2:]
        weights = (1.0,) * len(self.names) if weights is None else tuple(weights)
        self._check(hidden_states, tokens, masks, weights)
        if not self.transformer and not any(weights):
            return hidden_states
        x = self.proj_in(self.norm(hidden_states)) if self.transformer else hidden_states
        x = x.flatten(2).transpose(1, 2)  # [(B F), N, I]
        if self.transformer:
            normed = self.norm1(x)
            x = x + attend(self.attn1, normed, normed)
        heard = self._branches(x, tokens, masks, weights)
        if not self.transformer:
            return hidden_states + _to_map(heard, height, width)
        x = x + heard
        x = x + self.ff(self.norm3(x))
        return hidden_states + self.proj_out(_to_map(x, height, width))

    def _branches(
        self, x: torch.Tensor, tokens: torch.Tensor, masks: torch.Tensor | None, weights: tuple[float, ...]
    ) -> torch.Tensor:
        batch, frames = tokens.shape[:2]
        normed, sound = self.norm2(x), tokens.flatten(0, 1).to(x)
        total = torch.zeros_like(x)
        for index, name in enumerate(self.names):
            if weights[index] == 0.0:
                continue
            attention, conv = self.attn2[name], self.zero_conv[name]
            assert isinstance(attention, Attention)
            assert isinstance(conv, nn.Conv2d)
            heard = attend(attention, normed, sound)
            if masks is not None:
                mask = masks[:, :, index, :, None].to(heard)  # [B, F or 1, N, 1]
                heard = (heard.unflatten(0, (batch, frames)) * mask).flatten(0, 1)
            # A 1x1 convolution on tokens is a linear map.
            total = total + weights[index] * F.linear(heard, conv.weight.flatten(1), conv.bias)
        return total

    def _check(
        self,
        hidden_states: torch.Tensor,
        tokens: torch.Tensor,
        masks: torch.Tensor | None,
        weights: tuple[float, ...],
    ) -> None:
        rows, places = hidden_states.shape[0], hidden_states.shape[-2] * hidden_states.shape[-1]
        if tokens.ndim != 4 or tokens.shape[0] * tokens.shape[1] != rows:
            raise ValueError(
                f"audio tokens must be [B, F, T, A] with B F = {rows} rows, got {list(tokens.shape)}"
            )
        if len(weights) != len(self.names):
            raise ValueError(f"weights must be one for each of {self.names}, got {weights}")
        if masks is None:
            return
        clips, frames, branches, size = masks.shape
        fits = clips == tokens.shape[0] and frames in (1, tokens.shape[1])
        if not fits or branches != len(self.names) or size != places:
            raise ValueError(
                f"masks must be [{tokens.shape[0]}, {tokens.shape[1]} or 1, {len(self.names)}, {places}] here "
                f"(branches {self.names}), got {list(masks.shape)}"
            )


def audio_modules(
    unet: UNet2DConditionModel, audio_width: int, config: AudioConfig
) -> dict[str, AudioModule]:
    """Name of each attention layer of `unet` -> its audio module."""
    groups = unet.config["norm_num_groups"]
    modules = {}
    for name, layer in attention_layers(unet).items():
        channels = layer_channels(layer)
        inner = _inner(unet, name, channels, config)
        modules[name] = AudioModule(channels, inner, audio_width, groups, config)
    return modules


def _inner(unet: UNet2DConditionModel, name: str, channels: int, config: AudioConfig) -> int:
    """The inner width; Hallo takes the width of what enters the UNet's block, from below or over the skip."""
    if config.width == "layer" or name.startswith("mid_block"):
        return channels
    levels = tuple(unet.config["block_out_channels"])
    part, block, _, layer = name.split(".")
    if part == "down_blocks":
        return channels if int(layer) else levels[max(int(block) - 1, 0)]
    return levels[max(len(levels) - 2 - int(block), 0)]


def mask_pyramid(
    masks: torch.Tensor, height: int, width: int, levels: int
) -> dict[tuple[int, int], torch.Tensor]:
    """Masks at every resolution of a UNet, resized once per clip: the mean over what a place covers.

    Args:
        masks: [B, K, H, W], the same in all frames, or [B, F, K, H, W]; any size, values in [0, 1].
        height, width: of the latents.
        levels: number of the UNet's resolutions, each half of the one before, rounded up.

    Returns:
        (h, w) -> [B, F or 1, K, h w].
    """
    if masks.ndim == 4:
        masks = masks[:, None]
    if masks.ndim != 5:
        raise ValueError(f"masks must be [B, K, H, W] or [B, F, K, H, W], got {list(masks.shape)}")
    lead = masks.shape[:3]
    pyramid = {}
    for _ in range(levels):
        resized = F.interpolate(masks.flatten(0, 1), (height, width), mode="area")
        pyramid[height, width] = resized.reshape(*lead, height * width)
        height, width = (height + 1) // 2, (width + 1) // 2
    return pyramid


def _attention(width: int, heads: int, context: int | None = None) -> Attention:
    return Attention(width, cross_attention_dim=context, heads=heads, dim_head=width // heads)


def _to_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
