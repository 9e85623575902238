"""The one attention processor of a diffusers UNet, and what a call tells all its layers: views, pictures, adapters.

Three methods meet in self-attention. The V views of an object see each other because it runs over the tokens of all of
them (MVDream, arXiv 2308.16512, section 3.1). It reads the tokens of other pictures besides (reference attention, EMO,
arXiv 2402.17485; see `diffusion.adapters.reference`). And it records what it sees, for others to read. The UNet itself
is untouched: it gets the views folded into its batch axis, and all of this travels with each call in
`cross_attention_kwargs={"context": AttentionContext(...)}`.

Shapes: B objects, V views, N tokens of a view, M extra tokens, L text tokens, C channels, H heads, D = C / H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffusion.adapters.bank import KVBank


def join_tokens(tokens: torch.Tensor, num_views: int, extra: torch.Tensor | None = None) -> torch.Tensor:
    """Lays the tokens of an object's views, and optional tokens from elsewhere, one after another.

    Args:
        tokens: [(B V), N, C], the views of one object in consecutive rows.
        num_views: V, at least 1.
        extra: [B, M, C] tokens appended for each object, such as those of a reference image.

    Returns:
        [B, V N + M, C]
    """
    rows, length, channels = tokens.shape
    if num_views < 1 or rows % num_views:
        raise ValueError(
            f"num_views is {num_views}, but the batch has {rows} rows: the rows must be objects times views"
        )
    joined = tokens.reshape(rows // num_views, num_views * length, channels)
    return joined if extra is None else torch.cat([joined, extra.to(joined)], dim=1)


def split_tokens(tokens: torch.Tensor, num_views: int) -> torch.Tensor:
    """The inverse of `join_tokens` without extra tokens: [B, V N, C] -> [(B V), N, C]."""
    batch, length, channels = tokens.shape
    return tokens.reshape(batch * num_views, length // num_views, channels)


def attend(
    attn: Attention,
    queries: torch.Tensor,
    context: torch.Tensor,
    mask: torch.Tensor | None = None,
    extra: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multi-head attention with the weights of `attn`: queries [B, N, C], context [B, K, C'] -> [B, N, C].

    extra: [E, M, C'] further context, where E divides B and each row of it serves B / E rows in a row; its
        keys and values are computed once and shared.
    """
    # Only layers without keys of their own lack these, and such layers never come here.
    assert attn.to_k is not None
    assert attn.to_v is not None
    assert attn.to_out is not None
    batch = queries.shape[0]
    query, key, value = attn.to_q(queries), attn.to_k(context), attn.to_v(context)
    if extra is not None:
        if batch % extra.shape[0]:
            raise ValueError(
                f"extra has {extra.shape[0]} rows, which must divide the {batch} rows of the batch"
            )
        shared = batch // extra.shape[0]
        key = torch.cat([key, attn.to_k(extra).repeat_interleave(shared, 0)], dim=1)
        value = torch.cat([value, attn.to_v(extra).repeat_interleave(shared, 0)], dim=1)
    head_dim = query.shape[-1] // attn.heads
    query = query.view(batch, -1, attn.heads, head_dim).transpose(1, 2)  # [B, H, N, D]
    key = key.view(batch, -1, attn.heads, head_dim).transpose(1, 2)
    value = value.view(batch, -1, attn.heads, head_dim).transpose(1, 2)
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    if mask is None and query.requires_grad and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # torch's fused attention has a backward pass for bfloat16 on CPUs that takes two to nine times as long.
        out = torch.softmax(query @ key.transpose(-1, -2) * head_dim**-0.5, dim=-1) @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out = out.transpose(1, 2).reshape(batch, -1, attn.heads * head_dim)
    return attn.to_out[1](attn.to_out[0](out))


