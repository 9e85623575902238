"""Multiview attention (MVDream, arXiv 2308.16512, section 3.1) as an attention processor.

The V views of an object see each other because the self-attention of every block runs over the
tokens of all of them. The UNet itself is untouched: it gets the views folded into its batch axis,
and the number of views travels with each call in `cross_attention_kwargs={"num_views": V}`.

Shapes: B objects, V views, N tokens of a view, M extra tokens, L text tokens, C channels, H heads, D = C / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


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


class MultiviewAttention:
    """Attention processor for both kinds of attention in a `UNet2DConditionModel`.

    Self-attention (attn1) runs over the tokens of the `num_views` views of an object; with `num_views=1` it
    equals the ordinary processor. Cross-attention (attn2) stays within a view, but a text conditioning
    given once per object, [B, L, C] beside [(B V), N, C], serves all its views without being repeated.
    Self-attention also reads `extra` tokens [E, M, C], where E divides B, if it is given any.
    It holds no weights and no state.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        num_views: int = 1,
        extra: torch.Tensor | None = None,
        after_attention: object = None,
    ) -> torch.Tensor:
        """See the class. `after_attention` is for the hooks of `diffusion.adapters.attach`: diffusers hands all of
        cross_attention_kwargs to every processor."""
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


def add_multiview_attention(unet: UNet2DConditionModel) -> None:
    """Puts `MultiviewAttention` on every attention layer of `unet`; weights and their names do not change.

    Does nothing where all layers have it already, or what is made from it.
    """
    if all(isinstance(processor, MultiviewAttention) for processor in unet.attn_processors.values()):
        return
    # Both kinds of attention get it, since diffusers hands cross_attention_kwargs to both.
    unet.set_attn_processor(MultiviewAttention())  # pyright: ignore[reportArgumentType]
