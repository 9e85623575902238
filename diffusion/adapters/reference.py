"""Reference attention (EMO, arXiv 2402.17485; Hallo, arXiv 2406.08801): one picture lends its look to others.

The picture goes once, at t = 0, through a UNet of the same architecture (the ReferenceNet, or the denoiser itself),
which records the input of each self-attention. The denoiser's self-attentions then read [own tokens, recorded
tokens]. What was recorded is an explicit `KVBank`; it travels with each call:

    bank = fill_bank(reference_net, pictures, inputs)
    denoiser(latents, t, replace(inputs, bank=bank))

Shapes: B objects, R pictures of an object, V views (or frames of which each row is one), N tokens of a picture,
C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.adapters.bank import KVBank
from diffusion.adapters.unet_hooks import attention_layers, layer_channels
from diffusion.conditioning import Inputs
from diffusion.denoisers.base import Denoiser


def reference_layers(unet: UNet2DConditionModel) -> dict[str, int]:
    """Name -> number of channels of every layer that a bank has tokens for, in the order in which they run."""
    return {
        f"{name}.transformer_blocks.{index}.attn1": layer_channels(layer)
        for name, layer in attention_layers(unet).items()
        for index in range(len(layer.transformer_blocks))
    }


def fill_bank(denoiser: Denoiser, latents: torch.Tensor, inputs: Inputs, *, timestep: int = 0) -> KVBank:
    """Runs pictures through a denoiser and keeps what its self-attentions see; the prediction is thrown away.

    Args:
        denoiser: one that takes `record`, and does not let the pictures of an object see each other.
        latents: [B, R, C, h, w], clean latents of the R pictures of B objects.
        inputs: for these pictures.
    """
    if latents.ndim != 5:
        raise ValueError(f"latents must be [B, R, C, h, w], got {list(latents.shape)}")
    record: dict[str, torch.Tensor] = {}
    denoiser(latents, timestep, replace(inputs, record=record))
    return KVBank({name: tokens.unflatten(0, latents.shape[:2]) for name, tokens in record.items()})


class BankProjection(nn.Module):
    """Trainable refinement of a bank's tokens, layer by layer: x + out(silu(in(x))), starting at x.

    With a frozen UNet that is its own ReferenceNet, this is what lets training change how pictures are
    read; it runs once per bank, so it costs nothing per denoising step.
    """

    def __init__(self, layers: Mapping[str, int], expansion: float = 1.0):
        super().__init__()
        self.layers = nn.ModuleDict()
        for name, channels in layers.items():
            hidden = max(1, round(expansion * channels))
            out = nn.Linear(hidden, channels)
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
            self.layers[module_key(name)] = nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), out)

    def forward(self, bank: KVBank) -> KVBank:
        tokens = {name: value + self.layers[module_key(name)](value) for name, value in bank.tokens.items()}
        return replace(bank, tokens=tokens)


def module_key(name: str) -> str:
    """A layer's name as a key of `nn.ModuleDict`, which allows no dots."""
    return name.replace(".", "_")