# (name of the layer, hidden states [rows, C, h, w]) -> hidden states of the same shape
LayerAdapter = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionContext:
    """What one call of a UNet tells all its attention layers.

    num_views: V; the views of an object, V rows in a row, see each other. With 1 each row is on its own.
    bank: tokens of pictures that the B objects read besides their own. Rows that shall not see each other, as frames,
        are (B F) with `num_views=1`; then F rows share an object's pictures.
    record: takes the input of each self-attention under the layer's name.
    after_attention: runs after each attention layer, by the hooks of `diffusion.adapters.unet_hooks`.
    """

    num_views: int = 1
    bank: KVBank | None = None
    record: dict[str, torch.Tensor] | None = None
    after_attention: LayerAdapter | None = None


_ALONE = AttentionContext()


class ContextAttention:
    """Attention processor for both kinds of attention in a `UNet2DConditionModel`.

    Self-attention (attn1) does what the context of the call says; without one it equals the ordinary processor.
    Cross-attention (attn2) stays within a view, but a text conditioning given once per object, [B, L, C] beside
    [(B V), N, C], serves all its views without being repeated.
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
        context: AttentionContext = _ALONE,
    ) -> torch.Tensor:
        """What diffusers calls, with the call's context."""
        if encoder_hidden_states is not None:
            return self._attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        num_views, bank = context.num_views, context.bank
        if context.record is not None:
            # The first write counts: checkpointing runs a layer again in the backward pass.
            context.record.setdefault(self.name, hidden_states)
        if bank is None or not any(bank.flags):
            return self._attend(attn, hidden_states, None, attention_mask, temb, num_views)
        extra = self._extra(bank, hidden_states, num_views)
        if all(bank.flags):
            return self._attend(attn, hidden_states, None, attention_mask, temb, num_views, extra)
        if attention_mask is not None or temb is not None:
            raise ValueError("attention_mask and temb are not supported where some objects drop the bank")
        grouped = hidden_states.unflatten(0, (len(bank), -1))
        flags = torch.tensor(bank.flags, device=hidden_states.device)
        output = torch.empty_like(grouped)
        reading = self._attend(attn, grouped[flags].flatten(0, 1), num_views=num_views, extra=extra[flags])
        alone = self._attend(attn, grouped[~flags].flatten(0, 1), num_views=num_views)
        output[flags] = reading.unflatten(0, (-1, grouped.shape[1])).to(output.dtype)
        output[~flags] = alone.unflatten(0, (-1, grouped.shape[1])).to(output.dtype)
        return output.flatten(0, 1)

    def _attend(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        num_views: int = 1,
        extra: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One layer's pass; self-attention over V views, and `extra` tokens [E, M, C], where E divides B."""
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        grid = hidden_states.shape[1:] if hidden_states.ndim == 4 else None
        if grid is not None:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # [(B V), N, C]
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)

        if encoder_hidden_states is None:
            if attention_mask is not None and num_views > 1:
                raise ValueError(
                    "attention_mask is not supported in self-attention over several views; pass none"
                )
            if attention_mask is not None and extra is not None:
                raise ValueError("attention_mask is not supported beside extra tokens; pass none")
            joined = num_views
            queries = context = join_tokens(hidden_states, joined)
        else:
            joined = hidden_states.shape[0] // encoder_hidden_states.shape[0]
            queries, context = join_tokens(hidden_states, joined), encoder_hidden_states
            extra = None
            if attn.norm_cross:
                context = attn.norm_encoder_hidden_states(context)

        mask = None
        if attention_mask is not None:
            mask = attn.prepare_attention_mask(attention_mask, context.shape[1], context.shape[0])
            mask = mask.view(context.shape[0], attn.heads, -1, mask.shape[-1])
        hidden_states = split_tokens(attend(attn, queries, context, mask, extra), joined)

        if grid is not None:
            hidden_states = hidden_states.transpose(1, 2).reshape(-1, *grid)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return (
            hidden_states / attn.rescale_output_factor if attn.rescale_output_factor != 1.0 else hidden_states
        )

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


def add_context_attention(unet: UNet2DConditionModel) -> None:
    """Puts `ContextAttention` on every attention layer of `unet`; weights and their names do not change."""
    # Both kinds of attention get it, since diffusers hands cross_attention_kwargs to both.
    processors = {name: ContextAttention(name.removesuffix(".processor")) for name in unet.attn_processors}
    unet.set_attn_processor(processors)  # pyright: ignore[reportArgumentType]
