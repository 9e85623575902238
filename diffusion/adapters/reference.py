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
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.adapters.attach import attention_layers, layer_channels
from diffusion.adapters.bank import KVBank
from diffusion.adapters.multiview import MultiviewAttention
from diffusion.conditioning import Inputs
from diffusion.denoisers.base import Denoiser


class ReferenceAttention(MultiviewAttention):
    """`MultiviewAttention` whose self-attention can record its input, and can read a bank besides its own tokens.

    `num_views` keeps its meaning: the V views of an object read each other and the object's pictures. Frames that
    shall not see each other are rows of their own, (B F) with `num_views=1`; then F rows share an object's
    pictures. Without `bank` and `record` it computes what `MultiviewAttention` computes, to the bit.
    It holds no weights and no state, only the name of its layer.
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        num_views: int = 1,
        bank: KVBank | None = None,
        record: dict[str, torch.Tensor] | None = None,
        after_attention: object = None,
    ) -> torch.Tensor:
        """See the class. `record` takes the input of this layer under its name."""
        if encoder_hidden_states is not None or (bank is None and record is None):
            return super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, num_views
            )
        if record is not None:
            # The first write counts: checkpointing runs a layer again in the backward pass.
            record.setdefault(self.name, hidden_states)
        if bank is None or not any(bank.flags):
            return super().__call__(attn, hidden_states, None, attention_mask, temb, num_views)
        extra = self._extra(bank, hidden_states, num_views)
        if all(bank.flags):
            return super().__call__(attn, hidden_states, None, attention_mask, temb, num_views, extra=extra)
        if attention_mask is not None or temb is not None:
            raise ValueError("attention_mask and temb are not supported where some objects drop the bank")
        grouped = hidden_states.unflatten(0, (len(bank), -1))
        flags = torch.tensor(bank.flags, device=hidden_states.device)
        output = torch.empty_like(grouped)
        reading = super().__call__(
            attn, grouped[flags].flatten(0, 1), num_views=num_views, extra=extra[flags]
        )
        alone = super().__call__(attn, grouped[~flags].flatten(0, 1), num_views=num_views)
        output[flags] = reading.unflatten(0, (-1, grouped.shape[1])).to(output.dtype)
        output[~flags] = alone.unflatten(0, (-1, grouped.shape[1])).to(output.dtype)
        return output.flatten(0, 1)

    def _extra(self, bank: KVBank, hidden_states: torch.Tensor, num_views: int) -> torch.Tensor:
        tokens = bank.layer(self.name).flatten(1, 2)  # [B, R N, C]
        if tokens.shape[-1] != hidden_states.shape[-1]:
            raise ValueError(
                f"the bank's tokens for layer {self.name!r} have {tokens.shape[-1]} channels, the layer has "
                f"{hidden_states.shape[-1]}: the ReferenceNet must have the denoiser's architecture"
            )
        if hidden_states.shape[0] % (len(bank) * num_views):
            raise ValueError(
                f"the bank has {len(bank)} objects, but the batch has {hidden_states.shape[0]} rows at "
                f"num_views={num_views}: rows must be objects times frames times views"
            )
        return tokens.to(hidden_states)


def add_reference_attention(unet: UNet2DConditionModel) -> None:
    """Puts `ReferenceAttention` on every attention layer of `unet`; weights and their names do not change."""
    processors = {name: ReferenceAttention(name.removesuffix(".processor")) for name in unet.attn_processors}
    unet.set_attn_processor(processors)  # pyright: ignore[reportArgumentType]


def has_reference_attention(unet: UNet2DConditionModel) -> bool:
    """True when the self-attention of `unet` can fill and read banks."""
    # All layers have it or none, and a denoiser asks at every call.
    first = next((module for module in unet.modules() if isinstance(module, Attention)), None)
    return first is not None and isinstance(first.processor, ReferenceAttention)


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
