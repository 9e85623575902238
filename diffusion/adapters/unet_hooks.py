"""The two places of an unmodified UNet where adapters get in, besides its attention processors.

After every attention layer, a forward hook hands the layer's output to whatever the call brings along as
`after_attention` of its `AttentionContext`; at the input, `conv_in` takes features behind the channels
of the latents and adds them to its output.

Why hooks: wrapping the layers would rename every weight behind them, and a subclass of the UNet would be a fork.
A hook leaves the class, its forward and all names of its weights as they are. Here it holds no weights and no
state either, only the layer's name: the adapter comes with the call. So one UNet serves several models at once, a deep
copy of it is a whole copy, and a call that brings nothing computes what it computed before, to the bit. diffusers calls
attention layers outside its checkpointed functions, in train and eval mode alike, so the hooks see the same
calls with and without gradient checkpointing.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from diffusion.attention import AttentionContext


def attention_layers(unet: UNet2DConditionModel) -> dict[str, Transformer2DModel]:
    """Name -> attention layer ("down_blocks.0.attentions.1"), in the order in which they run."""
    found = {name: module for name, module in unet.named_modules() if isinstance(module, Transformer2DModel)}
    order = ("down_blocks", "mid_block", "up_blocks")
    return {name: found[name] for part in order for name in found if name.startswith(part)}


def add_layer_hooks(unet: UNet2DConditionModel) -> None:
    """Lets calls of `unet` bring a `LayerAdapter` along; a second call of this function does nothing."""
    for name, layer in attention_layers(unet).items():
        if not any(isinstance(hook, _AfterAttention) for hook in layer._forward_hooks.values()):
            layer.register_forward_hook(_AfterAttention(name), with_kwargs=True)


class _AfterAttention:
    def __init__(self, name: str):
        self.name = name

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        context: AttentionContext | None = (kwargs.get("cross_attention_kwargs") or {}).get("context")
        adapter = None if context is None else context.after_attention
        if adapter is None:
            return None  # torch then keeps the output
        if isinstance(output, tuple):
            return (adapter(self.name, output[0]), *output[1:])
        return type(output)(sample=adapter(self.name, output.sample))


class ConditionedConv(nn.Conv2d):
    """A convolution [B, C, h, w] -> [B, D, h, w] that also takes [B, C + D, h, w] and adds the D to its output."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (torch's own name)
        if input.shape[1] == self.in_channels:
            return super().forward(input)
        if input.shape[1] != self.in_channels + self.out_channels:
            raise ValueError(
                f"the input has {input.shape[1]} channels; it must have {self.in_channels}, or "
                f"{self.in_channels + self.out_channels} with features to add"
            )
        return super().forward(input[:, : self.in_channels]) + input[:, self.in_channels :]


def add_input_features(unet: UNet2DConditionModel) -> None:
    """Lets `unet` take features [rows, C0, h, w] behind the channels of its sample, added after `conv_in`.

    The new `conv_in` holds the same two parameters under the same names. A second call does nothing.
    """
    if has_input_features(unet):
        return
    old = unet.conv_in
    if unet.config["center_input_sample"]:
        raise ValueError("a UNet with center_input_sample would rescale the features; load one without")
    size = unet.config["conv_in_kernel"]
    new = ConditionedConv(
        old.in_channels, old.out_channels, size, padding=(size - 1) // 2, bias=False, device="meta"
    )
    new.weight, new.bias = old.weight, old.bias
    unet.conv_in = new.train(old.training)


def has_input_features(unet: UNet2DConditionModel) -> bool:
    """True when `unet` takes features behind the channels of its sample."""
    return isinstance(unet.conv_in, ConditionedConv)


def layer_channels(layer: Transformer2DModel) -> int:
    """Channels that an attention layer takes and gives back."""
    assert layer.in_channels is not None  # a UNet's layers are all of the continuous kind
    return layer.in_channels
