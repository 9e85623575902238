"""Reference attention (EMO, arXiv 2402.17485; Hallo, arXiv 2406.08801): one picture lends its look to others.

The picture goes once, at t = 0, through a UNet of the same architecture (the ReferenceNet, or the denoiser itself),
which records the input of each self-attention. The denoiser's self-attentions then read [own tokens, recorded
tokens]. What was recorded is an explicit `KVBank`; it travels with each call:

    bank = fill_bank(reference_net, pictures, context)
    unet(latents, t, context, cross_attention_kwargs={"num_views": V, "bank": bank})

Shapes: B objects, R pictures of an object, V views (or frames of which each row is one), N tokens of a picture,
C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.adapters.multiview import MultiviewAttention
from diffusion.adapters.unet_hooks import attention_layers, layer_channels


@dataclass(frozen=True, eq=False)
class KVBank:
    """What self-attention layers may read besides their own tokens.

    tokens: name of an attn1 layer -> [B, R, N, C], its inputs (outputs of norm1) for the R pictures of B objects.
    keep: B flags; an object whose flag is False reads its own tokens only. None: all read.
    """

    tokens: Mapping[str, torch.Tensor]
    keep: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        shapes = {tuple(value.shape[:2]) for value in self.tokens.values() if value.ndim == 4}
        if len(shapes) != 1 or any(value.ndim != 4 for value in self.tokens.values()):
            got = {name: list(value.shape) for name, value in self.tokens.items()}
            raise ValueError(f"tokens must be [B, R, N, C] with the same B and R in every layer, got {got}")
        if self.keep is not None and len(self.keep) != len(self):
            raise ValueError(f"keep must have one flag for each of {len(self)} objects, got {len(self.keep)}")

    def __len__(self) -> int:
        """B, the number of objects."""
        return next(iter(self.tokens.values())).shape[0]

    @property
    def num_images(self) -> int:
        """R, the number of pictures of an object."""
        return next(iter(self.tokens.values())).shape[1]

    @property
    def flags(self) -> tuple[bool, ...]:
        """`keep` written out: B flags."""
        return self.keep if self.keep is not None else (True,) * len(self)

    def drop(self, rows: Sequence[bool]) -> KVBank:
        """The same bank, read no more by the objects whose entry in `rows` [B] is True."""
        if len(rows) != len(self):
            raise ValueError(f"rows must have {len(self)} flags, got {len(rows)}")
        keep = tuple(flag and not row for flag, row in zip(self.flags, rows, strict=True))
        return replace(self, keep=None if all(keep) else keep)

    def layer(self, name: str) -> torch.Tensor:
        """The tokens [B, R, N, C] of a layer; ValueError when the bank was filled by another UNet."""
        if name not in self.tokens:
            raise ValueError(
                f"the bank has no tokens for layer {name!r}; it holds {len(self.tokens)} layers of another UNet: "
                "fill it with a ReferenceNet of the denoiser's architecture"
            )
        return self.tokens[name]

    def detach(self) -> KVBank:
        return replace(self, tokens={name: value.detach() for name, value in self.tokens.items()})

    @staticmethod
    def cat(banks: Sequence[KVBank]) -> KVBank:
        """The objects of several banks, one after another; all must have the same layers and sizes."""
        first = banks[0]
        tokens = {name: torch.cat([bank.layer(name) for bank in banks]) for name in first.tokens}
        keep = tuple(flag for bank in banks for flag in bank.flags)
        return KVBank(tokens, None if all(keep) else keep)


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
        after_attention: Any = None,
    ) -> torch.Tensor:
        """See the class. `record` takes the input of this layer under its name; `after_attention` is for hooks."""
        del after_attention  # diffusers hands all of cross_attention_kwargs to every processor
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


def reference_layers(unet: UNet2DConditionModel) -> dict[str, int]:
    """Name -> number of channels of every layer that a bank has tokens for, in the order in which they run."""
    return {
        f"{name}.transformer_blocks.{index}.attn1": layer_channels(layer)
        for name, layer in attention_layers(unet).items()
        for index in range(len(layer.transformer_blocks))
    }


def fill_bank(
    unet: UNet2DConditionModel,
    latents: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    *,
    class_labels: torch.Tensor | None = None,
    timestep: int = 0,
) -> KVBank:
    """Runs pictures through `unet` and keeps what its self-attentions see; the prediction is thrown away.

    Args:
        unet: with `add_reference_attention`. Pictures do not see each other.
        latents: [B, R, C, h, w], clean latents of the R pictures of B objects.
        encoder_hidden_states: [B, L, D], shared by an object's pictures.
        class_labels: [(B R), K] for a UNet with class embedding.
    """
    if latents.ndim != 5:
        raise ValueError(f"latents must be [B, R, C, h, w], got {list(latents.shape)}")
    batch, images = latents.shape[:2]
    record: dict[str, torch.Tensor] = {}
    unet(
        latents.flatten(0, 1).to(unet.dtype),
        timestep,
        encoder_hidden_states.to(unet.dtype),
        class_labels=class_labels,
        cross_attention_kwargs={"record": record},
        return_dict=False,
    )
    return KVBank({name: tokens.unflatten(0, (batch, images)) for name, tokens in record.items()})


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
