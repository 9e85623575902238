"""Adapters get into an unmodified UNet, and leave nothing behind in it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from diffusion.adapters.unet_hooks import (
    ConditionedConv,
    add_input_features,
    add_layer_hooks,
    attention_layers,
    layer_channels,
)
from diffusion.attention import AttentionContext, add_context_attention
from tests.diffusion.models import make_unet

LAYERS = [
    *("down_blocks.0.attentions.0", "down_blocks.1.attentions.0", "mid_block.attentions.0"),
    *(f"up_blocks.{block}.attentions.{layer}" for block in (0, 1) for layer in (0, 1)),
]


def make() -> UNet2DConditionModel:
    unet = make_unet(camera=False).eval()
    add_context_attention(unet)
    add_layer_hooks(unet)
    add_input_features(unet)
    return unet


def inputs(rows: int = 2) -> tuple[torch.Tensor, int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, 4, 8, 8, generator=generator),
        300,
        torch.randn(rows, 5, 32, generator=generator),
    )


@torch.no_grad()
def test_an_ordinary_call_computes_what_it_did_before() -> None:
    plain, adapted = make_unet(camera=False).eval(), make()
    assert torch.equal(adapted(*inputs()).sample, plain(*inputs()).sample)


def test_no_weight_changes_its_name(tmp_path: Path) -> None:
    plain, adapted = make_unet(camera=False, seed=1), make()
    assert list(adapted.state_dict()) == list(plain.state_dict())
    adapted.load_state_dict(plain.state_dict())
    adapted.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    assert isinstance(again, UNet2DConditionModel)
    assert type(adapted) is UNet2DConditionModel
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in plain.state_dict().items())


@torch.no_grad()
def test_the_adapter_of_a_call_sees_every_layer_once_and_in_order() -> None:
    unet = make()
    add_layer_hooks(unet)  # a second time: nothing happens twice
    seen: list[tuple[str, int]] = []

    def adapter(name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        seen.append((name, hidden_states.shape[1]))
        return hidden_states + 1.0

    before = unet(*inputs()).sample
    changed = unet(
        *inputs(), cross_attention_kwargs={"context": AttentionContext(after_attention=adapter)}
    ).sample
    layers = attention_layers(unet)
    assert list(layers) == LAYERS
    assert seen == [(name, layer_channels(layer)) for name, layer in layers.items()]
    assert not torch.allclose(changed, before)
    assert torch.equal(unet(*inputs()).sample, before)


@torch.no_grad()
def test_what_the_adapter_returns_is_the_output_of_the_layer() -> None:
    unet = make()
    layer = attention_layers(unet)["mid_block.attentions.0"]
    hidden, text = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 5, 32)
    doubled = AttentionContext(
        after_attention=lambda name, x: x * (2.0 if name == "mid_block.attentions.0" else 0.0)
    )
    kwargs = {"context": doubled}
    plain = layer(hidden, text).sample
    assert torch.equal(layer(hidden, text, cross_attention_kwargs=kwargs).sample, 2.0 * plain)
    assert torch.equal(layer(hidden, text, cross_attention_kwargs=kwargs, return_dict=False)[0], 2.0 * plain)


@torch.no_grad()
def test_a_deep_copy_is_independent() -> None:
    unet = make()
    twin = copy.deepcopy(unet)
    calls: list[str] = []

    def adapter(name: str, hidden_states: torch.Tensor) -> torch.Tensor:
        calls.append(name)
        return hidden_states

    twin(*inputs(), cross_attention_kwargs={"context": AttentionContext(after_attention=adapter)})
    assert calls == LAYERS
    twin.conv_in.weight.zero_()
    assert unet.conv_in.weight.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_changes_neither_results_nor_gradients(training: bool) -> None:
    results = []
    for checkpointing in (False, True):
        unet = make().train(training)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        gain = torch.ones((), requires_grad=True)
        calls: list[str] = []

        def adapter(
            name: str, x: torch.Tensor, gain: torch.Tensor = gain, calls: list[str] = calls
        ) -> torch.Tensor:
            calls.append(name)
            return x * gain

        out = unet(
            *inputs(), cross_attention_kwargs={"context": AttentionContext(after_attention=adapter)}
        ).sample
        out.square().mean().backward()
        assert calls == LAYERS
        results.append((out.detach(), gain.grad, unet.conv_in.weight.grad))
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_features_behind_the_latents_are_added_after_conv_in() -> None:
    unet = make_unet(camera=False).eval()
    old = unet.conv_in
    add_input_features(unet)
    add_input_features(unet)
    conv = unet.conv_in
    assert isinstance(conv, ConditionedConv)
    assert conv.weight is old.weight
    latents = inputs()[0]
    features = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    both = torch.cat([latents, features], dim=1)
    assert torch.equal(conv(both), old(latents) + features)
    assert torch.equal(conv(latents), old(latents))
    assert torch.equal(
        unet(torch.cat([latents, 0.0 * features], dim=1), *inputs()[1:]).sample, unet(*inputs()).sample
    )
    with pytest.raises(ValueError, match="the input has 6 channels; it must have 4, or 36 with features"):
        conv(both[:, :6])


def test_a_unet_that_rescales_its_input_is_refused() -> None:
    unet = make_unet(camera=False)
    unet.register_to_config(center_input_sample=True)
    with pytest.raises(ValueError, match="center_input_sample"):
        add_input_features(unet)
